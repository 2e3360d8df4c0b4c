//! Fields of the binary formats: little-endian numbers and byte strings, read with bounds.
//!
//! Knows: how to take the next field from bytes that may be anything, and how to append one.
//! Refuses to know: which object it is.

use base::{Error, Result};

/// Takes fields from the front of foreign bytes.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
    /// What is being read, for errors: `a frame's header`.
    what: &'static str,
}

impl<'a> Fields<'a> {
    pub(crate) const fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    pub(crate) const fn left(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        match self.rest.split_at_checked(count) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(self.wrong("it is too short")),
        }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        match self.rest.split_first_chunk::<N>() {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(*taken)
            }
            None => Err(self.wrong("it is too short")),
        }
    }

    pub(crate) fn u8(&mut self) -> Result<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn u128(&mut self) -> Result<u128> {
        self.array().map(u128::from_le_bytes)
    }

    /// Takes `expected` or says that it is something else.
    pub(crate) fn expect(&mut self, expected: &[u8], name: &str) -> Result<()> {
        if self.bytes(expected.len())? == expected {
            Ok(())
        } else {
            Err(self.wrong(&format!("its {name} is not what it must be")))
        }
    }

    /// An error unless all was taken.
    pub(crate) fn end(&self) -> Result<()> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.wrong("bytes follow its end"))
        }
    }

    /// The error that says what is wrong with the object.
    pub(crate) fn wrong(&self, reason: &str) -> Error {
        malformed(self.what, reason)
    }
}

/// The error for bytes that are not the object they should be.
pub(crate) fn malformed(what: &str, reason: &str) -> Error {
    Error::corrupt(
        "store.object.malformed",
        format!("{what} is damaged: {reason}"),
    )
}

/// An error unless the format's major version is ours.
pub(crate) fn check_version(major: u16, what: &str) -> Result<()> {
    if major == crate::layout::FORMAT_MAJOR {
        return Ok(());
    }
    Err(Error::new(
        base::Kind::Unsupported,
        "store.object.version",
        format!(
            "{what} has format version {major}; this program knows {}",
            crate::layout::FORMAT_MAJOR
        ),
    )
    .hint("use a newer Backstay; nothing was changed"))
}
