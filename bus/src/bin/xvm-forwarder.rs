//! `xvm-forwarder`: see its `--help`, and [`xvm_bus::forwarder`].

use anyhow::Context;
use clap::Parser;
use std::io::IsTerminal as _;
use tokio::signal::unix::{SignalKind, signal};
use xvm_bus::forwarder::{self, Flags};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("XVM_LOG");
    tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|_| "info".into()))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let mut term = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    forwarder::run(flags.config(), async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
    .await
}
