//! The flags about guestd in images.

use crate::image::{GuestSecret, Guestd};
use clap::Args;
use std::path::PathBuf;
use xvm_bus::Endpoint;
use xvm_daemon::Dir;

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options for guests")]
pub(super) struct GuestArgs {
    /// Where guests reach a forwarder (its --guests); several may be given. With it new images have guestd(8), which finds name and forwarder on the
    /// kernel's command line
    #[arg(long, value_name = "ENDPOINT", value_parser = Endpoint::parse)]
    guest_forwarder: Vec<Endpoint>,

    /// The program guestd that images get, with the libraries that it needs; without it the one beside imaged
    #[arg(long, value_name = "FILE", requires = "guest_forwarder")]
    guestd: Option<PathBuf>,
}

impl GuestArgs {
    /// What images get, with keys of the secret in the state directory; none without a forwarder. The error says what cannot be used.
    pub(super) fn guestd(&self, state: &Dir) -> anyhow::Result<Option<Guestd>> {
        if self.guest_forwarder.is_empty() {
            return Ok(None);
        }
        let beside = || std::env::current_exe().unwrap_or_default().with_file_name("guestd");
        let program = self.guestd.clone().unwrap_or_else(beside);
        Guestd::new(program, self.guest_forwarder.clone(), GuestSecret::keep(state)?).map(Some)
    }
}
