//! The bus on real ZeroMQ sockets and on the in-memory net. If these fail, daemons do not hear each other.

mod forwarder;
mod kit;
mod link;
mod memory;
mod nonsense;
mod orders;
