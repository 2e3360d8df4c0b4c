//! Disk images with contents that a seed decides, made by `qemu-img`, and their comparison.
//!
//! Knows: raw and qcow2, and that only `qemu-img` and plain reading judge them. Refuses to know:
//! any code of ours.

use crate::command;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

pub const MIB: u64 = 1 << 20;

/// Numbers that a seed decides (xorshift64*).
#[derive(Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    pub fn bytes(&mut self, length: u64) -> Vec<u8> {
        let words = (0..length.div_ceil(8)).flat_map(|_| self.roll().to_le_bytes());
        words.take(usize::try_from(length).unwrap()).collect()
    }
}

/// A raw image: sparse, with `pieces` pieces of 1 MiB that no compression makes smaller.
pub fn raw(path: &Path, size: u64, pieces: u64, seed: u64) -> PathBuf {
    let file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    scribble(path, pieces, MIB, seed);
    path.to_owned()
}

/// Writes `pieces` pieces of `length` bytes of noise to a raw image, each at a place of its own.
pub fn scribble(path: &Path, pieces: u64, length: u64, seed: u64) {
    let mut dice = Dice::new(seed);
    let file = File::options().write(true).open(path).unwrap();
    let mut slots: Vec<u64> = (0..file.metadata().unwrap().len() / length).collect();
    for _ in 0..pieces {
        let pick = usize::try_from(dice.below(slots.len() as u64)).unwrap();
        let at = slots.swap_remove(pick) * length;
        file.write_all_at(&dice.bytes(length), at).unwrap();
    }
}

/// A qcow2 image with what a raw one holds.
pub fn qcow2_of(raw: &Path, path: &Path) -> PathBuf {
    let [raw, to] = [raw, path].map(|path| path.to_str().unwrap());
    qemu(
        "qemu-img",
        &["convert", "-q", "-f", "raw", "-O", "qcow2", raw, to],
    );
    path.to_owned()
}

/// Runs one of QEMU's tools.
#[track_caller]
pub fn qemu(tool: &str, arguments: &[&str]) -> String {
    let scratch = std::env::temp_dir();
    command::run(Command::new(tool).args(arguments), &scratch)
        .expect(0)
        .out
}

/// Asserts that two images hold the same bytes, whatever their formats, as `qemu-img` sees them.
#[track_caller]
pub fn assert_equal(one: &Path, one_format: &str, other: &Path, other_format: &str) {
    let [a, b] = [one, other].map(|path| path.to_str().unwrap());
    // It overlooks zeros at the end that only one of them has.
    assert_eq!(size(a, one_format), size(b, other_format), "{a} and {b}");
    qemu(
        "qemu-img",
        &["compare", "-q", "-f", one_format, "-F", other_format, a, b],
    );
}

/// The size of the disk in an image.
fn size(path: &str, format: &str) -> u64 {
    let info = qemu("qemu-img", &["info", "-f", format, "--output=json", path]);
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    info["virtual-size"].as_u64().unwrap()
}

/// A copy to compare with later, without writing its holes.
pub fn copy(from: &Path, to: &Path) -> PathBuf {
    let line = [
        "--sparse=always",
        from.to_str().unwrap(),
        to.to_str().unwrap(),
    ];
    command::run(Command::new("cp").args(line), &std::env::temp_dir()).expect(0);
    to.to_owned()
}
