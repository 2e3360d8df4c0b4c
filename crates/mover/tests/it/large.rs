//! The cost of an incremental follows the change, not the disk: the same change on disks of 2 GiB,
//! 20 GiB and 1 TiB.

use crate::commands::{Ask, access, draft, order};
use crate::world::point_id;
use base::size::{ByteCount, GIB, KIB, MIB};
use mover::executor::Executor;
use protocol::words::agent::{AgentRequest as Q, DiskOrder, DiskSource, ReadMode, TaskEnd};
use protocol::words::counters::Counters;
use protocol::words::repository::{Compression, RepositoryOptions};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command};

/// Changed granules: as many as make 64 MiB.
const CHANGES: u64 = 1024;
const GRANULE: u64 = 64 * KIB;

fn run(program: &str, arguments: &[String]) {
    let status = Command::new(program).args(arguments).status();
    let status = status.unwrap_or_else(|error| {
        panic!("{program}: {error}; install it: apt-get install qemu-utils")
    });
    assert!(status.success(), "{program}");
}

/// Writes granules scattered over the first 2 GiB, in one go.
fn scatter(image: &Path, pattern: u8, step: u64) {
    let mut arguments = vec!["-f".to_owned(), "qcow2".to_owned()];
    for number in 0..CHANGES {
        // An odd stride: all places differ, and neighbours lie far from each other.
        let place = (number * step % (2 * GIB / GRANULE)) * GRANULE;
        arguments.push("-c".to_owned());
        // Many different blocks, so that the lists of them do not compress to nothing.
        let pattern = u64::from(pattern) + number % 200;
        arguments.push(format!("write -q -P {pattern} {place} {GRANULE}"));
    }
    arguments.push(image.display().to_string());
    run("qemu-io", &arguments);
}

struct Nbd(Child);

impl Drop for Nbd {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn export(image: &Path, socket: &Path) -> Nbd {
    let flags = [
        "-f", "qcow2", "-r", "-A", "-B", "b0", "-x", "vda", "-t", "-k",
    ];
    let mut command = Command::new("qemu-nbd");
    let mut child = Nbd(command.args(flags).arg(socket).arg(image).spawn().unwrap());
    while !socket.exists() {
        assert!(child.0.try_wait().unwrap().is_none(), "qemu-nbd ended");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    child
}

/// Bytes of all files below a folder.
fn bytes_in(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap();
    entries
        .map(|entry| {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                bytes_in(&entry.path())
            } else {
                entry.metadata().unwrap().len()
            }
        })
        .sum()
}

/// Bytes of tree nodes and index in a repository.
fn metadata(repository: &Path) -> u64 {
    bytes_in(&repository.join("packs/tree")) + bytes_in(&repository.join("index"))
}

/// The counters of the incremental of one such change on a disk of this size, and by how many bytes
/// the repository's metadata grew.
fn incremental(size: u64) -> (Counters, ByteCount) {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.qcow2");
    let path = image.display().to_string();
    let words = |words: &[&str]| {
        words
            .iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    run(
        "qemu-img",
        &words(&["create", "-q", "-f", "qcow2", &path, &size.to_string()]),
    );
    scatter(&image, 1, 7919);
    let executor = Executor::of_this_machine();
    let begin = |point| Q::BeginPoint {
        point,
        compression: Compression::Fast,
    };
    let repository = folder.path().join("repository");
    executor
        .ask(Q::CreateRepository {
            access: access(&repository, None),
            options: RepositoryOptions::default(),
        })
        .unwrap();
    let base = point_id();
    executor.ask(begin(base)).unwrap();
    let full = executor.run(Q::CopyDisk {
        order: order("vda", &image, size),
    });
    assert!(matches!(full.end, Some(TaskEnd::Disk(_))), "{full:?}");
    let commit = || Q::CommitPoint {
        draft: draft(),
        trackers: BTreeMap::new(),
    };
    executor.ask(commit()).unwrap();
    let before = metadata(&repository);

    run(
        "qemu-img",
        &words(&["bitmap", "--add", "-f", "qcow2", &path, "b0"]),
    );
    scatter(&image, 2, 104_729);
    let socket = folder.path().join("nbd.sock");
    let _server = export(&image, &socket);
    executor.ask(begin(point_id())).unwrap();
    let report = executor.run(Q::CopyDisk {
        order: DiskOrder {
            source: Some(DiskSource::NbdUnix {
                socket: socket.display().to_string(),
                export: "vda".to_owned(),
                changed: Some("qemu:dirty-bitmap:b0".to_owned()),
            }),
            base: Some(base),
            mode: ReadMode::Changed,
            ..order("vda", &image, size)
        },
    });
    assert!(matches!(report.end, Some(TaskEnd::Disk(_))), "{report:?}");
    executor.ask(commit()).unwrap();
    let grown = metadata(&repository) - before;
    (report.counters, ByteCount(grown))
}

#[test]
fn the_same_change_costs_the_same_on_a_small_and_on_a_huge_disk() {
    let marked = CHANGES * GRANULE;
    assert_eq!(marked, 64 * MIB);
    let (_, small) = incremental(2 * GIB);
    assert!(small.0 > 0);
    for size in [20 * GIB, 1024 * GIB] {
        let (large, grown) = incremental(size);
        let size = ByteCount(size);
        println!(
            "{size}: read {}, metadata {grown} (2 GiB: {small})",
            large.read
        );
        assert_eq!(large.changed, ByteCount(marked), "{size}");
        assert!(
            large.read.0 <= marked + marked / 10,
            "{} read on {size}",
            large.read
        );
        // A level more of the tree: the paths to the changed windows are longer, nothing else.
        assert!(
            grown.0 <= small.0 * 3 / 2,
            "{grown} on {size}, {small} on 2 GiB"
        );
    }
}
