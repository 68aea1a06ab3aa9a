//! The bus on real ZeroMQ sockets and on the in-memory net. If these fail, daemons do not hear each other.

#![allow(clippy::unwrap_used, reason = "tests fail by panics")]

mod forwarder;
mod gate;
mod kit;
mod link;
mod memory;
mod nonsense;
mod orders;
