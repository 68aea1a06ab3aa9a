//! xvm's guest agent: one in each domain. It tells from within how the domain is, runs tests, makes load, and shows processes.
//!
//! | file | what |
//! |---|---|
//! | [`agent`] | the pure state: orders, tests, load, what is said when |
//! | [`driver`] | one task that owns it: bus, processes, clock |
//! | [`run`] | one test as a process: started, heard, measured, ended |
//! | [`allowed`] | which tests there are |
//! | [`builtin`] | the tests that are built in: a table |
//! | [`load`] | load on request |
//! | [`machine`], [`top`] | what the guest's kernel says: heartbeats, processes |
//! | [`simulated`] | the guests of simulated domains, which only reckon |
//! | [`config`] | flags, the kernel's command line, the file: which counts |

pub mod agent;
pub mod allowed;
pub mod builtin;
pub mod config;
pub mod driver;
pub mod load;
pub mod machine;
pub mod run;
pub mod simulated;
pub mod top;

pub use config::command;
