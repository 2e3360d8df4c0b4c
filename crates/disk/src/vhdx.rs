//! Hyper-V disks (VHDX): fixed, dynamic and differencing.
//!
//! Knows: Microsoft's MS-VHDX: two headers of which the newer counts, a log that must be replayed
//! before anything else is believed (in memory: the file is never changed), regions, metadata, and
//! a table of blocks (BAT).
//! Refuses to know: how to write any of it.
//!
//! In the order in which a file is opened: `header`, `log`, `region`, `metadata`, `table`,
//! `reader`.

mod header;
mod log;
mod metadata;
mod reader;
mod region;
mod replayed;
mod table;

#[cfg(test)]
mod tests;

pub(crate) use reader::open;

use base::block::BlockRead;
use base::size::{ByteOffset, KIB};
use base::{Error, Kind, Result};

/// Everything up to the data is placed at multiples of this.
const SECTION: u64 = 64 * KIB;

/// An error of kind `Corrupt` about a VHDX.
fn corrupt(reason: &str, message: impl Into<String>) -> Error {
    Error::new(Kind::Corrupt, format!("disk.vhdx.{reason}"), message)
        .hint("copy the file again, or restore it from a backup")
}

/// An error of kind `Unsupported` about a VHDX.
fn unsupported(reason: &str, message: impl Into<String>) -> Error {
    Error::new(
        Kind::Unsupported,
        format!("disk.vhdx.{reason}-unsupported"),
        message,
    )
    .hint("convert the disk with Hyper-V's Convert-VHD or with qemu-img convert")
}

/// `length` bytes at `at` of `file`, which must be inside.
fn read_piece(file: &dyn BlockRead, at: u64, length: u64, what: &str) -> Result<Vec<u8>> {
    if at.checked_add(length).is_none_or(|end| end > file.size().0) {
        return Err(corrupt(
            "outside",
            format!("the {what} lies outside the file"),
        ));
    }
    let mut bytes = vec![0; length as usize];
    file.read_at(ByteOffset(at), &mut bytes)?;
    Ok(bytes)
}

/// CRC-32C of `bytes` as if the four bytes at 4 were zeros, which is where all structures keep it.
fn checksum(bytes: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..4]), &[0; 4]);
    crc32c::crc32c_append(crc, &bytes[8..])
}

/// The bytes of a GUID as they are stored, from its usual notation.
const fn guid(text: &str) -> [u8; 16] {
    let text = text.as_bytes();
    let mut bytes = [0; 16];
    // The first three groups are stored in little endian.
    let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let (mut at, mut index) = (0, 0);
    while index < 16 {
        if text[at] == b'-' {
            at += 1;
        }
        bytes[order[index]] = hex(text[at]) * 16 + hex(text[at + 1]);
        at += 2;
        index += 1;
    }
    bytes
}

const fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        b'A'..=b'F' => digit - b'A' + 10,
        // Only called with digits: the callers check or are constants.
        _ => 0,
    }
}

/// A GUID from text that may be anything.
fn parse_guid(text: &str) -> Option<[u8; 16]> {
    let text = text.trim().trim_start_matches('{').trim_end_matches('}');
    let dashes = [8, 13, 18, 23];
    let fine = text.len() == 36
        && text
            .bytes()
            .enumerate()
            .all(|(at, byte)| match dashes.contains(&at) {
                true => byte == b'-',
                false => byte.is_ascii_hexdigit(),
            });
    fine.then(|| guid(text))
}
