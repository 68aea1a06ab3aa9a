//! What a crash left half done: two volumes of a config that change one after the other, a volume that takes another's place by two
//! renames, one that grew and was not made zero yet. And what a start of the machine left: volumes that are not active.
//!
//! ```text
//!   commit    swap: whole ─▶ old, new ─▶ whole, old ─▶ (none)     then the disk
//!   remove    disk: whole ─▶ removed                              then the swap
//!   restore   swap: removed ─▶ whole                              then the disk
//!   purge     disk: removed ─▶ (none)                             then the swap
//! ```

use super::names::Role;
use super::tools::{Lv, dirty_tag};
use super::{LvmStore, blocks};
use crate::store::{StoreError, Volume};

impl LvmStore {
    /// Ends what a crash left half done.
    pub(super) async fn heal(&self, doing: &str) -> Result<Vec<Lv>, StoreError> {
        let contents = self.tools.contents(doing).await?;
        if let Some(pool) = &self.pool
            && !self.tools.pool(doing, &contents, pool)?.zero
        {
            let full = self.tools.full(pool);
            let why = format!(
                "new blocks of the thin pool {full} show what a former user of them wrote; `lvchange --zero y {full}` ends that"
            );
            return Err(StoreError::Failed { doing: doing.into(), why });
        }
        let has = |lv: &Lv, role, volume| contents.find(&lv.config, role, volume).is_some();
        let mut healed = false;
        for lv in &contents.ours {
            let is_swap = lv.volume == Volume::Swap;
            let becomes = match lv.role {
                // another has its place, or was to get it
                Role::Old if has(lv, Role::Whole, lv.volume) => None,
                Role::Old => Some(Role::Whole),
                // its config was being purged
                Role::Removed if is_swap && !has(lv, Role::Removed, Volume::Disk) => None,
                // its config was being removed, or restored
                Role::Whole
                    if is_swap
                        && !has(lv, Role::Whole, Volume::Disk)
                        && has(lv, Role::Removed, Volume::Disk)
                        && !has(lv, Role::Removed, Volume::Swap) =>
                {
                    Some(Role::Removed)
                }
                _ => continue,
            };
            healed = true;
            match becomes {
                Some(role) => self.tools.turn(doing, lv, role).await?,
                None => self.tools.remove(doing, lv).await?,
            }
        }
        let ours = if healed { self.tools.contents(doing).await?.ours } else { contents.ours };
        for lv in ours.iter().filter(|lv| lv.role == Role::Whole) {
            if !lv.active {
                self.tools.change(doing, lv, "--activate", "y").await?;
            }
            self.clean(doing, lv).await?;
        }
        Ok(ours)
    }

    /// Makes zero what a volume has grown by.
    pub(super) async fn clean(&self, doing: &str, lv: &Lv) -> Result<(), StoreError> {
        let Some(from) = lv.dirty else { return Ok(()) };
        let device = self.device(lv.role, &lv.config, lv.volume);
        blocks::zero(device, from, Some(lv.bytes))
            .await
            .map_err(|e| StoreError::of(doing, self.place(), &e))?;
        self.tools.change(doing, lv, "--deltag", &dirty_tag(from)).await
    }
}
