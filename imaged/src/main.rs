//! imaged: xvm's image agent. See the library for what it does; here flags, signals and the log are put together.

use clap::Parser;
use std::process::ExitCode;
use xvm_imaged::{config::Config, driver};

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    match run(Config::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("imaged: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(config: Config) -> anyhow::Result<()> {
    xvm_daemon::log("info");
    let shutdown = xvm_daemon::ending()?;
    if config.has_tls() {
        tracing::warn!("the bus is not protected: whoever reaches the forwarder can command imaged");
    } else {
        tracing::warn!(
            "neither the bus nor the exports are protected: whoever reaches them can use the disks"
        );
    }
    let ready = || {
        tracing::info!("imaged runs");
        // without systemd nobody listens, and that is no error
        drop(sd_notify::notify(&[sd_notify::NotifyState::Ready]));
    };
    driver::run(config, ready, shutdown).await
}
