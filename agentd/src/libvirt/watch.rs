//! The connection for events: made again for ever, 0.5 s to 5 s apart.
//!
//! It is the only one that tries while libvirt is down; the other threads are told, see [`super::pool::Pool::new`].

use super::{news::News, pool, raw};
use std::{sync::Arc, time::Duration};
use virt::connect::Connect;

const FIRST: Duration = Duration::from_millis(500);
const LAST: Duration = Duration::from_secs(5);
/// How often a connection is looked at; asking is a look at a flag in this process.
const LOOK: Duration = Duration::from_millis(100);

/// Runs until `news` is closed. `sink` gets what libvirt tells; `fresh` is called after each new connection, and `known` once
/// that is told: what takes its time may be asked there.
pub fn run(uri: &str, news: &News, sink: Arc<raw::Sink>, fresh: &dyn Fn(&Connect), known: &dyn Fn(&Connect)) {
    let mut wait = FIRST;
    loop {
        match pool::open(uri) {
            Err(e) => {
                news.unlinked(e.to_string());
                if news.pause(wait) {
                    return;
                }
                wait = (wait * 2).min(LAST);
            }
            Ok(conn) => {
                // a driver without events is asked every second all the same
                let held = raw::register(&conn, &sink);
                if let Err(e) = &held {
                    tracing::warn!("{uri} tells no events: {}", e.message());
                }
                fresh(&conn);
                news.linked();
                known(&conn);
                wait = FIRST;
                while conn.is_alive().unwrap_or(false) {
                    if news.pause(LOOK) {
                        return;
                    }
                }
                news.unlinked(format!("the connection to libvirt at {uri} broke"));
                drop(held);
            }
        }
    }
}
