//! `xvm-sim`: recorded loads under xvm's policies, in simulated time, with the very code that agents run.
//!
//! | file | what |
//! |---|---|
//! | [`loads`] | reads recorded loads: an archive or a folder of one file a domain |
//! | [`cluster`] | one replay: servers and domains |
//! | [`rounds`] | rounds of help: the negotiation of all servers over a simulated wire |
//! | [`made`] | loads that are made up, of any size |
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
//! - At each sample: the load is accounted where the domains are, and each rule learns it. Then each server may ask once, in a
//!   seeded random order over half the time to the next sample; rounds run through the negotiation that agents run, with messages
//!   that take a millisecond and are never lost, offers that wait as the rule and chance say, reservations, refusals and rests. A
//!   move takes `move_s` seconds, but ends before the next sample. While its domain moves, a server offers nothing; a helper may take
//!   several, each on top of those that it took before. The guards of [`xvm_model::policy::Engine`] hold for every rule, the cooldown too.
//!
//! What the table can not show: within hours a recorded load is white noise around its level, so free repacking reaches 0 only because
//! it knows the very sample that it packs. An optimiser that places all domains anew at every sample by what can be known before it
//! leaves 0.32, 0.49 and 0.59 of the best other rule's loss at 60, 70 and 80 %; xvm-policy(7) has more of that.

pub mod cluster;
pub mod figures;
pub mod flags;
pub mod loads;
pub mod made;
pub mod packing;
pub mod plot;
pub mod rounds;
pub mod table;

pub use cluster::{Setup, replay};
pub use figures::Figures;
pub use loads::Loads;
