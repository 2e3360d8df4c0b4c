//! Sealing bytes so that nobody reads or changes them unnoticed (format page, section "Seals").
//!
//! Knows: the ciphers. A seal of cipher `none` hides nothing but has the same shape and finds every
//! change, so that repositories with and without encryption share one path.
//! Refuses to know: where keys come from and what the bytes are. Whoever seals hands in a number
//! that no other seal under the same key has.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use base::{Error, Kind, Result};
use serde::{Deserialize, Serialize};

/// Bytes a seal adds.
pub(crate) const TAG: usize = 16;

/// How a repository seals.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Cipher {
    /// Not hidden; the tag is a keyed BLAKE3.
    None,
    /// AES-256 in Galois/counter mode.
    #[serde(rename = "aes-256-gcm")]
    Aes256Gcm,
}

impl Cipher {
    /// The number in formats.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Aes256Gcm => 1,
        }
    }
}

/// A key ready to seal and open.
pub(crate) enum Sealer {
    /// See [`Cipher::None`].
    None([u8; 32]),
    /// See [`Cipher::Aes256Gcm`].
    Aes256Gcm(Box<LessSafeKey>),
}

impl Sealer {
    pub(crate) fn new(cipher: Cipher, key: &[u8; 32]) -> Result<Self> {
        Ok(match cipher {
            Cipher::None => Self::None(*key),
            Cipher::Aes256Gcm => {
                let key = UnboundKey::new(&AES_256_GCM, key).map_err(|_| refused())?;
                Self::Aes256Gcm(Box::new(LessSafeKey::new(key)))
            }
        })
    }

    /// Seals `plain`; the answer is [`TAG`] bytes longer. `number` must be unique for this key.
    pub(crate) fn seal(&self, number: u64, associated: &[u8], plain: &[u8]) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(plain.len() + TAG);
        bytes.extend_from_slice(plain);
        self.seal_in_place(number, associated, &mut bytes)?;
        Ok(bytes)
    }

    /// Seals `bytes` where they are and appends the tag.
    pub(crate) fn seal_in_place(
        &self,
        number: u64,
        associated: &[u8],
        bytes: &mut Vec<u8>,
    ) -> Result<()> {
        match self {
            Self::None(key) => {
                let tag = plain_tag(key, number, associated, bytes);
                bytes.extend_from_slice(&tag);
                Ok(())
            }
            Self::Aes256Gcm(key) => key
                .seal_in_place_append_tag(nonce(number), Aad::from(associated), bytes)
                .map_err(|_| refused()),
        }
    }

    /// Opens what [`Self::seal`] gave.
    ///
    /// # Errors
    /// `Corrupt` `store.seal.broken` where a byte, the number or the associated data differ.
    pub(crate) fn open(&self, number: u64, associated: &[u8], sealed: &[u8]) -> Result<Vec<u8>> {
        let Some((text, tag)) = sealed.split_last_chunk::<TAG>() else {
            return Err(broken());
        };
        match self {
            Self::None(key) => {
                let right = plain_tag(key, number, associated, text);
                // A comparison in constant time: `Hash` of the BLAKE3 crate would do the same.
                let differ = right.iter().zip(tag).fold(0, |any, (a, b)| any | (a ^ b));
                if differ == 0 {
                    Ok(text.to_vec())
                } else {
                    Err(broken())
                }
            }
            Self::Aes256Gcm(key) => {
                let mut bytes = vec![0; text.len()];
                key.open_separate_gather(
                    nonce(number),
                    Aad::from(associated),
                    text,
                    tag,
                    &mut bytes,
                )
                .map_err(|_| broken())?;
                Ok(bytes)
            }
        }
    }
}

/// Twelve bytes: the number, little-endian, then four zeros.
fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

fn plain_tag(key: &[u8; 32], number: u64, associated: &[u8], text: &[u8]) -> [u8; TAG] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(&number.to_le_bytes());
    hasher.update(&(associated.len() as u64).to_le_bytes());
    hasher.update(associated);
    hasher.update(text);
    let mut tag = [0; TAG];
    tag.copy_from_slice(&hasher.finalize().as_bytes()[..TAG]);
    tag
}

fn broken() -> Error {
    Error::corrupt(
        "store.seal.broken",
        "a sealed object was changed, or belongs elsewhere",
    )
}

fn refused() -> Error {
    Error::new(
        Kind::Bug,
        "store.seal.refused",
        "the cipher refused its key or its input",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seals_open_only_as_they_were_made() {
        for cipher in [Cipher::None, Cipher::Aes256Gcm] {
            let sealer = Sealer::new(cipher, &[9; 32]).unwrap();
            let sealed = sealer.seal(7, b"about", b"secret words").unwrap();
            assert_eq!(sealed.len(), 12 + TAG);
            assert_eq!(sealer.open(7, b"about", &sealed).unwrap(), b"secret words");
            assert!(sealer.open(8, b"about", &sealed).is_err());
            assert!(sealer.open(7, b"abouT", &sealed).is_err());
            assert!(
                Sealer::new(cipher, &[8; 32])
                    .unwrap()
                    .open(7, b"about", &sealed)
                    .is_err()
            );
            for length in 0..sealed.len() {
                assert!(sealer.open(7, b"about", &sealed[..length]).is_err());
            }
            for bit in 0..sealed.len() * 8 {
                let mut flipped = sealed.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(
                    sealer.open(7, b"about", &flipped).unwrap_err().code(),
                    "store.seal.broken"
                );
            }
        }
    }

    /// NIST's GCM specification, test case 14 (256-bit key of zeros, 16 zero bytes).
    #[test]
    fn aes_gives_the_known_answer() {
        let sealer = Sealer::new(Cipher::Aes256Gcm, &[0; 32]).unwrap();
        let sealed = sealer.seal(0, b"", &[0; 16]).unwrap();
        let hex = crate::key::slot::hex(&sealed);
        assert_eq!(
            hex,
            "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"
        );
    }
}
