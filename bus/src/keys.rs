//! Who signs what it says, and how that is found out: Ed25519 (RFC 8032) over topic and message.
//!
//! A signed message is a message with one field more, the last one, so that who does not check signatures reads it as any other:
//!
//! ```text
//! {"v":1,"from":"guest/small-1", ... ,"body":{ ... },"sig":"128 hexadecimal digits"}
//!
//! signed is:  xvm1 0x00 TOPIC 0x00 {"v":1,"from":"guest/small-1", ... ,"body":{ ... }}
//! ```
//! Guests sign; a receiver that knows a guest's key believes nothing under its name that is not signed with it.

use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey, KeypairBytes, spki::der::pem::LineEnding};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use std::collections::HashMap;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use xvm_model::{DomainName, PublicKey};

/// What all that is signed begins with.
const CONTEXT: &[u8] = b"xvm1\0";
/// The field of a signature.
const FIELD: &[u8] = br#","sig":""#;
/// What comes after it.
const END: &[u8] = br#""}"#;
/// A signature in hexadecimal digits.
const DIGITS: usize = 2 * Signature::BYTE_SIZE;
/// The longest file of a key, in bytes.
const FILE_MAX: u64 = 4096;

/// Why a secret key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot read the key {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Others may read it.
    #[error("cannot use the key {}: {why}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// See [`open_to_others`].
        why: String,
    },
    /// It is something else.
    #[error("cannot use the key {}: it is no Ed25519 key in PEM (PKCS #8): {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// What is wrong with a secret's file whose permissions let others use it.
pub fn open_to_others(file: &std::fs::Metadata) -> Option<String> {
    let mode = file.permissions().mode() & 0o7777;
    (mode & 0o077 != 0).then(|| format!("others may use it (mode {mode:04o}); make it 0600"))
}

/// A secret key. It is not shown.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretKey of {}", self.public())
    }
}

impl SecretKey {
    /// The key of a secret that nobody can guess.
    pub fn from_seed(seed: &[u8; 32]) -> SecretKey {
        SecretKey(SigningKey::from_bytes(seed))
    }

    /// Reads a file that nobody but its owner may read: PEM, PKCS #8, as `openssl genpkey -algorithm ed25519` writes it.
    pub fn read(path: &Path) -> Result<SecretKey, KeyError> {
        let io = |source| KeyError::Io { path: path.into(), source };
        let file = std::fs::File::open(path).map_err(io)?;
        if let Some(why) = open_to_others(&file.metadata().map_err(io)?) {
            return Err(KeyError::Open { path: path.into(), why });
        }
        let mut text = String::new();
        file.take(FILE_MAX).read_to_string(&mut text).map_err(io)?;
        let key = SigningKey::from_pkcs8_pem(&text);
        key.map(SecretKey).map_err(|e| KeyError::Damaged { path: path.into(), why: e.to_string() })
    }

    /// What the file says.
    pub fn to_pem(&self) -> String {
        // without the public key: OpenSSL does not read that
        let bytes = KeypairBytes { secret_key: self.0.to_bytes(), public_key: None };
        bytes.to_pkcs8_pem(LineEnding::LF).expect("32 bytes are always encoded").to_string()
    }

    /// The key that checks its signatures.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// `message`, an object of JSON, with its signature.
    pub(crate) fn sign(&self, topic: &[u8], mut message: Vec<u8>) -> Vec<u8> {
        let signature = self.0.sign(&[CONTEXT, topic, b"\0", &message].concat());
        message.pop();
        for part in [FIELD, hex::encode(signature.to_bytes()).as_bytes(), END] {
            message.extend_from_slice(part);
        }
        message
    }
}

/// The bytes that a signature makes a message longer.
pub(crate) const SIGNATURE: usize = FIELD.len() + DIGITS + END.len() - 1;

/// Whether a message is signed with this key.
fn is_signed(key: &VerifyingKey, topic: &[u8], message: &[u8]) -> bool {
    let split = message.len().checked_sub(FIELD.len() + DIGITS + END.len());
    let Some((said, tail)) = split.and_then(|at| message.split_at_checked(at)) else { return false };
    let digits = tail.strip_prefix(FIELD).and_then(|t| t.strip_suffix(END));
    let mut signature = [0; Signature::BYTE_SIZE];
    if digits.is_none_or(|d| hex::decode_to_slice(d, &mut signature).is_err()) {
        return false;
    }
    let said = [CONTEXT, topic, b"\0", said, b"}"].concat();
    key.verify_strict(&said, &Signature::from_bytes(&signature)).is_ok()
}

/// A guest's key; none in the place of one that is no point of the curve: nothing is signed with that.
#[derive(Debug, Clone, Copy)]
struct Known {
    public: PublicKey,
    checks: Option<VerifyingKey>,
}

/// The keys of guests as a receiver knows them. Clones are the same keys: who learns them sets them, and its receiver goes by them.
#[derive(Debug, Clone, Default)]
pub struct GuestKeys(Arc<RwLock<Arc<HashMap<DomainName, Known>>>>);

impl GuestKeys {
    /// From now on these, and no others.
    pub fn set(&self, keys: impl IntoIterator<Item = (DomainName, PublicKey)>) {
        let old = self.known();
        let known = |name: &DomainName, public: PublicKey| match old.get(name) {
            // to make a point of it takes a while
            Some(known) if known.public == public => *known,
            _ => Known { public, checks: VerifyingKey::from_bytes(&public.0).ok() },
        };
        let new = keys.into_iter().map(|(name, public)| (name.clone(), known(&name, public))).collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
    }

    /// The key of a guest.
    pub fn get(&self, name: &DomainName) -> Option<PublicKey> {
        self.known().get(name).map(|k| k.public)
    }

    /// Whether a guest's message is signed as its key wants; true when it has none.
    pub(crate) fn believes(&self, name: &DomainName, topic: &[u8], message: &[u8]) -> bool {
        match self.known().get(name) {
            None => true,
            Some(known) => known.checks.is_some_and(|key| is_signed(&key, topic, message)),
        }
    }

    fn known(&self) -> Arc<HashMap<DomainName, Known>> {
        // one assignment: a panic elsewhere leaves nothing half-made
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).expect("valid")
    }

    fn keys(of: &[(&str, &SecretKey)]) -> GuestKeys {
        let keys = GuestKeys::default();
        keys.set(of.iter().map(|(guest, key)| (name(guest), key.public())));
        keys
    }

    #[test]
    fn the_vector_of_the_standard() {
        // RFC 8032, 7.1, test 1
        let seed =
            hex::decode("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").expect("hex");
        let key = SecretKey::from_seed(&seed.try_into().expect("32 bytes"));
        assert_eq!(
            key.public().to_string(),
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
        );
    }

    #[test]
    fn a_file_is_read_back_and_a_wrong_one_is_named() {
        let dir = tempfile::tempdir().expect("a scratch folder");
        let path = dir.path().join("guestd.key");
        let key = SecretKey::from_seed(&[7; 32]);
        let write = |text: &str, mode| {
            fs::write(&path, text).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("ours");
        };
        let why = || SecretKey::read(&path).expect_err("refused").to_string();
        assert!(why().starts_with("cannot read the key "), "{}", why());
        write(&key.to_pem(), 0o600);
        assert_eq!(SecretKey::read(&path).expect("it reads").public(), key.public());
        write(&key.to_pem(), 0o640);
        assert!(why().ends_with("others may use it (mode 0640); make it 0600"), "{}", why());
        write("nonsense", 0o600);
        assert!(why().contains("no Ed25519 key in PEM"), "{}", why());
        assert!(!format!("{key:?}").contains("7, 7"), "it is not shown");
    }

    #[test]
    fn a_key_that_is_no_point_signs_nothing() {
        let (keys, key) = (GuestKeys::default(), SecretKey::from_seed(&[1; 32]));
        let bad = (0..=255).map(|b| PublicKey([b; 32])).find(|k| VerifyingKey::from_bytes(&k.0).is_err());
        keys.set([(name("a"), bad.expect("half of all are none"))]);
        assert!(!keys.believes(&name("a"), b"guest.a", &key.sign(b"guest.a", b"{}".to_vec())));
        assert!(keys.believes(&name("b"), b"guest.b", b"{}"), "it has none");
    }

    proptest! {
        #[test]
        fn what_is_signed_is_believed_and_what_was_changed_is_not(
            topic in "[a-z.0-9-]{1,40}",
            text in any::<String>(),
            at in any::<prop::sample::Index>(),
            bit in 0u8..8,
        ) {
            let (own, other) = (SecretKey::from_seed(&[1; 32]), SecretKey::from_seed(&[2; 32]));
            let message = serde_json::to_vec(&serde_json::json!({ "body": text })).unwrap();
            let mut signed = own.sign(topic.as_bytes(), message.clone());
            prop_assert_eq!(signed.len(), message.len() + SIGNATURE);
            let read: serde_json::Value = serde_json::from_slice(&signed).unwrap();
            prop_assert_eq!(read["body"].as_str(), Some(&*text), "who does not check reads it");
            let (ours, theirs) = (keys(&[("a", &own)]), keys(&[("a", &other)]));
            prop_assert!(ours.believes(&name("a"), topic.as_bytes(), &signed));
            prop_assert!(!theirs.believes(&name("a"), topic.as_bytes(), &signed));
            prop_assert!(!ours.believes(&name("a"), &[topic.as_bytes(), b"x"].concat(), &signed));
            prop_assert!(!ours.believes(&name("a"), topic.as_bytes(), &message));
            let at = at.index(signed.len());
            signed[at] ^= 1 << bit;
            // an upper-case digit of the signature says the same
            let same = signed[at].eq_ignore_ascii_case(&(signed[at] ^ 1 << bit));
            prop_assert!(same || !ours.believes(&name("a"), topic.as_bytes(), &signed));
        }

        #[test]
        fn any_bytes_are_taken(bytes in any::<Vec<u8>>()) {
            prop_assert!(!keys(&[("a", &SecretKey::from_seed(&[1; 32]))]).believes(&name("a"), b"guest.a", &bytes));
        }
    }
}
