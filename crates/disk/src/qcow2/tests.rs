//! The writer against a model, and against a disk that forgets what was not synced.

use super::header::Header;
use super::writer::Qcow2Writer;
use crate::file::GrowingFile;
use crate::{FileHandle, LoneOpener, OpenOptions};
use base::block::{BlockRead, BlockWrite, ExtentKind, all_extents, is_zero};
use base::memory::MemoryDisk;
use base::random::{Random, SeededRandom};
use base::size::{ByteCount, ByteOffset, ByteRange, GIB, KIB, MIB};
use base::{Error, Result};
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// A file in memory that remembers which changes were synced.
#[derive(Clone, Default)]
struct ForgetfulFile(Arc<Mutex<Contents>>);

#[derive(Default)]
struct Contents {
    now: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<Change>,
    syncs: usize,
    fail_from_sync: Option<usize>,
}

#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(length) => bytes.resize(*length as usize, 0),
            Self::Write(offset, data) => {
                let end = *offset as usize + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset as usize..end].copy_from_slice(data);
            }
        }
    }
}

impl ForgetfulFile {
    fn change(&self, change: Change) {
        let mut contents = self.0.lock().unwrap();
        change.apply(&mut contents.now);
        contents.unsynced.push(change);
    }

    /// What a crash may leave: what was synced, and any part of what came after.
    fn after_crash(&self, random: &SeededRandom) -> Vec<u8> {
        let contents = self.0.lock().unwrap();
        let mut bytes = contents.synced.clone();
        for change in &contents.unsynced {
            match change {
                _ if random.one_in(2) => {}
                Change::Write(offset, data) if random.one_in(4) => {
                    // Torn between two sectors.
                    let keep = random.below(data.len() as u64 / 512 + 1) as usize * 512;
                    let data = data[..keep.min(data.len())].to_vec();
                    Change::Write(*offset, data).apply(&mut bytes);
                }
                change => change.apply(&mut bytes),
            }
        }
        bytes
    }
}

impl GrowingFile for ForgetfulFile {
    fn length(&self) -> Result<u64> {
        Ok(self.0.lock().unwrap().now.len() as u64)
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let contents = self.0.lock().unwrap();
        let bytes = contents
            .now
            .get(offset as usize..offset as usize + buffer.len());
        buffer.copy_from_slice(bytes.ok_or_else(|| Error::corrupt("test.short", "short"))?);
        Ok(())
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.change(Change::Write(offset, bytes.to_vec()));
        Ok(())
    }
    fn set_length(&self, length: u64) -> Result<()> {
        self.change(Change::Length(length));
        Ok(())
    }
    fn write_zeroes(&self, range: ByteRange) -> Result<()> {
        let rest = self.length()?.saturating_sub(range.offset.0);
        self.change(Change::Write(
            range.offset.0,
            vec![0; range.length.0.min(rest) as usize],
        ));
        Ok(())
    }
    fn sync(&self) -> Result<()> {
        let mut contents = self.0.lock().unwrap();
        contents.syncs += 1;
        if contents
            .fail_from_sync
            .is_some_and(|first| contents.syncs >= first)
        {
            return Err(Error::io("syncing", std::io::Error::from_raw_os_error(5)));
        }
        let unsynced = std::mem::take(&mut contents.unsynced);
        for change in unsynced {
            change.apply(&mut contents.synced);
        }
        Ok(())
    }
}

fn reopen(bytes: Vec<u8>) -> Result<crate::Image> {
    let file = FileHandle::from_bytes("/mem/disk.qcow2", Arc::new(MemoryDisk::from(bytes)));
    crate::open_file(
        file,
        &LoneOpener,
        OpenOptions {
            format: Some(crate::Format::Qcow2),
        },
    )
}

fn read_all(disk: &dyn BlockRead) -> Vec<u8> {
    let mut bytes = vec![0xee; disk.size().0 as usize];
    disk.read_at(ByteOffset::ZERO, &mut bytes).unwrap();
    bytes
}

/// One random change to both the disk and the model of it; says where.
fn change(random: &SeededRandom, disk: &Qcow2Writer, model: &mut [u8]) -> Range<usize> {
    let size = model.len() as u64;
    let offset = random.below(size);
    let longest = if random.one_in(3) { 400 * KIB } else { 9 * KIB };
    let length = (1 + random.below(longest)).min(size - offset);
    let (start, end) = (offset as usize, (offset + length) as usize);
    if random.one_in(3) {
        disk.write_zeroes(ByteRange::new(offset, length)).unwrap();
        model[start..end].fill(0);
    } else {
        let mut bytes = vec![0; length as usize];
        random.fill(&mut bytes);
        disk.write_at(ByteOffset(offset), &bytes).unwrap();
        model[start..end].copy_from_slice(&bytes);
    }
    start..end
}

#[test]
fn random_writes_and_zeroes_read_back() {
    for seed in 0..8 {
        let random = SeededRandom::new(seed);
        let file = ForgetfulFile::default();
        let size = 3 * MIB + 512 * seed;
        let disk = Qcow2Writer::on(Box::new(file.clone()), ByteCount(size)).unwrap();
        let mut model = vec![0; size as usize];
        for step in 0..150 {
            change(&random, &disk, &mut model);
            if step % 40 == 7 {
                disk.flush().unwrap();
            }
        }
        assert!(
            read_all(&disk) == model,
            "seed {seed}: the writer reads something else"
        );
        disk.flush().unwrap();
        let image = reopen(file.0.lock().unwrap().synced.clone()).unwrap();
        assert!(
            read_all(&image) == model,
            "seed {seed}: the image reads something else"
        );
        for extent in all_extents(&image, ByteRange::new(0, size)).unwrap() {
            let place = extent.range.offset.0 as usize..extent.range.end().0 as usize;
            assert!(
                extent.kind == ExtentKind::Data || is_zero(&model[place]),
                "{extent:?}"
            );
        }
    }
}

/// After a crash at any moment the image opens, what was flushed and not touched since is there,
/// no cluster is shared, and every cluster in use is counted.
#[test]
fn a_crash_keeps_what_was_flushed() {
    for seed in 100..160 {
        let random = SeededRandom::new(seed);
        let file = ForgetfulFile::default();
        let size = 2 * MIB;
        let disk = Qcow2Writer::on(Box::new(file.clone()), ByteCount(size)).unwrap();
        let mut model = vec![0; size as usize];
        for _ in 0..random.below(40) {
            change(&random, &disk, &mut model);
            if random.one_in(6) {
                disk.flush().unwrap();
            }
        }
        disk.flush().unwrap();
        let kept = model.clone();
        let mut touched = vec![false; size as usize];
        for _ in 0..random.below(12) {
            let place = change(&random, &disk, &mut model);
            touched[place].fill(true);
        }
        // A flush that the crash interrupts at one of its syncs.
        if random.one_in(2) {
            let mut contents = file.0.lock().unwrap();
            contents.fail_from_sync = Some(contents.syncs + 1 + random.below(5) as usize);
            drop(contents);
            let _ = disk.flush();
        }
        let bytes = file.after_crash(&random);
        check_structure(&bytes, seed);
        let image = reopen(bytes).unwrap();
        let found = read_all(&image);
        for at in 0..size as usize {
            assert!(
                touched[at] || found[at] == kept[at],
                "seed {seed}: byte {at} was lost"
            );
        }
    }
}

/// What `qemu-img check` looks at, for images in memory: every reference is counted, once.
fn check_structure(bytes: &[u8], seed: u64) {
    let word = |at: u64| u64::from_be_bytes(bytes[at as usize..][..8].try_into().unwrap());
    let header = Header::read(&MemoryDisk::from(bytes.to_vec())).unwrap();
    let mut named = vec![header.l1_offset, header.refcount_table_offset, 0];
    let mask = super::table::OFFSET_MASK;
    for l1 in 0..header.l1_entries {
        let l2 = word(header.l1_offset + l1 * 8) & mask;
        if l2 == 0 {
            continue;
        }
        named.push(l2);
        named.extend(
            (0..8192)
                .map(|i| word(l2 + i * 8) & mask)
                .filter(|offset| *offset != 0),
        );
    }
    let mut sorted = named.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(
        sorted.len(),
        named.len(),
        "seed {seed}: a cluster has two owners"
    );
    for offset in named {
        let cluster = offset >> 16;
        let block = word(header.refcount_table_offset + cluster / 32768 * 8);
        assert_ne!(block, 0, "seed {seed}: no counts for {offset:#x}");
        let at = (block + cluster % 32768 * 2) as usize;
        assert_eq!(
            bytes[at..at + 2],
            [0, 1],
            "seed {seed}: count of {offset:#x}"
        );
    }
}

#[test]
fn after_a_failed_flush_nothing_is_written_any_more() {
    let file = ForgetfulFile::default();
    let disk = Qcow2Writer::on(Box::new(file.clone()), ByteCount(MIB)).unwrap();
    disk.write_at(ByteOffset::ZERO, &[1; 512]).unwrap();
    file.0.lock().unwrap().fail_from_sync = Some(0);
    assert!(disk.flush().is_err());
    file.0.lock().unwrap().fail_from_sync = None;
    assert_eq!(
        disk.write_at(ByteOffset::ZERO, &[2; 512])
            .unwrap_err()
            .code(),
        "disk.qcow2.write-failed-before"
    );
    assert_eq!(
        disk.flush().unwrap_err().code(),
        "disk.qcow2.write-failed-before"
    );
}

#[test]
fn space_given_back_is_used_again() {
    let file = ForgetfulFile::default();
    let disk = Qcow2Writer::on(Box::new(file.clone()), ByteCount(GIB)).unwrap();
    for round in 0..40_u64 {
        disk.write_at(ByteOffset(round * MIB), &vec![1; MIB as usize])
            .unwrap();
        disk.flush().unwrap();
        disk.write_zeroes(ByteRange::new(round * MIB, MIB)).unwrap();
        disk.flush().unwrap();
    }
    assert!(
        file.length().unwrap() < 3 * MIB,
        "the file grew without need"
    );
}

#[test]
fn many_threads_write_one_image() {
    let file = ForgetfulFile::default();
    let disk = Qcow2Writer::on(Box::new(file.clone()), ByteCount(8 * MIB)).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let disk = &disk;
            scope.spawn(move || {
                let random = SeededRandom::new(thread);
                for _ in 0..200 {
                    let page = random.below(512) * 4 + thread;
                    let byte = 1 + (page % 255) as u8;
                    disk.write_at(ByteOffset(page * 4096), &[byte; 4096])
                        .unwrap();
                    if random.one_in(20) {
                        disk.flush().unwrap();
                    }
                    let mut read = [0; 4096];
                    disk.read_at(ByteOffset(page * 4096), &mut read).unwrap();
                    assert_eq!(read, [byte; 4096]);
                }
            });
        }
    });
}

#[test]
fn sizes_that_cannot_be_made_are_refused() {
    let file = ForgetfulFile::default();
    let error = Qcow2Writer::on(Box::new(file), ByteCount(1 << 51))
        .err()
        .unwrap();
    assert_eq!(error.code(), "disk.qcow2.size-too-large");
    let empty = Qcow2Writer::on(Box::new(ForgetfulFile::default()), ByteCount(0)).unwrap();
    assert_eq!(all_extents(&empty, ByteRange::new(0, 0)).unwrap(), vec![]);
}
