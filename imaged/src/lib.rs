//! xvm's image agent: one in a cluster. It owns configs, their volumes and images, and decides who may use them.
//!
//! | file | what |
//! |---|---|
//! | [`export`] | volumes as network block exports: a `qemu-storage-daemon` for each config that is used |
//! | [`store`] | where volumes are kept: a table of stores |
//! | [`image`] | what is on a disk: a table of builders, their stages, cancel and sweep |

pub mod export;
pub mod image;
pub mod keeper;
pub mod store;
