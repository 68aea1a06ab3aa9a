//! The secret of which the keys of all guests are made: each guest's follows from the UUID of its config. So nothing is kept of a key but
//! this one file, a rebuilt or restored system has the key that it had, and a clone has its own.

use anyhow::Context as _;
use hmac::{Hmac, Mac};
use rand::TryRngCore;
use rand::rngs::OsRng;
use sha2::Sha256;
use uuid::Uuid;
use xvm_bus::SecretKey;
use xvm_bus::keys::open_to_others;
use xvm_daemon::Dir;

/// Its file in the state directory.
const FILE: &str = "guests.secret";
/// What is made of it; another use of it would say something else here.
const USE: &[u8] = b"xvm guest key 1";

/// A secret of 32 bytes. It is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct GuestSecret([u8; 32]);

impl std::fmt::Debug for GuestSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GuestSecret")
    }
}

impl From<[u8; 32]> for GuestSecret {
    fn from(bytes: [u8; 32]) -> GuestSecret {
        GuestSecret(bytes)
    }
}

impl GuestSecret {
    /// That of a state directory; made when there is none. The error names the file and what is wrong with it.
    pub fn keep(dir: &Dir) -> anyhow::Result<GuestSecret> {
        let path = dir.path().join(FILE);
        if let Some(text) = dir.read(FILE)? {
            let file = std::fs::metadata(&path).context("cannot look at the guests' secret")?;
            if let Some(why) = open_to_others(&file) {
                anyhow::bail!("cannot use {}: {why}", path.display());
            }
            let mut bytes = [0; 32];
            return match hex::decode_to_slice(text.trim(), &mut bytes) {
                Ok(()) => Ok(GuestSecret(bytes)),
                Err(e) => anyhow::bail!(
                    "cannot use {}: it is not 64 hexadecimal digits ({e}); without it a new one is made, and guests must be rebuilt",
                    path.display()
                ),
            };
        }
        let mut bytes = [0; 32];
        OsRng.try_fill_bytes(&mut bytes).context("the kernel gives no random bytes")?;
        // nobody else may read what is written so
        dir.write(FILE, &format!("{}\n", hex::encode(bytes)))?;
        Ok(GuestSecret(bytes))
    }

    /// The key of a config's guest.
    pub fn key(&self, uuid: Uuid) -> SecretKey {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of any length is taken");
        mac.update(USE);
        mac.update(uuid.as_bytes());
        SecretKey::from_seed(&mac.finalize().into_bytes().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt};

    #[test]
    fn it_is_made_once_and_kept_from_others() {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let dir = Dir::open(scratch.path(), "imaged").expect("free");
        let (secret, path) = (GuestSecret::keep(&dir).expect("made"), scratch.path().join(FILE));
        assert_eq!(GuestSecret::keep(&dir).expect("read"), secret);
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o7777, 0o600);
        assert_eq!(format!("{secret:?}"), "GuestSecret", "it is not shown");

        let why = || GuestSecret::keep(&dir).expect_err("refused").to_string();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("ours");
        assert!(why().contains("(mode 0644); make it 0600"), "{}", why());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("ours");
        fs::write(&path, "12").expect("ours");
        assert!(why().contains("64 hexadecimal digits"), "{}", why());
    }

    #[test]
    fn each_guest_has_its_own_and_always_the_same() {
        let (a, b) = (GuestSecret([1; 32]), GuestSecret([2; 32]));
        let keys: std::collections::BTreeSet<_> =
            [&a, &b].iter().flat_map(|s| (0..9).map(|n| s.key(Uuid::from_u128(n)).public())).collect();
        assert_eq!(keys.len(), 18);
        // images that were made keep their keys
        assert_eq!(
            a.key(Uuid::from_u128(6)).public().to_string(),
            "e931409a7f01fca97f4a8abf8c865dd7ecf910ae2acd3764b9c5ded616d22168"
        );
    }
}
