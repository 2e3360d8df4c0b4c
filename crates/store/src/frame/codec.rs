//! Compression of a frame.
//!
//! Knows: zstd and storing as is, and that foreign bytes never make more than they may.
//! Refuses to know: what is compressed.

use base::{Error, Kind, Result};
use std::sync::{Mutex, PoisonError};
use zstd::bulk::{Compressor, Decompressor};

/// How a frame's bytes are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Codec {
    /// As they are.
    Stored,
    /// One zstd frame.
    Zstd,
}

impl Codec {
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Stored => 0,
            Self::Zstd => 1,
        }
    }

    pub(super) const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Stored),
            1 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// The most bytes that `plain` bytes take; a frame that would take more is stored as is.
pub(super) const fn stored_max(plain: usize) -> usize {
    plain
}

/// Compressors and decompressors, kept for the next frame: setting one up costs more than a frame.
#[derive(Default)]
pub(crate) struct Codecs {
    compressors: Mutex<Vec<Compressor<'static>>>,
    decompressors: Mutex<Vec<Decompressor<'static>>>,
}

impl Codecs {
    /// Compresses, unless that gains nothing. Level 0 stores.
    pub(super) fn compress(&self, plain: &[u8], level: i32) -> Result<(Codec, Vec<u8>)> {
        if level == 0 || plain.len() < 64 {
            return Ok((Codec::Stored, with_room(plain)));
        }
        let kept = self
            .compressors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let mut compressor = match kept {
            Some(compressor) => compressor,
            None => Compressor::new(level).map_err(failed)?,
        };
        compressor.set_compression_level(level).map_err(failed)?;
        let mut packed = Vec::with_capacity(zstd::zstd_safe::compress_bound(plain.len()) + 16);
        let length = compressor
            .compress_to_buffer(plain, &mut packed)
            .map_err(failed)?;
        self.compressors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(compressor);
        // Less than 1/32 gained is not worth the time of every later reader.
        if length + plain.len() / 32 >= plain.len() {
            return Ok((Codec::Stored, with_room(plain)));
        }
        Ok((Codec::Zstd, packed))
    }

    /// Decompresses to exactly `length` bytes.
    ///
    /// # Errors
    /// `Corrupt` where they would be more or fewer; never takes more memory than that.
    pub(super) fn decompress(
        &self,
        codec: Codec,
        packed: Vec<u8>,
        length: usize,
    ) -> Result<Vec<u8>> {
        let plain = match codec {
            Codec::Stored => packed,
            Codec::Zstd => {
                let kept = self
                    .decompressors
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .pop();
                let mut decompressor = match kept {
                    Some(decompressor) => decompressor,
                    None => Decompressor::new().map_err(failed)?,
                };
                let mut plain = Vec::with_capacity(length);
                let done = decompressor.decompress_to_buffer(&packed, &mut plain);
                self.decompressors
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(decompressor);
                done.map_err(|error| damaged(&error.to_string()))?;
                plain
            }
        };
        if plain.len() == length {
            Ok(plain)
        } else {
            Err(damaged("its length is wrong"))
        }
    }
}

/// A copy with room for the seal's tag.
fn with_room(plain: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(plain.len() + crate::seal::TAG);
    bytes.extend_from_slice(plain);
    bytes
}

fn damaged(reason: &str) -> Error {
    Error::corrupt(
        "store.frame.compression",
        format!("a frame does not decompress: {reason}"),
    )
}

fn failed(error: std::io::Error) -> Error {
    Error::new(Kind::Bug, "store.frame.compressor", "the compressor failed").caused_by(error)
}
