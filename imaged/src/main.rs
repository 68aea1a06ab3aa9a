//! imaged: xvm's image agent. See the library for what it does; here flags, signals and the log are put together.

use clap::Parser;
use std::{io::IsTerminal, process::ExitCode};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
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
    let filter = EnvFilter::try_from_env("XVM_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).init();
    // first of all: a signal that comes while the rest starts must not be lost
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let shutdown = async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
    };
    tracing::warn!("neither the bus nor the exports are protected: whoever reaches them can use the disks");
    let ready = || {
        tracing::info!("imaged runs");
        // without systemd nobody listens, and that is no error
        drop(sd_notify::notify(&[sd_notify::NotifyState::Ready]));
    };
    driver::run(config, ready, shutdown).await
}
