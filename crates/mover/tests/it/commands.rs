//! Commands of the data plane, handed to an executor in this process.

use crate::world::point_id;
use base::id::{JobId, MachineId, PointId, SessionId};
use base::os::{OsClock, OsRandom};
use base::random::{Random, SeededRandom};
use base::size::{ByteCount, ByteRange, KIB, MIB};
use base::{Kind, Result};
use mover::executor::Executor;
use protocol::paging;
use protocol::words::agent::{
    AgentRequest as Q, AgentResponse as A, DiskOrder, DiskSource, ImageTarget, ReadMode, TaskEnd,
    TaskReport,
};
use protocol::words::point::{Consistency, Point, PointDraft, PointKind, PointMachine};
use protocol::words::repository::{
    Compression, RepositoryAccess, RepositoryLocation, RepositoryOptions,
};
use protocol::words::secret::Secret;
use std::collections::BTreeMap;
use std::path::Path;

/// Where a repository is.
pub fn access(folder: &Path, password: Option<&str>) -> RepositoryAccess {
    RepositoryAccess {
        location: RepositoryLocation::Folder {
            path: folder.display().to_string(),
        },
        password: password.map(Secret::new),
    }
}

/// Anything that does commands: an executor here, an agent elsewhere.
pub trait Ask {
    fn ask(&self, request: Q) -> Result<A>;

    /// Waits for a task's end.
    fn end(&self, task: u32) -> TaskReport {
        loop {
            let request = Q::Progress {
                task,
                wait_millis: 5000,
            };
            let A::Task(report) = self.ask(request).unwrap() else {
                panic!()
            };
            if report.end.is_some() {
                return *report;
            }
        }
    }

    /// Starts a task and waits for its end.
    fn run(&self, request: Q) -> TaskReport {
        match self.ask(request).unwrap() {
            A::Started(task) => self.end(task),
            other => panic!("{other:?}"),
        }
    }
}

impl Ask for Executor {
    fn ask(&self, request: Q) -> Result<A> {
        self.execute(request)
    }
}

/// All points of what is open there.
pub fn all_points(asked: &dyn Ask) -> Vec<Point> {
    paging::points(|request| asked.ask(request.clone())).unwrap()
}

/// An order for all of an image.
pub fn order(name: &str, path: &Path, size: u64) -> DiskOrder {
    DiskOrder {
        name: name.to_owned(),
        source: Some(DiskSource::Image {
            path: path.display().to_string(),
        }),
        size: ByteCount(size),
        base: None,
        mode: ReadMode::All,
        attributes: BTreeMap::from([("path".to_owned(), path.display().to_string())]),
    }
}

/// What to record with a point.
pub fn draft() -> PointDraft {
    PointDraft {
        machine: PointMachine {
            id: MachineId::of_platform("image", "web1"),
            name: "web1".to_owned(),
            platform: "image".to_owned(),
            platform_id: "web1".to_owned(),
            host: "here".to_owned(),
        },
        job: Some((JobId::generate(&OsClock, &OsRandom), "daily".to_owned())),
        session: SessionId::generate(&OsClock, &OsRandom),
        consistency: Consistency::PoweredOff,
        parent: None,
    }
}

/// A sparse image with some data.
pub fn write_image(path: &Path, size: u64, seed: u64) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::create(path).unwrap();
    file.set_len(size).unwrap();
    let random = SeededRandom::new(seed);
    for _ in 0..20 {
        let mut bytes = vec![0; (1 + random.below(300 * KIB)) as usize];
        random.fill(&mut bytes);
        file.write_all_at(&bytes, random.below(size - 300 * KIB))
            .unwrap();
    }
}

/// A new encrypted repository with one point of one image and a configuration.
pub fn back_up_image(asked: &dyn Ask, repository: &Path, image: &Path, size: u64) -> Point {
    let options = RepositoryOptions {
        encrypted: true,
        compression: Compression::Fast,
    };
    asked
        .ask(Q::CreateRepository {
            access: access(repository, Some("pw")),
            options,
        })
        .unwrap();
    let point = point_id();
    asked
        .ask(Q::BeginPoint {
            point,
            compression: Compression::Fast,
        })
        .unwrap();
    let report = asked.run(Q::CopyDisk {
        order: order("vda", image, size),
    });
    assert!(matches!(&report.end, Some(TaskEnd::Disk(disk)) if disk.kind == PointKind::Full));
    let config = b"<domain/>".to_vec();
    paging::put_file(|request| asked.ask(request.clone()), "domain.xml", &config).unwrap();
    let tracker = BTreeMap::from([("checkpoint".to_owned(), "c1".to_owned())]);
    let trackers = BTreeMap::from([("vda".to_owned(), tracker)]);
    match asked
        .ask(Q::CommitPoint {
            draft: draft(),
            trackers,
        })
        .unwrap()
    {
        A::Point(made) => {
            assert_eq!(made.id, point);
            *made
        }
        other => panic!("{other:?}"),
    }
}

fn restore_to(asked: &dyn Ask, point: PointId, path: &Path, format: &str) -> TaskReport {
    let target = ImageTarget {
        path: path.display().to_string(),
        format: format.to_owned(),
        overwrite: false,
    };
    asked.run(Q::RestoreDisk {
        point,
        disk: "vda".to_owned(),
        target,
    })
}

#[test]
fn an_image_goes_into_a_repository_and_comes_back_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let (image, repository_folder) = (
        folder.path().join("disk.raw"),
        folder.path().join("repository"),
    );
    let size = 20 * MIB + 512;
    write_image(&image, size, 1);
    let executor = Executor::of_this_machine();
    let made = back_up_image(&executor, &repository_folder, &image, size);
    assert_eq!(made.draft.machine, draft().machine);
    assert_eq!(made.disks[0].tracker["checkpoint"], "c1");
    assert_eq!(made.counters.processed, ByteCount(size));
    assert!(made.counters.stored.0 > 0 && made.counters.read.0 > 0);
    drop(executor);

    // Another process, another day: nothing but folder and password.
    let executor = Executor::of_this_machine();
    let wrong = executor.ask(Q::OpenRepository {
        access: access(&repository_folder, Some("no")),
    });
    assert_eq!(wrong.unwrap_err().kind(), Kind::Denied);
    executor
        .ask(Q::OpenRepository {
            access: access(&repository_folder, Some("pw")),
        })
        .unwrap();
    let points = all_points(&executor);
    assert_eq!(points.len(), 1);
    assert_eq!((points[0].id, &points[0].disks), (made.id, &made.disks));
    let root = made.disks[0].root;
    let (raw, qcow2) = (
        folder.path().join("out.raw"),
        folder.path().join("out.qcow2"),
    );
    for (path, format) in [(&raw, "raw"), (&qcow2, "qcow2")] {
        let report = restore_to(&executor, made.id, path, format);
        assert_eq!(report.end, Some(TaskEnd::Restored { root }), "{format}");
        assert_eq!(report.counters.done, ByteCount(size));
    }
    let truth = std::fs::read(&image).unwrap();
    assert!(std::fs::read(&raw).unwrap() == truth);
    let disk = disk::open(&qcow2).unwrap();
    let mut bytes = vec![0; size as usize];
    base::block::BlockRead::read_at(&disk, base::size::ByteOffset(0), &mut bytes).unwrap();
    assert!(bytes == truth);
    // What is there is not overwritten by accident, and is still whole.
    let report = restore_to(&executor, made.id, &raw, "raw");
    let Some(TaskEnd::Failed { code, .. }) = report.end else {
        panic!()
    };
    assert_eq!(code, "mover.target.exists");
    assert!(std::fs::read(&raw).unwrap() == truth);

    let read = |path: &str| paging::read_file(|q| executor.ask(q.clone()), made.id, path);
    assert_eq!(read("domain.xml").unwrap(), b"<domain/>");
    assert_eq!(read("nvram").unwrap_err().kind(), Kind::NotFound);
    let range = ByteRange::new(5, 100);
    let disk = "vda".to_owned();
    let bytes = executor
        .ask(Q::ReadDisk {
            point: made.id,
            disk,
            range,
        })
        .unwrap();
    assert_eq!(bytes, A::Bytes(truth[5..105].to_vec()));
    for read_data in [false, true] {
        let report = executor.run(Q::Verify {
            point: None,
            read_data,
        });
        let Some(TaskEnd::Verified { whole, damages, .. }) = report.end else {
            panic!()
        };
        assert_eq!((whole, damages), (vec![made.id], vec![]));
    }
}

#[test]
fn a_second_run_differs_by_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let (image, repository_folder) = (
        folder.path().join("disk.raw"),
        folder.path().join("repository"),
    );
    let size = 16 * MIB;
    write_image(&image, size, 2);
    let executor = Executor::of_this_machine();
    let first = back_up_image(&executor, &repository_folder, &image, size);
    let file = std::fs::File::options().write(true).open(&image).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[7; 4096], 9 * MIB).unwrap();
    drop(file);
    let point = point_id();
    executor
        .ask(Q::BeginPoint {
            point,
            compression: Compression::None,
        })
        .unwrap();
    let again = DiskOrder {
        base: Some(first.id),
        ..order("vda", &image, size)
    };
    let report = executor.run(Q::CopyDisk { order: again });
    assert!(
        report.counters.stored.0 < 600 * KIB,
        "{:?}",
        report.counters
    );
    executor
        .ask(Q::CommitPoint {
            draft: draft(),
            trackers: BTreeMap::new(),
        })
        .unwrap();
    let disk = "vda".to_owned();
    let diff = Q::DiffDisk {
        point: first.id,
        other: point,
        disk: disk.clone(),
        from: ByteCount(0),
    };
    let A::Ranges(ranges, None) = executor.ask(diff).unwrap() else {
        panic!()
    };
    assert!(
        ranges
            .iter()
            .any(|r| r.intersection(&ByteRange::new(9 * MIB, 4096)).is_some())
    );
    assert!(ranges.iter().map(|range| range.length.0).sum::<u64>() <= MIB);
    let map = Q::MapDisk {
        point,
        disk,
        from: ByteCount(0),
    };
    let A::Ranges(ranges, None) = executor.ask(map).unwrap() else {
        panic!()
    };
    assert!(ranges.windows(2).all(|pair| pair[0].end() < pair[1].offset));

    executor
        .ask(Q::DeletePoints {
            points: vec![first.id, first.id],
        })
        .unwrap();
    let report = executor.run(Q::Collect);
    assert!(
        matches!(report.end, Some(TaskEnd::Collected { .. })),
        "{report:?}"
    );
    let report = restore_to(&executor, point, &folder.path().join("back.raw"), "raw");
    assert!(matches!(report.end, Some(TaskEnd::Restored { .. })));
    let truth = std::fs::read(&image).unwrap();
    assert!(std::fs::read(folder.path().join("back.raw")).unwrap() == truth);
}

#[test]
fn commands_that_make_no_sense_now_are_refused_and_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (image, repository_folder) = (
        folder.path().join("disk.raw"),
        folder.path().join("repository"),
    );
    write_image(&image, 4 * MIB, 3);
    let executor = Executor::of_this_machine();
    let code = |request: Q| executor.ask(request).unwrap_err().code().to_owned();
    assert_eq!(
        code(Q::ListPoints { after: None }),
        "mover.repository.not-open"
    );
    assert_eq!(
        code(Q::Progress {
            task: 9,
            wait_millis: 0
        }),
        "mover.task.unknown"
    );
    let options = RepositoryOptions {
        encrypted: true,
        ..RepositoryOptions::default()
    };
    let without = Q::CreateRepository {
        access: access(&repository_folder, None),
        options,
    };
    assert_eq!(code(without), "mover.repository.password-missing");
    back_up_image(&executor, &repository_folder, &image, 4 * MIB);
    let copy = Q::CopyDisk {
        order: order("vda", &image, 4 * MIB),
    };
    assert_eq!(code(copy.clone()), "mover.point.none");
    let begin = Q::BeginPoint {
        point: point_id(),
        compression: Compression::Fast,
    };
    executor.ask(begin.clone()).unwrap();
    assert_eq!(code(begin), "mover.point.in-making");
    let reopen = Q::OpenRepository {
        access: access(&repository_folder, Some("pw")),
    };
    assert_eq!(code(reopen), "mover.repository.point-in-making");
    let bad_name = Q::CopyDisk {
        order: order("../vda", &image, 4 * MIB),
    };
    assert_eq!(code(bad_name), "mover.disk.name");
    // The wrong size: the disk fails, and its name is free again.
    let report = executor.run(Q::CopyDisk {
        order: order("vda", &image, 5 * MIB),
    });
    let Some(TaskEnd::Failed { code: failed, .. }) = report.end else {
        panic!()
    };
    assert_eq!(failed, "mover.source.size");
    executor.run(copy.clone());
    assert_eq!(code(copy), "mover.point.disk-exists");
    let changed = DiskOrder {
        mode: ReadMode::Changed,
        ..order("vdb", &image, 4 * MIB)
    };
    let report = executor.run(Q::CopyDisk { order: changed });
    let Some(TaskEnd::Failed { code: failed, .. }) = report.end else {
        panic!()
    };
    assert_eq!(failed, "mover.disk.no-base");
    executor.ask(Q::AbortPoint).unwrap();
    executor.ask(Q::AbortPoint).unwrap();
    assert_eq!(all_points(&executor).len(), 1);
}

#[test]
fn small_files_of_the_host_are_read_written_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nvram").display().to_string();
    let executor = Executor::of_this_machine();
    let write = Q::WriteHostFile {
        path: path.clone(),
        from: ByteCount::ZERO,
        bytes: b"vars".to_vec(),
        more: false,
    };
    executor.ask(write.clone()).unwrap();
    assert_eq!(executor.ask(write).unwrap_err().kind(), Kind::Exists);
    let read = |path: &str| paging::read_host_file(|q| executor.ask(q.clone()), path);
    assert_eq!(read(&path).unwrap(), b"vars");
    let folder_path = folder.path().display().to_string();
    let code = read(&folder_path).unwrap_err().code().to_owned();
    assert_eq!(code, "mover.file.not-a-file");
    let fifo = folder.path().join("fifo");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let code = read(&fifo.display().to_string())
        .unwrap_err()
        .code()
        .to_owned();
    assert_eq!(code, "mover.file.not-a-file");
    let remove = Q::RemoveHostFiles {
        paths: vec![path.clone(), path.clone()],
    };
    executor.ask(remove).unwrap();
    assert_eq!(read(&path).unwrap_err().kind(), Kind::NotFound);
    let remove = Q::RemoveHostFiles {
        paths: vec![folder_path],
    };
    assert_eq!(
        executor.ask(remove).unwrap_err().code(),
        "mover.file.not-a-file"
    );
}

#[test]
fn an_image_is_recognised_and_a_raw_one_cannot_pose_as_another() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("guest.raw");
    // A guest that wrote a qcow2 header with a backing file into its raw disk.
    let qcow2 = folder.path().join("real.qcow2");
    drop(disk::qcow2::create(&qcow2, ByteCount(MIB)).unwrap());
    let mut bytes = std::fs::read(&qcow2).unwrap();
    bytes.resize(MIB as usize, 0);
    std::fs::write(&path, &bytes).unwrap();
    let executor = Executor::of_this_machine();
    let probe = Q::ProbeImage {
        path: qcow2.display().to_string(),
    };
    let A::Image(image) = executor.ask(probe).unwrap() else {
        panic!()
    };
    assert_eq!(
        (image.format.as_str(), image.size),
        ("qcow2", ByteCount(MIB))
    );

    let mut order = order("vda", &path, MIB);
    order
        .attributes
        .insert("format".to_owned(), "raw".to_owned());
    let repository_folder = folder.path().join("repository");
    let options = RepositoryOptions::default();
    executor
        .ask(Q::CreateRepository {
            access: access(&repository_folder, None),
            options,
        })
        .unwrap();
    let point = point_id();
    executor
        .ask(Q::BeginPoint {
            point,
            compression: Compression::Fast,
        })
        .unwrap();
    let report = executor.run(Q::CopyDisk { order });
    assert!(matches!(report.end, Some(TaskEnd::Disk(_))), "{report:?}");
    executor
        .ask(Q::CommitPoint {
            draft: draft(),
            trackers: BTreeMap::new(),
        })
        .unwrap();
    let out = folder.path().join("out.raw");
    restore_to(&executor, point, &out, "raw");
    assert!(std::fs::read(&out).unwrap() == bytes);
}

#[test]
fn pieces_must_follow_each_other_and_unfinished_files_do_not_stay() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nvram");
    let executor = Executor::of_this_machine();
    let host_piece = |from: u64, bytes: &[u8], more| {
        executor.ask(Q::WriteHostFile {
            path: path.display().to_string(),
            from: ByteCount(from),
            bytes: bytes.to_vec(),
            more,
        })
    };
    let code = |result: Result<A>| result.unwrap_err().code().to_owned();
    assert_eq!(code(host_piece(3, b"x", true)), "mover.file.out-of-order");
    assert!(!path.exists());
    host_piece(0, b"abc", true).unwrap();
    assert_eq!(
        host_piece(0, b"abc", true).unwrap_err().kind(),
        Kind::Exists
    );
    assert_eq!(code(host_piece(2, b"x", true)), "mover.file.out-of-order");
    assert!(!path.exists(), "what went wrong is removed");
    host_piece(0, b"abc", true).unwrap();
    host_piece(3, b"", true).unwrap();
    host_piece(3, b"def", false).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"abcdef");

    let create = Q::CreateRepository {
        access: access(&folder.path().join("repository"), None),
        options: RepositoryOptions::default(),
    };
    executor.ask(create).unwrap();
    let begin = || Q::BeginPoint {
        point: point_id(),
        compression: Compression::Fast,
    };
    executor.ask(begin()).unwrap();
    let piece = |from: u64, bytes: &[u8], more| {
        executor.ask(Q::PutFile {
            path: "kernel".to_owned(),
            from: ByteCount(from),
            bytes: bytes.to_vec(),
            more,
        })
    };
    assert_eq!(code(piece(3, b"x", false)), "mover.file.out-of-order");
    assert_eq!(piece(0, b"abc", true).unwrap(), A::Done);
    let commit = || {
        executor.ask(Q::CommitPoint {
            draft: draft(),
            trackers: BTreeMap::new(),
        })
    };
    assert_eq!(code(commit()), "mover.point.file-unfinished");
    let large = vec![0; base::limit::POINT_FILE_SIZE_MAX as usize];
    assert_eq!(code(piece(3, &large, false)), "mover.file.too-large");
    assert_eq!(piece(0, b"abc", true).unwrap(), A::Done);
    assert!(matches!(piece(3, b"d", false), Ok(A::File(file)) if file.size == ByteCount(4)));
    assert_eq!(code(piece(0, b"again", false)), "mover.point.file-exists");
    let A::Point(point) = commit().unwrap() else {
        panic!()
    };
    let read = paging::read_file(|q| executor.ask(q.clone()), point.id, "kernel");
    assert_eq!(read.unwrap(), b"abcd");

    let other = folder.path().join("other");
    let unfinished = Q::WriteHostFile {
        path: other.display().to_string(),
        from: ByteCount::ZERO,
        bytes: b"half".to_vec(),
        more: true,
    };
    executor.ask(unfinished).unwrap();
    assert!(other.exists());
    drop(executor);
    assert!(!other.exists());
}

#[test]
fn transferred_is_what_the_repository_lacked_and_verify_counts_stored_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.raw");
    let size = 40 * MIB;
    write_image(&image, size, 3);
    let executor = Executor::of_this_machine();
    let made = back_up_image(&executor, &folder.path().join("repository"), &image, size);
    let first = made.counters;
    assert!(
        first.transferred.0 > 0 && first.transferred <= first.read,
        "{first:?}"
    );
    assert!(first.read.0 < size, "zeros are not read: {first:?}");
    // The same again: all is read, nothing is new.
    let begin = Q::BeginPoint {
        point: point_id(),
        compression: Compression::Fast,
    };
    executor.ask(begin).unwrap();
    let again = executor.run(Q::CopyDisk {
        order: order("vda", &image, size),
    });
    assert_eq!(again.counters.read, first.read);
    assert_eq!(again.counters.transferred, ByteCount::ZERO);
    executor.ask(Q::AbortPoint).unwrap();

    let verify = |read_data| {
        executor.run(Q::Verify {
            point: None,
            read_data,
        })
    };
    let structure = verify(false).counters;
    assert_eq!((structure.processed, structure.done), Default::default());
    let data = verify(true).counters;
    assert!(data.processed.0 > MIB, "{data:?}");
    assert_eq!(data.read, data.processed);
    assert_eq!(data.done, data.processed);
    assert_eq!(executor.run(Q::Collect).counters.processed, ByteCount::ZERO);
}
