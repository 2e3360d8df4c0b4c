//! Sealed records: small JSON objects that are published once (format page, section "Records").
//!
//! Knows: the bytes around the JSON, what the seal binds, and the digest at the end with which a
//! host without keys checks the record. Refuses to know: what the JSON says.

use crate::fields::{Fields, check_version, malformed};
use crate::key::{KeySet, RECORD};
use crate::layout::{FORMAT_MAJOR, FORMAT_MINOR};
use crate::seal::{Cipher, Sealer};
use base::id::RepositoryId;
use base::random::Random;
use base::{Error, Kind, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

const MAGIC: &[u8; 8] = b"BKSTRECD";
/// Bytes before the sealed JSON.
const HEADER: usize = 96;
/// Bytes of the digest at the end.
const DIGEST: usize = 32;
const CONTEXT: &[u8] = b"backstay store 1 record";

/// What a record is: bound by the seal, so that one kind never passes for another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RecordKind {
    /// A restore point; its name is the point's id.
    Point,
    /// The state of collection; its name is the generation.
    Collect,
}

impl RecordKind {
    const fn code(self) -> u8 {
        match self {
            Self::Point => 1,
            Self::Collect => 2,
        }
    }
}

/// What binds a record to its place.
#[derive(Clone, Copy)]
pub(crate) struct Binding {
    pub(crate) kind: RecordKind,
    pub(crate) repository: RepositoryId,
    /// The record's own name, as 16 bytes: a point's id, or a generation.
    pub(crate) name: [u8; 16],
}

fn head(binding: Binding, epoch: u32, salt: &[u8; 32], length: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT_MAJOR.to_le_bytes());
    bytes.extend_from_slice(&FORMAT_MINOR.to_le_bytes());
    bytes.extend_from_slice(&[binding.kind.code(), 0, 0, 0]);
    bytes.extend_from_slice(&binding.repository.bytes());
    bytes.extend_from_slice(&binding.name);
    bytes.extend_from_slice(&epoch.to_le_bytes());
    bytes.extend_from_slice(&0u32.to_le_bytes());
    bytes.extend_from_slice(salt);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.resize(HEADER, 0);
    bytes
}

/// Seals `value` as a record. Each record has a salt, and so a key, of its own.
pub(crate) fn write<T: Serialize>(
    value: &T,
    binding: Binding,
    keys: &KeySet,
    cipher: Cipher,
    random: &dyn Random,
) -> Result<Vec<u8>> {
    let json = serde_json::to_vec(value).map_err(|error| {
        Error::new(
            Kind::Bug,
            "store.record.unwritable",
            "a record cannot be written",
        )
        .caused_by(error)
    })?;
    let mut salt = [0; 32];
    random.fill(&mut salt);
    let epoch = keys.epoch();
    let sealer = Sealer::new(cipher, &keys.sealing(RECORD, epoch, &salt)?)?;
    let mut bytes = head(
        binding,
        epoch,
        &salt,
        (json.len() + crate::seal::TAG) as u32,
    );
    let associated = [CONTEXT, &bytes].concat();
    bytes.extend_from_slice(&sealer.seal(0, &associated, &json)?);
    let digest = blake3::hash(&bytes);
    bytes.extend_from_slice(digest.as_bytes());
    Ok(bytes)
}

/// Checks a record's digest, which needs no keys.
pub(crate) fn check_digest(bytes: &[u8]) -> Result<()> {
    let Some((covered, digest)) = bytes.split_last_chunk::<DIGEST>() else {
        return Err(malformed("a record", "it is too short"));
    };
    if blake3::hash(covered) == *digest {
        Ok(())
    } else {
        Err(malformed("a record", "its digest is wrong"))
    }
}

/// Opens a record of which is known what it must be.
pub(crate) fn read<T: DeserializeOwned>(
    bytes: &[u8],
    binding: Binding,
    keys: &KeySet,
    cipher: Cipher,
) -> Result<T> {
    let what = "a record";
    let mut fields = Fields::new(bytes, what);
    // The digest comes first in every version: damage must not pass for a newer format.
    check_digest(bytes)?;
    fields.expect(MAGIC, "magic")?;
    check_version(fields.u16()?, what)?;
    fields.u16()?;
    if fields.u8()? != binding.kind.code() {
        return Err(fields.wrong("it is of another kind"));
    }
    fields.bytes(3)?;
    fields.expect(&binding.repository.bytes(), "repository")?;
    fields.expect(&binding.name, "name")?;
    let epoch = fields.u32()?;
    fields.u32()?;
    let salt: [u8; 32] = fields.array()?;
    let length = fields.u32()? as usize;
    fields.bytes(HEADER - 92)?;
    if fields.left() != length + DIGEST {
        return Err(fields.wrong("its length is wrong"));
    }
    let sealed = fields.bytes(length)?;
    let sealer = Sealer::new(cipher, &keys.sealing(RECORD, epoch, &salt)?)?;
    let associated = [CONTEXT, &bytes[..HEADER]].concat();
    let json = sealer.open(0, &associated, sealed)?;
    serde_json::from_slice(&json)
        .map_err(|error| malformed(what, &format!("its text is not understood: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::random::SeededRandom;

    fn binding() -> Binding {
        let repository = RepositoryId::from_bytes([1; 16]);
        Binding {
            kind: RecordKind::Point,
            repository,
            name: [2; 16],
        }
    }

    #[test]
    fn a_record_opens_only_in_its_place_and_whole() {
        let random = SeededRandom::new(3);
        let keys = KeySet::generate(&random);
        for cipher in [Cipher::None, Cipher::Aes256Gcm] {
            let bytes = write(&vec![1, 2, 3], binding(), &keys, cipher, &random).unwrap();
            let back: Vec<u32> = read(&bytes, binding(), &keys, cipher).unwrap();
            assert_eq!(back, [1, 2, 3]);
            for other in [
                Binding {
                    kind: RecordKind::Collect,
                    ..binding()
                },
                Binding {
                    name: [3; 16],
                    ..binding()
                },
                Binding {
                    repository: RepositoryId::from_bytes([9; 16]),
                    ..binding()
                },
            ] {
                assert!(read::<Vec<u32>>(&bytes, other, &keys, cipher).is_err());
            }
            for length in 0..bytes.len() {
                assert!(read::<Vec<u32>>(&bytes[..length], binding(), &keys, cipher).is_err());
            }
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(read::<Vec<u32>>(&flipped, binding(), &keys, cipher).is_err());
                // With the digest made right again, the seal alone must find it.
                let end = flipped.len() - DIGEST;
                if bit / 8 < end {
                    let digest = blake3::hash(&flipped[..end]);
                    flipped[end..].copy_from_slice(digest.as_bytes());
                    assert!(read::<Vec<u32>>(&flipped, binding(), &keys, cipher).is_err());
                }
            }
        }
    }
}
