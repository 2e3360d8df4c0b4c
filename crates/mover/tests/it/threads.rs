//! What must be measured in a process of its own: threads that stay, memory at its highest.

use crate::world::{ComputedDisk, Nowhere, TrackedDisk, back_up_all, environment, publish, writer};
use base::cancel::Cancel;
use base::os::OsFiles;
use base::random::SeededRandom;
use base::size::{ByteCount, ByteRange, MIB};
use disk::layer::{Fault, FaultDisk};
use mover::pipeline::gauge::Gauge;
use mover::pipeline::restore::{StoredDisk, Target, restore};
use std::process::Command;
use std::sync::Arc;
use store::{CreateOptions, Repository};

/// Runs one ignored test of this file in a process of its own.
fn alone(test: &str) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            &format!("threads::{test}"),
            "--nocapture",
        ])
        .arg("--test-threads=1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}\n{output:?}"
    );
    print!("{text}");
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

/// Waits until there are as many threads as before. A thread that was waited for has ended its
/// work, but the kernel may still be tidying it away.
fn back_to(before: usize) {
    let start = std::time::Instant::now();
    while threads() > before {
        assert!(
            start.elapsed().as_secs() < 5,
            "{} threads, {before} before",
            threads()
        );
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Bytes of memory at the highest, from `/proc/self/status`.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
fn no_thread_stays_after_any_end() {
    alone("inner_threads");
}

#[test]
#[ignore = "started by no_thread_stays_after_any_end in a process of its own"]
fn inner_threads() {
    let folder = tempfile::tempdir().unwrap();
    let repository = crate::world::repository_in(&folder);
    let mut disk = TrackedDisk::new(8 * MIB);
    disk.scribble(&SeededRandom::new(5), 60);
    let before = threads();
    let first = writer(&repository);
    for place in [0, 3 * MIB, 8 * MIB - 4096] {
        let faulty = FaultDisk::new(disk.snapshot());
        faulty.arm(ByteRange::new(place, 4096), Fault::ReadError, u64::MAX);
        // Where that page is zero nothing is read there and all is well; both ends count.
        drop(back_up_all(&faulty, &first, &Gauge::default()));
        back_to(before);
    }
    let root = back_up_all(&disk.snapshot(), &first, &Gauge::default()).unwrap();
    let point = publish(&first, ByteCount(8 * MIB), root);
    back_to(before);
    let reader = repository.open_disk(&point, "vda").unwrap();
    let stored = StoredDisk {
        repository: &repository,
        root,
        reader: &reader,
    };
    let target = FaultDisk::new(base::memory::MemoryDisk::new(ByteCount(8 * MIB)).unwrap());
    target.arm(ByteRange::new(0, 8 * MIB), Fault::WriteError, 1);
    let target = Target {
        disk: &target,
        blank: true,
    };
    assert!(restore(&stored, &target, &Gauge::default(), &Cancel::new()).is_err());
    back_to(before);
}

#[test]
fn memory_stays_bounded_whatever_the_size() {
    alone("inner_memory");
}

#[test]
#[ignore = "started by memory_stays_bounded_whatever_the_size in a process of its own"]
fn inner_memory() {
    let folder = tempfile::tempdir().unwrap();
    let files = Arc::new(OsFiles::open(folder.path()).unwrap());
    let options = CreateOptions {
        reserve: Some(ByteCount(MIB)),
        ..CreateOptions::default()
    };
    let repository = Repository::create(files, environment(), &options).unwrap();
    // 384 MiB of data spread over 384 GiB.
    let disk = ComputedDisk {
        size: 384 << 30,
        data_in: 1024,
    };
    let first = writer(&repository);
    let gauge = Gauge::default();
    let root = back_up_all(&disk, &first, &gauge).unwrap();
    assert_eq!(gauge.counters().read, ByteCount(384 * MIB));
    let point = publish(&first, ByteCount(disk.size), root);
    let backup = peak_memory();
    let reader = repository.open_disk(&point, "vda").unwrap();
    let stored = StoredDisk {
        repository: &repository,
        root,
        reader: &reader,
    };
    let nowhere = Nowhere(disk.size);
    let target = Target {
        disk: &nowhere,
        blank: true,
    };
    restore(&stored, &target, &Gauge::default(), &Cancel::new()).unwrap();
    println!(
        "peak memory: backup {} MiB, with restore {} MiB",
        backup / MIB,
        peak_memory() / MIB
    );
    assert!(backup < 256 * MIB, "{backup}");
    assert!(peak_memory() < 300 * MIB);
}
