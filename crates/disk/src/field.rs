//! Numbers in the bytes of a header.
//!
//! Knows: little and big endian fields at an offset, and that the bytes may end before.
//! Refuses to know: what the fields mean.

use base::{Error, Result};

/// The bytes of one structure of an image.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    bytes: &'a [u8],
    code: &'static str,
    noun: &'static str,
}

impl<'a> Fields<'a> {
    /// The bytes of `noun`; reads past its end give a `Corrupt` error with `code`.
    pub(crate) fn new(bytes: &'a [u8], code: &'static str, noun: &'static str) -> Self {
        Self { bytes, code, noun }
    }

    /// `length` bytes at `at`.
    pub(crate) fn bytes(&self, at: usize, length: usize) -> Result<&'a [u8]> {
        at.checked_add(length)
            .and_then(|end| self.bytes.get(at..end))
            .ok_or_else(|| {
                Error::corrupt(
                    self.code,
                    format!("the {} ends in the middle of a field", self.noun),
                )
            })
    }

    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(at, N)?);
        Ok(array)
    }

    pub(crate) fn byte(&self, at: usize) -> Result<u8> {
        self.array::<1>(at).map(|[byte]| byte)
    }

    pub(crate) fn le16(&self, at: usize) -> Result<u16> {
        self.array(at).map(u16::from_le_bytes)
    }

    pub(crate) fn le32(&self, at: usize) -> Result<u32> {
        self.array(at).map(u32::from_le_bytes)
    }

    pub(crate) fn le64(&self, at: usize) -> Result<u64> {
        self.array(at).map(u64::from_le_bytes)
    }

    pub(crate) fn be32(&self, at: usize) -> Result<u32> {
        self.array(at).map(u32::from_be_bytes)
    }

    pub(crate) fn be64(&self, at: usize) -> Result<u64> {
        self.array(at).map(u64::from_be_bytes)
    }
}
