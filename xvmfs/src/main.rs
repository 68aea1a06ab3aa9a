//! The cluster as files: see `xvmfs --help`.

use std::process::ExitCode;
use xvmfs::{background, config::Config, run};

/// A view is many small records that come and go with each heartbeat, on several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let config = match Config::parse(std::env::args_os()) {
        Ok(config) => config,
        Err(e) => e.exit(),
    };
    let result = if config.foreground { foreground(config) } else { background::start().map_err(Into::into) };
    result.unwrap_or_else(|e| {
        eprintln!("xvmfs: {e:#}");
        ExitCode::FAILURE
    })
}

fn foreground(config: Config) -> anyhow::Result<ExitCode> {
    xvm_daemon::log("info,fuser=off");
    let ready = config.ready;
    // one worker beside the threads of FUSE: records are made and freed by one thread, which takes a third less memory
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?.block_on(async {
        let shutdown = xvm_daemon::ending()?;
        let told = move || {
            // the mount serves also when nobody can be told
            drop(sd_notify::notify(&[sd_notify::NotifyState::Ready]));
            if ready {
                drop(background::ready());
            }
        };
        run::run(config, told, shutdown).await.map(|()| ExitCode::SUCCESS)
    })
}
