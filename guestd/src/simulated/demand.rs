//! What a simulated guest wants of its CPUs is told to the server on which its domain is, which simulates the domain.

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use xvm_bus::Client;
use xvm_model::{DomainCommand, DomainName, Mono, Order, Ratio, View};

/// For how long a wish is told; told again in half the time.
const SECONDS: u32 = 20;
/// Between two tries to tell one.
const TRY: Duration = Duration::from_millis(500);

/// Tells the last wish of `wanted` for ever.
pub(super) async fn tell(
    name: DomainName,
    client: Client,
    view: watch::Receiver<Arc<View>>,
    mut wanted: watch::Receiver<Ratio>,
) {
    let mut told = Ratio::ZERO;
    loop {
        let wish = *wanted.borrow_and_update();
        if wish != told || wish != Ratio::ZERO {
            let seen = view.borrow().clone();
            if order(&name, &client, &seen, wish).await {
                told = wish;
            } else if wish != told {
                tokio::time::sleep(TRY).await;
                continue;
            }
        }
        let again = Duration::from_secs(u64::from(SECONDS) / 2);
        if let Ok(Err(_)) = tokio::time::timeout(again, wanted.changed()).await {
            return;
        }
    }
}

async fn order(name: &DomainName, client: &Client, view: &View, share: Ratio) -> bool {
    let domain = view.domain(name.as_str(), client.clock().mono());
    let Some(server) = domain.and_then(|d| view.server(d.server.as_str()).cloned()) else { return false };
    let seconds = if share == Ratio::ZERO { 0 } else { SECONDS };
    let command = DomainCommand::Load { share: share.max(Ratio::new(0.01)), seconds };
    let order = Order::Domain { name: name.clone(), command };
    let heard: (_, Mono) = (server.at, server.heard.mono);
    client.order(&server.name, server.stamp.boot, heard, order).await.is_ok()
}
