//! Files that give a guest's disk something to back up.
//!
//! Knows: three kinds of content as real machines have them (already compressed, log text, tables
//! of database pages), made from a fixed seed so that every run sees the same bytes.
//! Refuses to know: where they end up.

use crate::lab::make_folder;
use base::cancel::Cancel;
use base::{Error, Result};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

const MIB: usize = 1 << 20;
const PAGE: usize = 8 << 10;

/// A stream of numbers that look random (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Fills the folder with about 256 MiB in 26 files.
pub fn write(folder: &Path, cancel: &Cancel) -> Result<()> {
    make_folder(folder)?;
    let mut numbers = Numbers(20_261_122);
    for index in 0..12 {
        cancel.check()?;
        file(&folder.join(format!("photo-{index:02}.jpg")), |out| {
            noise(out, &mut numbers)
        })?;
    }
    for index in 0..8 {
        cancel.check()?;
        file(&folder.join(format!("web-{index}.log")), |out| {
            log(out, &mut numbers)
        })?;
    }
    for index in 0..6 {
        cancel.check()?;
        file(&folder.join(format!("table-{index}.db")), |out| {
            table(out, &mut numbers)
        })?;
    }
    Ok(())
}

fn file(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>) -> Result<()> {
    let failed = |error| Error::io(format!("writing {}", path.display()), error);
    let mut out = BufWriter::with_capacity(MIB, File::create(path).map_err(failed)?);
    fill(&mut out).and_then(|()| out.flush()).map_err(failed)
}

/// 8 MiB that no codec makes smaller.
fn noise(out: &mut impl Write, numbers: &mut Numbers) -> std::io::Result<()> {
    for _ in 0..MIB {
        out.write_all(&numbers.next().to_le_bytes())?;
    }
    Ok(())
}

/// About 12 MiB of lines as web servers write them.
fn log(out: &mut impl Write, numbers: &mut Numbers) -> std::io::Result<()> {
    const VERBS: [&str; 4] = ["GET", "GET", "POST", "HEAD"];
    const CODES: [u16; 4] = [200, 200, 304, 404];
    let mut written = 0;
    let mut second = 0_u64;
    while written < 12 * MIB {
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

/// 8 MiB of pages: a header, rows growing from the end, free space between.
fn table(out: &mut impl Write, numbers: &mut Numbers) -> std::io::Result<()> {
    for page_number in 0..(8 * MIB / PAGE) {
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
        out.write_all(&page)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_writes_the_same_bytes_and_pages_are_whole() {
        let [mut one, mut two] = [Vec::new(), Vec::new()];
        table(&mut one, &mut Numbers(7)).unwrap();
        table(&mut two, &mut Numbers(7)).unwrap();
        assert!(one == two && one.len() == 8 * MIB);
        let mut other = Vec::new();
        table(&mut other, &mut Numbers(8)).unwrap();
        assert!(one != other);
    }
}
