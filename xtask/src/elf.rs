//! Is this program linked statically?
//!
//! Knows: enough of the ELF header and its program headers to see whether a program asks for an
//! interpreter or for shared libraries (System V gABI, chapters 4 and 5).
//! Refuses to know: anything else an ELF file may hold.

use base::{Error, Kind, Result};
use std::path::Path;

const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;
/// A program has about a dozen; a file that claims more than this is not one of ours.
const PROGRAM_HEADERS_MAX: usize = 128;

/// An error unless the file is a 64-bit little-endian ELF program without interpreter and without
/// needed libraries: one that runs on any Linux of its processor.
pub fn check_static(path: &Path) -> Result<()> {
    let bytes = std::fs::read(path)
        .map_err(|error| Error::io(format!("reading {}", path.display()), error))?;
    let wants = dynamic_wishes(&bytes).map_err(|e| e.context(path.display().to_string()))?;
    if wants.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        Kind::Invalid,
        "xtask.elf.dynamic",
        format!(
            "{} is not linked statically: it asks for {}",
            path.display(),
            wants.join(", ")
        ),
    )
    .hint("look for a dependency that links a C library dynamically, and at .cargo/config.toml"))
}

/// What the program asks the loader for; empty when it is static (a static PIE has a dynamic
/// section too, but one that needs no library).
fn dynamic_wishes(file: &[u8]) -> Result<Vec<&'static str>> {
    if file.get(..6) != Some(b"\x7fELF\x02\x01") {
        return Err(malformed("it is not a 64-bit little-endian ELF file"));
    }
    let table = size(u64_at(file, 32)?)?;
    let entry = usize::from(u16_at(file, 54)?);
    let count = usize::from(u16_at(file, 56)?);
    if entry < 56 || count == 0 || count > PROGRAM_HEADERS_MAX {
        return Err(malformed("its program header table makes no sense"));
    }
    let mut wishes = Vec::new();
    for index in 0..count {
        let header = table
            .checked_add(index * entry)
            .ok_or_else(|| malformed("its program header table lies outside of the file"))?;
        match u32_at(file, header)? {
            PT_INTERP => wishes.push("a dynamic loader"),
            PT_DYNAMIC => {
                let start = size(u64_at(file, header + 8)?)?;
                let length = size(u64_at(file, header + 32)?)?;
                if needs_library(file, start, length)? {
                    wishes.push("shared libraries");
                }
            }
            _ => {}
        }
    }
    Ok(wishes)
}

fn needs_library(file: &[u8], start: usize, length: usize) -> Result<bool> {
    let end = start.checked_add(length).filter(|end| *end <= file.len());
    let end = end.ok_or_else(|| malformed("its dynamic section lies outside of the file"))?;
    for tag in file[start..end].chunks_exact(16) {
        match u64_at(tag, 0)? {
            DT_NULL => break,
            DT_NEEDED => return Ok(true),
            _ => {}
        }
    }
    Ok(false)
}

fn bytes_at<const N: usize>(file: &[u8], at: usize) -> Result<[u8; N]> {
    at.checked_add(N)
        .and_then(|end| file.get(at..end))
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| malformed("it ends in the middle of a header"))
}

fn u16_at(file: &[u8], at: usize) -> Result<u16> {
    bytes_at(file, at).map(u16::from_le_bytes)
}

fn u32_at(file: &[u8], at: usize) -> Result<u32> {
    bytes_at(file, at).map(u32::from_le_bytes)
}

fn u64_at(file: &[u8], at: usize) -> Result<u64> {
    bytes_at(file, at).map(u64::from_le_bytes)
}

fn size(value: u64) -> Result<usize> {
    usize::try_from(value).map_err(|_| malformed("a size in it is too large"))
}

fn malformed(why: &str) -> Error {
    Error::corrupt("xtask.elf.malformed", format!("this is no program: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_program_is_static() {
        check_static(&std::env::current_exe().unwrap()).unwrap();
    }

    #[test]
    fn a_program_of_the_distribution_is_not() {
        let error = check_static(Path::new("/bin/sh")).err().unwrap();
        assert_eq!(error.code(), "xtask.elf.dynamic");
    }

    #[test]
    fn every_cut_of_a_program_is_an_error_or_an_answer() {
        let whole = std::fs::read("/bin/sh").unwrap();
        for length in 0..4_096 {
            let _ = dynamic_wishes(&whole[..length]);
        }
        assert_eq!(
            dynamic_wishes(&whole[..100]).err().unwrap().code(),
            "xtask.elf.malformed"
        );
    }
}
