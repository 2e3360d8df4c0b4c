//! Images that were damaged or made with bad intent.
//!
//! `mutants`: small sound images, changed and cut thousands of times. `cases`: what attackers and
//! accidents are known to do, each with the error it must give.

mod cases;
mod mutants;

use crate::content::{content, write_raw};
use crate::qemu::{self, text};
use base::Result;
use base::block::{BlockRead, check_range};
use base::memory::MemoryDisk;
use base::size::{ByteCount, ByteOffset, ByteRange, MIB};
use disk::{FileHandle, Format, Image, MemoryOpener, OpenOptions};
use std::sync::Arc;

/// Bytes with some pieces replaced, and cut at a place.
struct Mutant {
    below: Arc<MemoryDisk>,
    patches: Vec<(u64, Vec<u8>)>,
    size: u64,
}

impl Mutant {
    fn of(below: &Arc<MemoryDisk>) -> Self {
        Self {
            below: below.clone(),
            patches: Vec::new(),
            size: below.size().0,
        }
    }

    fn with(mut self, at: u64, bytes: &[u8]) -> Self {
        self.patches.push((at, bytes.to_vec()));
        self
    }

    fn get(&self, at: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.read_at(ByteOffset(at), &mut bytes).unwrap();
        bytes
    }
}

impl BlockRead for Mutant {
    fn size(&self) -> ByteCount {
        ByteCount(self.size)
    }

    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<()> {
        let range = ByteRange::new(offset.0, buffer.len() as u64);
        check_range(range, self.size())?;
        self.below.read_at(offset, buffer)?;
        for (at, bytes) in &self.patches {
            let Some(part) = ByteRange::new(*at, bytes.len() as u64).intersection(&range) else {
                continue;
            };
            let (to, from) = (
                (part.offset - offset).0 as usize,
                (part.offset.0 - at) as usize,
            );
            let length = part.length.0 as usize;
            buffer[to..to + length].copy_from_slice(&bytes[from..from + length]);
        }
        Ok(())
    }
}

/// A sound image, where its headers and tables are, and how its checksums are made right again.
struct Fixture {
    format: Format,
    bytes: Arc<MemoryDisk>,
    tables: Vec<ByteRange>,
    reseal: fn(&mut Mutant),
    parent: Option<Arc<MemoryDisk>>,
}

fn fixture(format: Format, name: &str, options: &str, compressed: bool) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let raw = write_raw(folder.path(), "source.raw", &content(400, 3 * MIB));
    let image = folder.path().join("image");
    let mut arguments = vec!["convert", "-f", "raw", "-O", name, "-o", options];
    if compressed {
        arguments.push("-c");
    }
    arguments.extend([text(&raw), text(&image)]);
    qemu::img(&arguments);
    let bytes = std::fs::read(&image).unwrap();
    let length = bytes.len() as u64;
    Fixture {
        format,
        bytes: Arc::new(MemoryDisk::from(bytes)),
        tables: vec![
            ByteRange::new(0, length.min(4096)),
            ByteRange::new(0, length),
        ],
        reseal: |_| {},
        parent: None,
    }
}

fn image_of(fixture: &Fixture, mutant: Mutant) -> Result<Image> {
    let mut opener = MemoryOpener::default();
    if let Some(parent) = &fixture.parent {
        opener = opener.with("/vm/base", parent.clone());
    }
    let file = FileHandle::from_bytes("/vm/image", Arc::new(mutant));
    disk::open_file(
        file,
        &opener,
        OpenOptions {
            format: Some(fixture.format),
        },
    )
}
