//! agentd: xvm's server agent. See the library for what it does; here flags, signals and the log are put together.

use anyhow::Context;
use clap::Parser;
use std::process::ExitCode;
use xvm_agentd::{config::Config, driver, state::State};
use xvm_bus::{BusConfig, Clock};
use xvm_model::Sender;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    match run(Config::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("agentd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(config: Config) -> anyhow::Result<()> {
    xvm_daemon::log("info");
    let shutdown = xvm_daemon::ending()?;

    let (name, clock) = (config.server()?, Clock::system());
    let state = State::open(&config.state)?;
    let boot = state.boot(clock.now().wall)?;
    state.settings()?;
    let hypervisor = config.open(&name, &state).await?;
    tracing::warn!("the bus is not protected: whoever reaches the forwarder can command this server");
    if let Some(slow) = config.slow_tcp() {
        tracing::warn!("{slow}");
    }
    if config.leaves_the_machine() {
        tracing::warn!(
            "a forwarder is on another machine: what is said to it can be read and changed on the way"
        );
    }
    let (publisher, receiver) = xvm_bus::connect(BusConfig {
        forwarders: config.forwarder.clone(),
        sender: Sender::Agent(name.clone()),
        boot,
        subscriptions: driver::subscriptions(&name),
        clock,
    })?;
    tracing::info!(%name, hypervisor = %hypervisor.kind(), address = hypervisor.address(), "agent runs");
    // without systemd nobody listens, and that is no error
    drop(sd_notify::notify(&[sd_notify::NotifyState::Ready]));
    driver::run(state, hypervisor, publisher, receiver, shutdown).await.context("the agent ended by itself")
}
