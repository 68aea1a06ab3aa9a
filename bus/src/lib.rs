//! xvm's bus: ZeroMQ behind channels, an in-memory twin with seeded faults, and the forwarder.
//!
//! | file | what |
//! |---|---|
//! | [`clock`] | the time, which tests may choose |
//! | [`endpoint`] | addresses of forwarders |
//! | [`keys`] | who signs what it says |
//! | [`link`], [`counts`] | what a receiver gives; counters |
//! | [`publisher`], [`receiver`] | the two halves of a connection |
//! | `inbox`, `queue` | what is believed; the bounded queue behind a receiver |
//! | [`bus`], `sockets`, `wake` | connecting to forwarders by ZeroMQ |
//! | [`memory`] | the in-memory bus |
//! | [`forwarder`] | who joins all others |
//! | [`client`] | orders: repeated, answered, at most once |

pub mod bus;
pub mod client;
pub mod clock;
pub mod counts;
pub mod endpoint;
pub mod forwarder;
mod inbox;
pub mod keys;
pub mod link;
pub mod memory;
pub mod publisher;
mod queue;
pub mod receiver;
mod sockets;
mod wake;

pub use bus::{BusConfig, ConnectError, connect};
pub use client::Client;
pub use clock::Clock;
pub use counts::Counts;
pub use endpoint::{Endpoint, EndpointError};
pub use forwarder::Forwarder;
pub use keys::{GuestKeys, KeyError, SecretKey};
pub use link::{Incoming, Link};
pub use memory::{Faults, Net};
pub use publisher::Publisher;
pub use receiver::Receiver;
