//! A mount from its beginning to its end.
//!
//! ```text
//!   connect ──▶ mount ──▶ first view, or 2 s ──▶ ready ──▶ SIGTERM, SIGINT ──▶ unmount ──▶ end
//!                                                    └────▶ unmounted by others ─────────▶ end
//! ```

use crate::cluster::Cluster;
use crate::config::Config;
use crate::fuse::{self, Fs};
use crate::mount::{self, MountError};
use crate::schedules::{Schedules, disk::Disk, driver};
use crate::tree::Tree;
use anyhow::Context as _;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use xvm_bus::{BusConfig, Client, Clock, Endpoint, Publisher, Receiver};
use xvm_model::{Boot, Sender};

/// How long a start waits for the first heartbeat.
const FIRST_VIEW: Duration = Duration::from_secs(2);

/// What a mount hears.
pub fn subscriptions(config: &Config) -> Vec<String> {
    let reply = format!("reply.{}", config.client);
    let agents = ["heartbeat.", "domain.", "rounds.", "configs", "config", "forwarder."];
    let all = agents.into_iter().chain(["guest.", "guest-return.", "guest-top."]);
    all.map(String::from).chain([reply]).collect()
}

/// Joins the bus and serves the mount until `shutdown`, or until it is unmounted. `ready` is called when it can be used.
pub async fn run(
    config: Config,
    ready: impl FnOnce(),
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let clock = Clock::system();
    let bus = BusConfig {
        forwarders: config.forwarders.clone(),
        sender: Sender::Client(config.client.clone()),
        boot: Boot(clock.now().wall.0),
        subscriptions: subscriptions(&config),
        clock: clock.clone(),
    };
    let bus = xvm_bus::connect(bus)?;
    serve(config, bus, clock, ready, shutdown).await
}

/// The same over a bus that is joined already.
pub async fn serve(
    config: Config,
    (publisher, receiver): (Publisher, Receiver),
    clock: Clock,
    ready: impl FnOnce(),
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    tracing::warn!(
        "the bus {} is not protected: it has no keys, whoever reaches it can command every domain",
        config.mount.source
    );
    let path = mount::prepare(&config.mountpoint)?;
    let client = Client::new(publisher.clone(), config.client.clone());
    let names = config.forwarders.iter().map(Endpoint::to_string).collect::<Vec<_>>().join(",");
    let disk = config.tests.as_deref().map_or(Ok(Disk::default()), Disk::open).map_err(anyhow::Error::msg)?;
    let schedules = Schedules::load(disk);
    let cluster = Cluster::with_schedules(publisher, client, clock, names, schedules);
    let (ended, mut gone) = watch::channel(false);
    let mut tree = Tree::new(cluster.clone());
    tree.configs_mode = config.configs_mode;
    let fs = Fs::new(tree, tokio::runtime::Handle::current(), config.owner, ended);
    let _connection = fuse::start(fs, &path, &config.mount)
        .map_err(|e| MountError::new("mount at", &path, e.to_string().trim().to_owned()))?;
    let feeder = {
        let cluster = cluster.clone();
        tokio::spawn(async move { cluster.feed(receiver, std::future::pending()).await })
    };
    let driver = tokio::spawn(driver::drive(cluster.clone()));
    tokio::pin!(shutdown);
    let early = tokio::select! {
        () = first_view(&cluster) => false,
        () = &mut shutdown => true,
        _ = gone.wait_for(|gone| *gone) => true,
    };
    if !early {
        tracing::info!("{} is mounted: {}", path.display(), cluster.bus_sentence());
        ready();
        tokio::select! {
            () = &mut shutdown => {}
            _ = gone.wait_for(|gone| *gone) => tracing::info!("{} was unmounted", path.display()),
        }
    }
    feeder.abort();
    driver.abort();
    if !*gone.borrow() {
        let at = path.clone();
        tokio::task::spawn_blocking(move || mount::unmount(&at)).await.context("cannot unmount")??;
    }
    Ok(())
}

async fn first_view(cluster: &Arc<Cluster>) {
    let mut changes = cluster.changes();
    let some = changes.wait_for(|_| cluster.view().server_count() > 0);
    // without any server there is nothing to wait for longer
    drop(tokio::time::timeout(FIRST_VIEW, some).await);
}
