//! xvm's image agent: one in a cluster. It owns configs, their volumes and images, and decides who may use them.
//!
//! | file | what |
//! |---|---|
//! | [`keeper`] | the pure state: configs, jobs, leases |
//! | [`driver`] | one task that owns it: inputs, a pure step, effects |
//! | [`files`] | the directory of the configs' files |
//! | [`image`] | what is on a disk: a table of builders, their stages, cancel and sweep |
//! | [`store`] | where volumes are kept: a table of stores |
//! | [`export`] | volumes as network block exports: a `qemu-storage-daemon` for each config that is used |
//! | [`config`] | flags |

pub mod config;
pub mod driver;
pub mod export;
pub mod files;
pub mod image;
pub mod keeper;
pub mod store;

pub use config::command;
