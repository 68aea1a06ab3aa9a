//! guestd: xvm's guest agent. See the library for what it does; here flags, signals and the log are put together.

use std::process::ExitCode;
use xvm_guestd::{builtin, config::Config, driver, simulated};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args_os().skip(1).map(|w| w.to_string_lossy().into_owned()).collect();
    if let Some(("test", rest)) = words.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return builtin::main(rest);
    }
    match run(&Config::read()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guestd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

// one thread: a guest's memory is its user's
#[tokio::main(flavor = "current_thread")]
async fn run(config: &Config) -> anyhow::Result<()> {
    xvm_daemon::log("info");
    let shutdown = xvm_daemon::ending()?;
    // without systemd nobody listens, and that is no error
    let ready = || drop(sd_notify::notify(&[sd_notify::NotifyState::Ready]));
    if let Some(plan) = config.simulated() {
        tracing::info!("guests of simulated domains run");
        return simulated::run(plan?, ready, shutdown).await;
    }
    let plan = config.plan()?;
    tracing::warn!("the bus is not protected: whoever reaches the forwarder can command this guest");
    let name = plan.settings.name.clone();
    let ready = || {
        tracing::info!(%name, "guestd runs");
        ready();
    };
    driver::run(plan, ready, shutdown).await
}
