//! xvm's server agent: one on each physical machine.
//!
//! | file | what |
//! |---|---|
//! | [`hypervisor`] | what is needed of a hypervisor |
//! | [`sim`] | the embedded simulated hypervisor |
//! | [`libvirt`] | Xen, QEMU and others through libvirt |
//! | [`imports`] | what a domain needs to have here before it starts: a kernel by its content |
//! | [`driver`] | one task that owns the state: inputs, a pure step, effects |
//! | [`imports`] | the files that domains boot from |
//! | [`config`] | flags |
//! | [`state`] | what is kept on disk |

pub mod config;
pub mod driver;
pub mod hypervisor;
pub mod imports;
pub mod libvirt;
pub mod sim;
pub mod state;

pub use config::command;
