//! Content like that of real machines, made from a seed.
//!
//! Knows: three kinds of content (already compressed, log text, tables of database pages), the same
//! bytes for the same seed.
//! Refuses to know: which files and disks it fills.

use base::{Error, Result};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// One mebibyte.
pub const MIB: usize = 1 << 20;
/// The size of a page of a table.
pub const PAGE: usize = 8 << 10;

/// A stream of numbers that look random (SplitMix64).
pub struct Numbers(pub u64);

impl Numbers {
    /// The next one.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// A new file at `path`, filled by `fill`.
pub fn file(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> Result<()> {
    let failed = |error| Error::io(format!("writing {}", path.display()), error);
    let mut out = BufWriter::with_capacity(MIB, File::create(path).map_err(failed)?);
    fill(&mut out).and_then(|()| out.flush()).map_err(failed)
}

/// Bytes that no codec makes smaller; `length` is rounded up to a multiple of 8.
pub fn noise(out: &mut impl Write, numbers: &mut Numbers, length: usize) -> std::io::Result<()> {
    for _ in 0..length.div_ceil(8) {
        out.write_all(&numbers.next().to_le_bytes())?;
    }
    Ok(())
}

/// Lines as web servers write them, in order of time, at least `length` bytes.
pub fn log(out: &mut impl Write, numbers: &mut Numbers, length: usize) -> std::io::Result<()> {
    const VERBS: [&str; 4] = ["GET", "GET", "POST", "HEAD"];
    const CODES: [u16; 4] = [200, 200, 304, 404];
    let mut written = 0;
    let mut second = 0_u64;
    while written < length {
        let number = numbers.next();
        second += number & 3;
        let pick = usize::try_from((number >> 8) & 3).unwrap_or(0);
        let line = format!(
            "10.0.{}.{} [{:02}:{:02}:{:02}] \"{} /order/{} HTTP/1.1\" {} {}\n",
            (number >> 16) & 7,
            (number >> 24) & 255,
            second / 3_600 % 24,
            second / 60 % 60,
            second % 60,
            VERBS[pick],
            (number >> 32) & 0xffff,
            CODES[pick],
            (number >> 48) & 0xfff,
        );
        out.write_all(line.as_bytes())?;
        written += line.len();
    }
    Ok(())
}

/// Pages of a table: a header, rows growing from the end, free space between.
pub fn table(out: &mut impl Write, numbers: &mut Numbers, pages: usize) -> std::io::Result<()> {
    for number in 0..pages {
        out.write_all(&page(numbers, number))?;
    }
    Ok(())
}

/// One page of a table.
pub fn page(numbers: &mut Numbers, page_number: usize) -> Vec<u8> {
    let mut page = vec![0; PAGE];
    page[..8].copy_from_slice(&page_number.to_le_bytes());
    let mut end = PAGE;
    while end > PAGE / 3 {
        let number = numbers.next();
        let row = format!(
            "|{:08x}|customer-{:05}|open|",
            number & 0xffff_ffff,
            number >> 52
        );
        end -= row.len();
        page[end..end + row.len()].copy_from_slice(row.as_bytes());
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_writes_the_same_bytes_and_pages_are_whole() {
        let [mut one, mut two, mut other] = [Vec::new(), Vec::new(), Vec::new()];
        table(&mut one, &mut Numbers(7), 16).unwrap();
        table(&mut two, &mut Numbers(7), 16).unwrap();
        table(&mut other, &mut Numbers(8), 16).unwrap();
        assert!(one == two && one != other);
        assert_eq!(one.len(), 16 * PAGE);
    }

    #[test]
    fn lengths_are_kept() {
        let mut out = Vec::new();
        noise(&mut out, &mut Numbers(1), 4_096).unwrap();
        assert_eq!(out.len(), 4_096);
        out.clear();
        log(&mut out, &mut Numbers(1), 10_000).unwrap();
        assert!((10_000..10_200).contains(&out.len()) && out.ends_with(b"\n"));
    }
}
