//! Names of parents as Windows writes them into its disk images.
//!
//! Knows: UTF-16, backslashes and drive letters, and in which order to try several names.
//! Refuses to know: which files may be opened; the chain's opener decides.

use crate::chain::Chain;
use crate::image::{Format, Image};
use base::{Error, Kind, Result};
use std::path::Path;

/// UTF-16 text in little endian, up to the first zero.
pub(crate) fn utf16_le(bytes: &[u8]) -> String {
    let (pairs, _) = bytes.as_chunks::<2>();
    utf16(pairs.iter().map(|pair| u16::from_le_bytes(*pair)))
}

/// UTF-16 text in big endian, up to the first zero.
pub(crate) fn utf16_be(bytes: &[u8]) -> String {
    let (pairs, _) = bytes.as_chunks::<2>();
    utf16(pairs.iter().map(|pair| u16::from_be_bytes(*pair)))
}

fn utf16(units: impl Iterator<Item = u16>) -> String {
    let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
    String::from_utf16_lossy(&units)
}

/// Opens the parent of the image at `from`: first by its relative name, then by the last part of
/// its absolute one in the image's own folder, since absolute Windows names mean nothing here.
pub(crate) fn open_parent(
    chain: &Chain,
    from: &Path,
    relative: &str,
    absolute: &str,
    format: Format,
) -> Result<Image> {
    let relative = relative.replace('\\', "/");
    let last = absolute
        .rsplit(['\\', '/'])
        .next()
        .unwrap_or_default()
        .to_owned();
    let mut missing = None;
    for name in [relative, last] {
        if name.is_empty() {
            continue;
        }
        match chain.parent(from, &name, Some(format)) {
            Err(error) if error.kind() == Kind::NotFound => missing = Some(error),
            other => return other,
        }
    }
    Err(missing.unwrap_or_else(|| {
        Error::corrupt(
            "disk.chain.parent-unnamed",
            "the disk has a parent but does not name it",
        )
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_ends_at_zero_and_survives_broken_pairs() {
        assert_eq!(utf16_le(b"a\0b\0\0\0c\0"), "ab");
        assert_eq!(utf16_be(b"\0a\0b\0"), "ab");
        assert_eq!(utf16_le(&[0x00, 0xd8]), "\u{fffd}");
    }
}
