//! `xvm-sim`: recorded loads under xvm's policies, in simulated time, with the very code that agents run.
//!
//! | file | what |
//! |---|---|
//! | [`loads`] | reads recorded loads: an archive or a folder of one file a domain |
//! | [`cluster`] | one replay: servers, domains, rounds of help |
//! | [`figures`] | what a replay is measured by |
//! | [`packing`] | what free repacking at every sample would reach |
//! | [`table`], [`plot`] | the figures as text and as a picture |
//! | [`flags`] | the program's flags |
//!
//! What is assumed, for every rule alike:
//! - Domains are dealt to the servers in a seeded random order, the same number to each; servers are alike.
//! - An agent sees what a domain wants: what it uses and what it waits for. What a full server cannot give is lost, not made up
//!   for later.
//! - All domains have the same memory, for the recordings tell none; servers have memory for `crowd` times the mean number of
//!   domains, so nobody can have more.
//! - At each sample: the load is accounted where the domains are, each rule learns it, then in a seeded random order each server
//!   may ask once and give one domain away. It arrives before the next sample. A helper may take several, each on top of those
//!   that it took before. The guards of [`xvm_model::policy::Engine`] hold for every rule, the cooldown too.
//! - Offers take 1 ms each way, the delay that the rule asks for, and a chance of up to half a millisecond for each server there is;
//!   the first one heard wins. Who would offer later hears of it and is silent: that keeps messages a move few in a large cluster.
//!
//! What the table can not show: around its level a domain's recorded load is nearly white noise. A greedy rule that was told each
//! domain's true mean of the next three hours still lost 0.4 of what the best other rule loses at 70 % mean load, and 0.5 to 0.65 at
//! 80 %; free repacking reaches 0 only because it knows the very sample that it packs.

pub mod cluster;
pub mod figures;
pub mod flags;
pub mod loads;
pub mod packing;
pub mod plot;
pub mod table;

pub use cluster::{Setup, replay};
pub use figures::Figures;
pub use loads::Loads;
