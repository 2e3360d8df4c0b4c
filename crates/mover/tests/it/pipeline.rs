//! Pipelines between disks in memory and a repository; the oracle is a vector of bytes.

use crate::world::{
    FailingFiles, GRANULE, TrackedDisk, back_up_all, back_up_changes, publish, repository,
    repository_in, restored, writer,
};
use base::block::BlockRead;
use base::cancel::Cancel;
use base::memory::MemoryDisk;
use base::random::{Random, SeededRandom};
use base::size::{ByteCount, ByteOffset, ByteRange, KIB, MIB};
use base::{Error, Kind, Result};
use disk::layer::{Fault, FaultDisk};
use mover::pipeline::backup::{Backup, back_up};
use mover::pipeline::gauge::Gauge;
use mover::pipeline::restore::{StoredDisk, Target, restore};
use std::sync::Arc;

/// One random history of a disk: written, resized, backed up in all ways, restored.
fn history(seed: u64) {
    let folder = tempfile::tempdir().unwrap();
    let repository = repository_in(&folder);
    let random = SeededRandom::new(seed);
    // Sizes that end within a page, a block and a window.
    let some_size = || 512 + random.below(6 * MIB) / 512 * 512;
    let mut disk = TrackedDisk::new(some_size());
    disk.scribble(&random, 20);
    disk.take_changes();
    let first = writer(&repository);
    let root = back_up_all(&disk.snapshot(), &first, &Gauge::default()).unwrap();
    let mut last = publish(&first, ByteCount(disk.bytes.len() as u64), root);
    assert!(
        restored(&repository, &last) == disk.bytes,
        "seed {seed}: full"
    );
    for round in 0..6 {
        let old_size = disk.bytes.len() as u64;
        if random.one_in(3) {
            disk.resize(some_size());
        }
        let edits = random.below(6);
        disk.scribble(&random, edits);
        let snapshot = disk.snapshot();
        let size = snapshot.size();
        let changes = disk.take_changes();
        let writer = writer(&repository);
        let gauge = Gauge::default();
        let root =
            back_up_changes(&snapshot, &repository, &writer, &last, &changes, &gauge).unwrap();
        // The very root of a full read, whatever way led there.
        let full = back_up_all(&snapshot, &writer, &Gauge::default()).unwrap();
        assert_eq!(root, full, "seed {seed}, round {round}");
        last = publish(&writer, size, root);
        assert!(
            restored(&repository, &last) == disk.bytes,
            "seed {seed}, round {round}"
        );
        // Nothing was read but what is marked and what is new beyond the old end.
        let marked: u64 = changes.iter().map(|extent| extent.range.length.0).sum();
        let most = marked + size.0.saturating_sub(old_size) + GRANULE;
        assert!(
            gauge.counters().read.0 <= most,
            "seed {seed}, round {round}"
        );
        assert_eq!(gauge.counters().done, size);
        assert_eq!(gauge.counters().processed, size);
    }
}

#[test]
fn every_way_to_read_a_disk_gives_the_same_root_and_the_same_bytes() {
    for seed in 0..12 {
        history(seed);
    }
}

#[test]
fn a_tracker_that_lies_gives_another_root_than_a_full_read() {
    let folder = tempfile::tempdir().unwrap();
    let repository = repository_in(&folder);
    let random = SeededRandom::new(7);
    let mut disk = TrackedDisk::new(4 * MIB);
    disk.scribble(&random, 10);
    disk.take_changes();
    let first = writer(&repository);
    let root = back_up_all(&disk.snapshot(), &first, &Gauge::default()).unwrap();
    let base = publish(&first, ByteCount(4 * MIB), root);
    disk.write(MIB, &[1; 100]);
    disk.write(3 * MIB, &[2; 100]);
    let mut changes = disk.take_changes();
    changes.pop();
    let writer = writer(&repository);
    let snapshot = disk.snapshot();
    let gauge = Gauge::default();
    let lied = back_up_changes(&snapshot, &repository, &writer, &base, &changes, &gauge).unwrap();
    let true_root = back_up_all(&snapshot, &writer, &gauge).unwrap();
    assert_ne!(lied, true_root);
}

#[test]
fn zeros_are_neither_read_nor_stored() {
    let folder = tempfile::tempdir().unwrap();
    let repository = repository_in(&folder);
    let mut disk = TrackedDisk::new(64 * MIB);
    let mut bytes = vec![0; 100 * KIB as usize];
    SeededRandom::new(1).fill(&mut bytes);
    disk.write(40 * MIB, &bytes);
    let gauge = Gauge::default();
    let first = writer(&repository);
    let root = back_up_all(&disk.snapshot(), &first, &gauge).unwrap();
    assert_eq!(gauge.counters().read, ByteCount(100 * KIB));
    assert_eq!(gauge.counters().done, ByteCount(64 * MIB));
    let base = publish(&first, ByteCount(64 * MIB), root);
    // Zeroed again: marked as changed, known to be zero, not read.
    disk.take_changes();
    disk.write(40 * MIB, &vec![0; 128 * KIB as usize]);
    let changes = disk.take_changes();
    let (gauge, second) = (Gauge::default(), writer(&repository));
    let snapshot = disk.snapshot();
    let root = back_up_changes(&snapshot, &repository, &second, &base, &changes, &gauge).unwrap();
    assert_eq!(gauge.counters().read, ByteCount::ZERO);
    assert_eq!(gauge.counters().changed, ByteCount(128 * KIB));
    let empty = back_up_all(&snapshot, &second, &Gauge::default()).unwrap();
    assert_eq!(root, empty);
}

#[test]
fn what_is_there_already_is_not_stored_again() {
    let folder = tempfile::tempdir().unwrap();
    let repository = repository_in(&folder);
    let mut disk = TrackedDisk::new(8 * MIB);
    disk.scribble(&SeededRandom::new(5), 40);
    let (gauge, first) = (Gauge::default(), writer(&repository));
    let root = back_up_all(&disk.snapshot(), &first, &gauge).unwrap();
    assert!(gauge.counters().stored.0 > 0);
    publish(&first, ByteCount(8 * MIB), root);
    let (gauge, second) = (Gauge::default(), writer(&repository));
    assert_eq!(
        back_up_all(&disk.snapshot(), &second, &gauge).unwrap(),
        root
    );
    assert_eq!(gauge.counters().stored, ByteCount::ZERO);
}

/// A disk whose reads ask to stop after a while.
struct Stopper {
    disk: MemoryDisk,
    cancel: Cancel,
    left: std::sync::atomic::AtomicI64,
}

impl BlockRead for Stopper {
    fn size(&self) -> ByteCount {
        self.disk.size()
    }
    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<()> {
        if self.left.fetch_sub(1, std::sync::atomic::Ordering::SeqCst) == 0 {
            self.cancel.cancel();
        }
        self.disk.read_at(offset, buffer)
    }
}

#[test]
fn a_request_to_stop_is_honoured_at_any_window() {
    let folder = tempfile::tempdir().unwrap();
    let repository = repository_in(&folder);
    let mut disk = TrackedDisk::new(8 * MIB);
    disk.scribble(&SeededRandom::new(5), 40);
    for reads in [0, 1, 7, 20, 31] {
        let cancel = Cancel::new();
        let left = std::sync::atomic::AtomicI64::new(reads);
        let source = Stopper {
            disk: disk.snapshot(),
            cancel: cancel.clone(),
            left,
        };
        let (gauge, writer) = (Gauge::default(), writer(&repository));
        let order = Backup {
            disk: &source,
            writer: &writer,
            changes: None,
            gauge: &gauge,
            cancel: &cancel,
        };
        assert_eq!(
            back_up(&order).unwrap_err().kind(),
            Kind::Cancelled,
            "{reads}"
        );
        writer.abort().unwrap();
    }
    assert!(repository.points().unwrap().points.is_empty());
}

#[test]
fn errors_of_the_source_end_it_with_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let repository = repository_in(&folder);
    let mut disk = TrackedDisk::new(8 * MIB);
    disk.scribble(&SeededRandom::new(5), 60);
    disk.write(5 * MIB, &[1; 8 * KIB as usize]);
    let faulty = FaultDisk::new(disk.snapshot());
    let whole = ByteRange::new(0, 8 * MIB);
    // Twice is a stumble, for ever is an error.
    faulty.arm(whole, Fault::ReadError, 2);
    let first = writer(&repository);
    let root = back_up_all(&faulty, &first, &Gauge::default()).unwrap();
    let truth = back_up_all(&disk.snapshot(), &first, &Gauge::default()).unwrap();
    assert_eq!(root, truth);
    faulty.arm(ByteRange::new(5 * MIB, 8 * KIB), Fault::ReadError, u64::MAX);
    let error = back_up_all(&faulty, &first, &Gauge::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::Io);
    assert!(error.to_string().contains("of the source"), "{error}");
}

#[test]
fn a_repository_that_runs_full_fails_the_backup_and_shows_no_point() {
    let folder = tempfile::tempdir().unwrap();
    let files = Arc::new(FailingFiles::new(folder.path()));
    let repository = repository(files.clone());
    let mut disk = TrackedDisk::new(4 * MIB);
    disk.scribble(&SeededRandom::new(9), 40);
    let snapshot = disk.snapshot();
    for writes in 0..12 {
        files.fail_after(i64::MAX);
        let attempt = || -> Result<()> {
            let options = store::WriterOptions::default();
            let writer = repository.writer(options)?;
            files.fail_after(writes);
            back_up_all(&snapshot, &writer, &Gauge::default())?;
            // All blocks may fit into one pack that is only written at the end.
            writer.put_file("x", b"x")?;
            files.fail_after(0);
            writer.tree(ByteCount(1), None)?.finish().map(drop)?;
            Err(Error::new(Kind::Full, "test.end", "reached the end"))
        };
        assert_eq!(attempt().unwrap_err().kind(), Kind::Full, "{writes}");
    }
    files.fail_after(i64::MAX);
    assert!(repository.points().unwrap().points.is_empty());
    // And with room again all is well.
    let again = writer(&repository);
    let root = back_up_all(&snapshot, &again, &Gauge::default()).unwrap();
    let point = publish(&again, snapshot.size(), root);
    assert!(restored(&repository, &point) == disk.bytes);
}

#[test]
fn a_restore_fails_with_its_target_and_stops_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let repository = repository_in(&folder);
    let mut disk = TrackedDisk::new(8 * MIB);
    disk.scribble(&SeededRandom::new(3), 60);
    let first = writer(&repository);
    let root = back_up_all(&disk.snapshot(), &first, &Gauge::default()).unwrap();
    let point = publish(&first, ByteCount(8 * MIB), root);
    let reader = repository.open_disk(&point, "vda").unwrap();
    let stored = StoredDisk {
        repository: &repository,
        root,
        reader: &reader,
    };
    let run = |disk: &dyn base::block::BlockWrite, cancel: &Cancel| {
        let target = Target { disk, blank: true };
        restore(&stored, &target, &Gauge::default(), cancel)
    };
    let faulty = FaultDisk::new(MemoryDisk::new(ByteCount(8 * MIB)).unwrap());
    faulty.arm(ByteRange::new(0, 8 * MIB), Fault::Full, 1);
    assert_eq!(run(&faulty, &Cancel::new()).unwrap_err().kind(), Kind::Full);
    let cancel = Cancel::new();
    cancel.cancel();
    faulty.disarm();
    assert_eq!(run(&faulty, &cancel).unwrap_err().kind(), Kind::Cancelled);
    let small = MemoryDisk::new(ByteCount(8 * MIB - 512)).unwrap();
    assert_eq!(
        run(&small, &Cancel::new()).unwrap_err().code(),
        "mover.restore.target-small"
    );
    let larger = MemoryDisk::new(ByteCount(9 * MIB)).unwrap();
    run(&larger, &Cancel::new()).unwrap();
    assert!(larger.to_vec()[..8 << 20] == disk.bytes);
}
