//! The keys of a repository and what is derived from them (format page, section "Keys").
//!
//! Knows: the key set, how each key in use is derived. Refuses to know: passwords ([`slot`] wraps
//! the set) and what is sealed.

pub(crate) mod slot;
#[cfg(test)]
mod tests;

use crate::cut::{CutParameters, Cutter};
use base::digest::Digest;
use base::random::Random;
use base::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// What each derived key is for; the strings are part of the format.
pub(crate) const DATA_ID: &str = "backstay store 1 data block id";
pub(crate) const NODE_ID: &str = "backstay store 1 tree node id";
pub(crate) const CUT: &str = "backstay store 1 page hash";
pub(crate) const CONFIG_MAC: &str = "backstay store 1 repository mac";
pub(crate) const POINT_CONTENT: &str = "backstay store 1 point content";
pub(crate) const FRAME: &str = "backstay store 1 frame key";
pub(crate) const RECORD: &str = "backstay store 1 record key";

/// The keys that never leave the repository except wrapped.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub(crate) struct KeySet {
    /// Names blocks, for the repository's whole life: another one would end deduplication.
    id: Digest32,
    /// Seals, in the order of epochs: rotation adds one and rewrites nothing.
    seal: Vec<SealKey>,
}

/// The key of one epoch.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct SealKey {
    epoch: u32,
    key: Digest32,
}

/// 32 secret bytes, hexadecimal in JSON.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
struct Digest32([u8; 32]);

impl Serialize for Digest32 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Digest(self.0).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Digest32 {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Digest::deserialize(deserializer).map(|digest| Self(digest.0))
    }
}

impl KeySet {
    /// Fresh keys.
    pub(crate) fn generate(random: &dyn Random) -> Self {
        let fresh = || {
            let mut bytes = [0; 32];
            random.fill(&mut bytes);
            Digest32(bytes)
        };
        let id = fresh();
        Self {
            id,
            seal: vec![SealKey {
                epoch: 1,
                key: fresh(),
            }],
        }
    }

    /// The epoch whose key seals new frames and records: the latest.
    pub(crate) fn epoch(&self) -> u32 {
        self.seal.iter().map(|seal| seal.epoch).max().unwrap_or(0)
    }

    /// A key for one purpose that lasts as long as the repository.
    pub(crate) fn lasting(&self, purpose: &str) -> [u8; 32] {
        blake3::derive_key(purpose, &self.id.0)
    }

    /// The key of one session's frames, or of one record: from the epoch's key and a salt.
    pub(crate) fn sealing(&self, purpose: &str, epoch: u32, salt: &[u8; 32]) -> Result<[u8; 32]> {
        let seal = self
            .seal
            .iter()
            .find(|seal| seal.epoch == epoch)
            .ok_or_else(|| {
                Error::new(
                    Kind::Denied,
                    "store.key.epoch-unknown",
                    format!("the repository's keys have no key of epoch {epoch}"),
                )
                .hint("an object of another repository was put here, or the key slots are outdated")
            })?;
        let mut hasher = blake3::Hasher::new_derive_key(purpose);
        hasher.update(&seal.key.0).update(salt);
        Ok(*hasher.finalize().as_bytes())
    }

    /// What cuts and names blocks of data.
    pub(crate) fn cutter(&self, parameters: CutParameters) -> Result<Cutter> {
        let mut page_key = [0; 64];
        let mut hasher = blake3::Hasher::new_derive_key(CUT);
        hasher.update(&self.id.0).finalize_xof().fill(&mut page_key);
        Cutter::new(parameters, &page_key, self.lasting(DATA_ID))
    }
}
