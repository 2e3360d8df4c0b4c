//! The straight line: create, write, commit, open, read back.

use crate::support::*;
use base::Kind;
use base::block::{BlockRead, all_extents};
use base::size::{ByteCount, ByteRange};
use std::sync::Arc;
use store::*;

#[test]
fn what_is_written_reads_back_also_after_opening_again() {
    for password in [None, Some("sesame")] {
        let place = place();
        let repository =
            Repository::create(Arc::clone(&place.files), environment(1), &options(password))
                .unwrap();
        let bytes = sample(3, 1_300_000);
        let point = backup(&repository, "web", &bytes).unwrap();
        assert!(point.counters.new.0 > 0 && point.counters.stored.0 > 0);
        assert_eq!(read_disk(&repository, &point).unwrap(), bytes);

        let password = password.map(Password::new);
        let again =
            Repository::open(Arc::clone(&place.files), environment(2), password.as_ref()).unwrap();
        let list = again.points().unwrap();
        assert_eq!(list.points, std::slice::from_ref(&point));
        assert_eq!(read_disk(&again, &list.points[0]).unwrap(), bytes);
        assert_eq!(
            again.read_file(&point, "machine.xml").unwrap(),
            b"<domain>web</domain>"
        );
        let info = again.info().unwrap();
        assert_eq!(info.encrypted, password.is_some());
        assert!(info.pack_count > 2 && info.blocks > 50);
    }
}

#[test]
fn equal_content_has_an_equal_root_and_stores_nothing_twice() {
    let place = place();
    let repository = create(&place);
    let bytes = sample(4, 900_000);
    let first = backup(&repository, "one", &bytes).unwrap();
    let second = backup(&repository, "two", &bytes).unwrap();
    assert_eq!(first.disks[0].root, second.disks[0].root);
    assert_eq!(
        second.counters.new,
        ByteCount(20),
        "only its configuration is new"
    );
}

#[test]
fn extents_tell_zeros() {
    let place = place();
    let repository = create(&place);
    let mut bytes = vec![0; 700_000];
    bytes[300_000..320_000].fill(1);
    let point = backup(&repository, "holes", &bytes).unwrap();
    let reader = repository.open_disk(&point, "vda").unwrap();
    let extents = all_extents(&reader, ByteRange::new(0, 700_000)).unwrap();
    for extent in &extents {
        let start = extent.range.offset.0 as usize;
        let end = extent.range.end().0 as usize;
        if extent.kind == base::block::ExtentKind::Zero {
            assert!(bytes[start..end].iter().all(|byte| *byte == 0));
        }
    }
    let data: u64 = extents
        .iter()
        .filter(|extent| extent.kind == base::block::ExtentKind::Data)
        .map(|extent| extent.range.length.0)
        .sum();
    assert!((20_000..30_000).contains(&data), "{data}");
    let mut beyond = [0; 10];
    assert!(
        reader
            .read_at(base::size::ByteOffset(699_999), &mut beyond)
            .is_err()
    );
}

#[test]
fn a_wrong_password_a_missing_one_and_no_repository() {
    let place = place();
    let open = |password: Option<&str>| {
        let password = password.map(Password::new);
        Repository::open(Arc::clone(&place.files), environment(2), password.as_ref()).map(|_| ())
    };
    assert_eq!(open(None).unwrap_err().code(), "store.repository.not-found");
    Repository::create(
        Arc::clone(&place.files),
        environment(1),
        &options(Some("sesame")),
    )
    .unwrap();
    assert_eq!(
        open(Some("Sesame")).unwrap_err().code(),
        "store.password.wrong"
    );
    assert_eq!(open(None).unwrap_err().code(), "store.password.missing");
    open(Some("sesame")).unwrap();
    let twice = Repository::create(Arc::clone(&place.files), environment(1), &options(None));
    assert_eq!(twice.unwrap_err().code(), "store.repository.exists");
}

#[test]
fn a_folder_with_other_things_is_left_alone() {
    let place = place();
    std::fs::write(place.folder.path().join("thesis.txt"), "mine").unwrap();
    let made = Repository::create(Arc::clone(&place.files), environment(1), &options(None));
    assert_eq!(
        made.unwrap_err().code(),
        "store.repository.folder-not-empty"
    );
    assert_eq!(std::fs::read_dir(place.folder.path()).unwrap().count(), 1);
}

#[test]
fn changes_alone_give_the_root_of_a_full_read() {
    let place = place();
    let repository = create(&place);
    // 200 windows: two levels of inner nodes.
    let mut bytes = sample(5, 200 * 65536 + 12345);
    let mut point = backup(&repository, "grown", &bytes).unwrap();
    for round in 0..6u64 {
        let start = (round as usize * 1_700_003) % (bytes.len() - 70_000);
        bytes[start..start + 66_000].copy_from_slice(&noise(round + 50, 66_000));
        let dirty = ByteRange::new(start as u64, 66_000);
        let mut all = vec![dirty];
        match round {
            2 => {
                let old = bytes.len() as u64;
                bytes.extend(noise(77, 300_000));
                all.push(ByteRange::new(old, 300_000));
            }
            3 => bytes.truncate(bytes.len() - 450_001),
            4 => bytes.truncate(100 * 65536),
            _ => {}
        }
        let size = bytes.len() as u64;
        let whole = ByteRange::new(0, size);
        let all: Vec<ByteRange> = all.iter().filter_map(|r| r.intersection(&whole)).collect();
        let next = backup_changes(&repository, &point, &bytes, &all).unwrap();
        assert_eq!(
            read_disk(&repository, &next).unwrap(),
            bytes,
            "round {round}"
        );
        let full = backup(&repository, "full", &bytes).unwrap();
        assert_eq!(full.disks[0].root, next.disks[0].root, "round {round}");
        if bytes.len() as u64 == point.disks[0].size.0 {
            let found = repository
                .diff(&point.disks[0].root, &next.disks[0].root)
                .unwrap();
            assert!(
                found
                    .iter()
                    .any(|range| range.intersection(&dirty).is_some())
            );
            let total: u64 = found.iter().map(|range| range.length.0).sum();
            assert!(total < 66_000 + 200_000, "{total}");
        }
        point = next;
    }
}

#[test]
fn blocks_nobody_stored_and_windows_set_twice_are_refused() {
    let place = place();
    let repository = create(&place);
    let writer = repository.writer(WriterOptions::default()).unwrap();
    let tree = writer.tree(ByteCount(300_000), None).unwrap();
    let lie = [Segment {
        length: 65536,
        block: Some(BlockId::from_bytes([3; 32])),
    }];
    assert_eq!(
        tree.set_window(0, &lie).unwrap_err().code(),
        "store.block.unknown"
    );
    let short = [Segment {
        length: 4096,
        block: Some(BlockId::from_bytes([3; 32])),
    }];
    assert_eq!(
        tree.set_window(0, &short).unwrap_err().code(),
        "store.leaf.malformed"
    );
    tree.set_window(1, &[]).unwrap();
    assert_eq!(
        tree.set_window(1, &[]).unwrap_err().code(),
        "store.tree.window-twice"
    );
    assert_eq!(
        tree.set_window(5, &[]).unwrap_err().code(),
        "store.tree.window-outside"
    );
    let root = Root::from_bytes([9; 32]);
    let refused = writer.commit(draft("x", vec![disk("vda", 300_000, root)], vec![]));
    assert_eq!(refused.unwrap_err().code(), "store.point.draft");
    assert_eq!(
        writer.tree(ByteCount(1), Some(root)).unwrap_err().kind(),
        Kind::Conflict
    );
}

#[test]
fn bytes_that_changed_on_the_way_are_refused_and_end_the_point() {
    let place = place();
    let repository = create(&place);
    let writer = repository.writer(WriterOptions::default()).unwrap();
    let id = writer.cutter().block_id(b"sent");
    let refused = writer.put(&[NewBlock { id, bytes: b"seNt" }]);
    assert_eq!(refused.unwrap_err().code(), "store.block.id-mismatch");
    let root = write_disk(&writer, &sample(1, 100_000)).unwrap();
    let refused = writer.commit(draft("x", vec![disk("vda", 100_000, root)], vec![]));
    assert_eq!(refused.unwrap_err().code(), "store.writer.failed");
    drop(writer);
    assert!(repository.points().unwrap().points.is_empty());
}

#[test]
fn an_empty_disk_and_an_odd_one() {
    let place = place();
    let repository = create(&place);
    for length in [0, 1, 511, 4096, 65536, 65537] {
        let bytes = noise(length as u64, length);
        let point = backup(&repository, "odd", &bytes).unwrap();
        assert_eq!(read_disk(&repository, &point).unwrap(), bytes);
    }
}
