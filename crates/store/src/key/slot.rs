//! Key slots: the key set wrapped with a password, or lying open (format page, section "Keys").
//!
//! Knows: the JSON of a slot and Argon2id. Refuses to know: what the keys are for.

use super::KeySet;
use crate::limit::{ARGON_MEMORY_KIB_MAX, ARGON_PASSES_MAX};
use crate::seal::{Cipher, Sealer};
use base::id::RepositoryId;
use base::random::Random;
use base::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

/// A password. Wiped from memory when dropped, never shown.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// Takes a password.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(\u{2026})")
    }
}

/// What guessing a password costs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) memory_kib: u32,
    pub(crate) passes: u32,
}

/// A slot as stored.
#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum Slot {
    /// The keys lie open: a repository without encryption.
    Open {
        /// The keys.
        keys: KeySet,
    },
    /// The keys are wrapped with a key that Argon2id makes of a password.
    Password {
        /// KiB of memory.
        memory_kib: u32,
        /// Passes over it.
        passes: u32,
        /// Lanes.
        lanes: u32,
        /// Salt, hexadecimal.
        salt: String,
        /// The wrapped keys, hexadecimal.
        wrapped: String,
    },
}

impl Slot {
    /// Wraps keys with a password.
    pub(crate) fn wrap(
        keys: &KeySet,
        password: &Password,
        cost: Cost,
        repository: RepositoryId,
        random: &dyn Random,
    ) -> Result<Self> {
        let mut salt = [0; 32];
        random.fill(&mut salt);
        let plain = Zeroizing::new(serde_json::to_vec(keys).map_err(unwritable)?);
        let key = wrapping_key(password, &salt, cost.memory_kib, cost.passes, 1)?;
        let sealer = Sealer::new(Cipher::Aes256Gcm, &key)?;
        let wrapped = sealer.seal(0, &associated(repository), &plain)?;
        Ok(Self::Password {
            memory_kib: cost.memory_kib,
            passes: cost.passes,
            lanes: 1,
            salt: hex(&salt),
            wrapped: hex(&wrapped),
        })
    }

    /// Gets the keys out.
    ///
    /// # Errors
    /// `Denied` `store.password.missing` or `store.password.wrong`; `Corrupt`; `Limit` where the
    /// slot asks for absurd amounts of memory or time.
    pub(crate) fn unwrap(
        &self,
        password: Option<&Password>,
        repository: RepositoryId,
    ) -> Result<KeySet> {
        let (memory_kib, passes, lanes, salt, wrapped) = match self {
            Self::Open { keys } => return Ok(keys.clone()),
            Self::Password {
                memory_kib,
                passes,
                lanes,
                salt,
                wrapped,
            } => (*memory_kib, *passes, *lanes, salt, wrapped),
        };
        let password = password.ok_or_else(|| {
            Error::new(
                Kind::Denied,
                "store.password.missing",
                "the repository needs a password",
            )
            .hint("give the password the repository was made with")
        })?;
        let salt = unhex(salt)?;
        let wrapped = unhex(wrapped)?;
        let key = wrapping_key(password, &salt, memory_kib, passes, lanes)?;
        let sealer = Sealer::new(Cipher::Aes256Gcm, &key)?;
        let plain = sealer
            .open(0, &associated(repository), &wrapped)
            .map_err(|_| {
                Error::new(
                    Kind::Denied,
                    "store.password.wrong",
                    "the password is wrong",
                )
                .hint("check the keyboard layout; without the password nobody can read it")
            })?;
        let plain = Zeroizing::new(plain);
        serde_json::from_slice(&plain)
            .map_err(|error| Error::corrupt("store.key.malformed", error.to_string()))
    }

    /// Whether a password is needed.
    pub(crate) const fn is_open(&self) -> bool {
        matches!(self, Self::Open { .. })
    }
}

fn associated(repository: RepositoryId) -> Vec<u8> {
    [b"backstay store 1 key slot".as_slice(), &repository.bytes()].concat()
}

fn wrapping_key(
    password: &Password,
    salt: &[u8],
    memory_kib: u32,
    passes: u32,
    lanes: u32,
) -> Result<Zeroizing<[u8; 32]>> {
    if memory_kib > ARGON_MEMORY_KIB_MAX || passes > ARGON_PASSES_MAX || lanes > 16 {
        return Err(Error::new(
            Kind::Limit,
            "store.key.cost",
            format!("a key slot asks for {memory_kib} KiB and {passes} passes"),
        )
        .hint("no Backstay writes such slots; the repository may be hostile"));
    }
    let refused = |error: argon2::Error| Error::corrupt("store.key.cost", error.to_string());
    let parameters = argon2::Params::new(memory_kib, passes, lanes, Some(32)).map_err(refused)?;
    let argon = argon2::Argon2::new(
        argon2::Algorithm::Argon2id,
        argon2::Version::V0x13,
        parameters,
    );
    let mut memory = vec![argon2::Block::default(); argon.params().block_count()];
    let mut key = Zeroizing::new([0; 32]);
    let made =
        argon.hash_password_into_with_memory(password.0.as_bytes(), salt, &mut *key, &mut memory);
    for block in &mut memory {
        block.as_mut().zeroize();
    }
    made.map_err(refused)?;
    Ok(key)
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    let malformed = || Error::corrupt("store.key.malformed", "a key slot is not hexadecimal");
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return Err(malformed());
    }
    pairs
        .iter()
        .map(|pair| {
            let digits = std::str::from_utf8(pair).map_err(|_| malformed())?;
            u8::from_str_radix(digits, 16).map_err(|_| malformed())
        })
        .collect()
}

fn unwritable(error: serde_json::Error) -> Error {
    Error::new(Kind::Bug, "store.key.unwritable", error.to_string())
}
