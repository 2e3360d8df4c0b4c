//! Freeing room beside everybody else, from a full disk too.

use crate::support::*;
use base::Kind;
use base::block::BlockRead;
use base::size::{ByteCount, ByteOffset};
use std::sync::Arc;
use store::*;

fn collect(repository: &Repository) -> CollectReport {
    repository
        .collect(&CollectOptions::default(), &|_| {})
        .unwrap()
}

fn assert_clean(repository: &Repository) {
    let options = VerifyOptions {
        read_data: true,
        ..VerifyOptions::default()
    };
    let report = repository.verify(&options, &|_| {}).unwrap();
    assert!(report.is_clean(), "{:?}", report.damage);
}

#[test]
fn a_deleted_point_frees_what_only_it_held() {
    let place = place();
    let repository = create(&place);
    let (a, b) = (noise(1, 1_000_000), noise(2, 1_000_000));
    let first = backup(&repository, "a", &a).unwrap();
    let second = backup(&repository, "b", &b).unwrap();
    let before = repository.info().unwrap().packs;
    repository.delete_point(first.id).unwrap();
    assert_eq!(
        repository.delete_point(first.id).unwrap_err().code(),
        "store.point.not-found"
    );
    assert_eq!(
        repository.point(first.id).unwrap_err().code(),
        "store.point.not-found"
    );
    let report = collect(&repository);
    assert!(report.removed > 0 && report.forgotten == 1, "{report:?}");
    let after = repository.info().unwrap().packs;
    assert!(after.0 < before.0 * 6 / 10, "{before} to {after}");
    assert_eq!(read_disk(&repository, &second).unwrap(), b);
    assert_clean(&repository);
    repository.delete_point(second.id).unwrap();
    collect(&repository);
    let info = repository.info().unwrap();
    assert_eq!(
        (info.packs, info.pack_count, info.blocks),
        (ByteCount(0), 0, 0)
    );
    let again = backup(&repository, "a", &a).unwrap();
    assert_eq!(read_disk(&repository, &again).unwrap(), a);
}

#[test]
fn a_second_collection_finds_nothing_to_do() {
    let place = place();
    let repository = create(&place);
    let point = backup(&repository, "a", &sample(1, 1_000_000)).unwrap();
    backup(&repository, "b", &sample(2, 1_000_000)).unwrap();
    repository.delete_point(point.id).unwrap();
    collect(&repository);
    let second = collect(&repository);
    assert_eq!(
        (second.retired, second.removed, second.rewritten),
        (0, 0, 0),
        "{second:?}"
    );
}

#[test]
fn sparse_packs_are_rewritten() {
    let place = place();
    let repository = create(&place);
    let mut bytes = noise(5, 2_000_000);
    let first = backup(&repository, "a", &bytes).unwrap();
    let keep = bytes[..200_000].to_vec();
    bytes = noise(6, 2_000_000);
    bytes[..200_000].copy_from_slice(&keep);
    let second = backup(&repository, "b", &bytes).unwrap();
    repository.delete_point(first.id).unwrap();
    let options = CollectOptions {
        rewrite_below_percent: 95,
        ..CollectOptions::default()
    };
    let dry = CollectOptions {
        dry_run: true,
        ..options.clone()
    };
    let told = repository.collect(&dry, &|_| {}).unwrap();
    let report = repository.collect(&options, &|_| {}).unwrap();
    assert!(report.rewritten > 0, "{report:?}");
    assert_eq!(
        (told.retired, told.rewritten),
        (report.retired, report.rewritten)
    );
    assert_eq!(read_disk(&repository, &second).unwrap(), bytes);
    assert_clean(&repository);
    let info = repository.info().unwrap();
    assert!(info.packs.0 < 2_300_000, "{info:?}");
}

#[test]
fn a_living_writer_keeps_what_it_found() {
    let place = place();
    let repository = create(&place);
    let bytes = noise(1, 600_000);
    let point = backup(&repository, "a", &bytes).unwrap();
    // The writer finds the blocks, then the only point that holds them goes.
    let writer = repository.writer(WriterOptions::default()).unwrap();
    let root = write_disk(&writer, &bytes).unwrap();
    repository.delete_point(point.id).unwrap();
    let report = collect(&repository);
    assert!(
        report.retired > 0 && report.removed == 0 && report.waiting.0 > 0,
        "{report:?}"
    );
    // A writer that begins now must not use what is retired.
    let late = repository.writer(WriterOptions::default()).unwrap();
    let id = late
        .cutter()
        .block_id(&bytes[..late.cutter().cut(&bytes[..65536])[0].range.end]);
    assert_eq!(writer.have(&[id]).unwrap(), [true]);
    assert_eq!(late.have(&[id]).unwrap(), [false]);
    drop(late);
    let again = writer
        .commit(draft("a", vec![disk("vda", bytes.len(), root)], vec![]))
        .unwrap();
    drop(writer);
    let report = collect(&repository);
    assert!(report.rescued > 0, "{report:?}");
    assert_eq!(read_disk(&repository, &again).unwrap(), bytes);
    assert_clean(&repository);
}

#[test]
fn what_a_dead_writer_left_is_removed() {
    let place = place();
    let repository = create(&place);
    let kept = backup(&repository, "kept", &noise(9, 300_000)).unwrap();
    let writer = repository.writer(WriterOptions::default()).unwrap();
    write_disk(&writer, &noise(1, 1_000_000)).unwrap();
    let report = collect(&repository);
    assert_eq!(
        (report.retired, report.fenced),
        (0, 0),
        "a living writer's packs stay"
    );
    assert!(repository.info().unwrap().packs.0 > 1_000_000);
    writer.abort().unwrap();
    collect(&repository);
    assert!(repository.info().unwrap().packs.0 < 400_000);
    assert_eq!(read_disk(&repository, &kept).unwrap(), noise(9, 300_000));
    assert_clean(&repository);
}

#[test]
fn a_fenced_writer_cannot_publish() {
    let place = place();
    let repository = create(&place);
    let writer = repository.writer(WriterOptions::default()).unwrap();
    let root = write_disk(&writer, &noise(1, 200_000)).unwrap();
    // As if the lock had been lost without the process noticing.
    let folder = place.folder.path();
    let from = folder.join(format!("writers/{}", writer.id()));
    std::fs::rename(from, folder.join(format!("fenced/{}", writer.id()))).unwrap();
    let refused = writer.commit(draft("a", vec![disk("vda", 200_000, root)], vec![]));
    let error = refused.unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (Kind::Conflict, "store.writer.fenced")
    );
    assert!(repository.points().unwrap().points.is_empty());
}

#[test]
fn an_open_reader_outlives_its_point() {
    let place = place();
    let repository = create(&place);
    let other = Repository::open(Arc::clone(&place.files), environment(9), None).unwrap();
    let bytes = sample(1, 1_500_000);
    let point = backup(&repository, "a", &bytes).unwrap();
    let reader = other.open_disk(&point, "vda").unwrap();
    repository.delete_point(point.id).unwrap();
    collect(&repository);
    let mut back = vec![0; bytes.len()];
    reader.read_at(ByteOffset(0), &mut back).unwrap();
    assert_eq!(back, bytes);
    assert_eq!(
        other.open_disk(&point, "vda").err().unwrap().code(),
        "store.point.not-found"
    );
    drop(reader);
    collect(&repository);
    assert_eq!(repository.info().unwrap().pack_count, 0);
}

#[test]
fn a_reader_follows_blocks_that_were_moved() {
    let place = place();
    let repository = create(&place);
    let other = Repository::open(Arc::clone(&place.files), environment(9), None).unwrap();
    let mut bytes = noise(5, 2_000_000);
    let first = backup(&repository, "a", &bytes).unwrap();
    bytes[200_000..].copy_from_slice(&noise(6, 1_800_000));
    let second = backup(&repository, "b", &bytes).unwrap();
    let reader = other.open_disk(&second, "vda").unwrap();
    repository.delete_point(first.id).unwrap();
    let options = CollectOptions {
        rewrite_below_percent: 95,
        ..CollectOptions::default()
    };
    assert!(repository.collect(&options, &|_| {}).unwrap().rewritten > 0);
    let mut back = vec![0; bytes.len()];
    reader.read_at(ByteOffset(0), &mut back).unwrap();
    assert_eq!(back, bytes);
}

#[test]
fn two_collections_at_once_are_refused_and_so_is_damage() {
    let place = place();
    let repository = create(&place);
    let point = backup(&repository, "a", &noise(1, 500_000)).unwrap();
    let lost = backup(&repository, "b", &noise(2, 500_000)).unwrap();
    let lock = place
        .files
        .try_lock(&base::files::Path::new("collect/lock").unwrap())
        .unwrap();
    let busy = repository.collect(&CollectOptions::default(), &|_| {});
    assert_eq!(busy.unwrap_err().code(), "store.collect.busy");
    drop(lock);
    // A point that cannot be read: what it holds is not known, so nothing may go.
    let record = place.folder.path().join(format!("points/{}", lost.id));
    let mut bytes = std::fs::read(&record).unwrap();
    bytes[150] ^= 1;
    std::fs::write(&record, bytes).unwrap();
    repository.delete_point(point.id).unwrap();
    let before = repository.info().unwrap().packs;
    let refused = repository.collect(&CollectOptions::default(), &|_| {});
    assert_eq!(refused.unwrap_err().code(), "store.collect.incomplete");
    assert_eq!(repository.info().unwrap().packs, before);
    // Deleting the damaged point is the way out.
    repository.delete_point(lost.id).unwrap();
    collect(&repository);
    assert_eq!(repository.info().unwrap().pack_count, 0);
}

#[test]
fn two_writers_at_once_share_and_both_arrive() {
    let place = place();
    let repository = create(&place);
    let shared = noise(1, 800_000);
    std::thread::scope(|scope| {
        for number in 0..3u64 {
            let (repository, shared) = (repository.clone(), shared.clone());
            scope.spawn(move || {
                let mut bytes = shared;
                bytes.extend(noise(number + 10, 300_000));
                let point = backup(&repository, "m", &bytes).unwrap();
                assert_eq!(read_disk(&repository, &point).unwrap(), bytes);
            });
        }
        let repository = repository.clone();
        scope.spawn(move || {
            for _ in 0..5 {
                collect(&repository);
            }
        });
    });
    assert_eq!(repository.points().unwrap().points.len(), 3);
    assert_clean(&repository);
    collect(&repository);
    assert_clean(&repository);
}

#[test]
fn threads_of_one_writer_work_together() {
    let place = place();
    let repository = create(&place);
    let bytes = sample(8, 6_000_000);
    let writer = repository.writer(WriterOptions::default()).unwrap();
    let tree = writer.tree(ByteCount(bytes.len() as u64), None).unwrap();
    let next = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if index >= tree.window_count() {
                        break;
                    }
                    let start = index as usize * 65536;
                    let window = &bytes[start..(start + 65536).min(bytes.len())];
                    tree.set_window(index, &writer.put_window(window).unwrap())
                        .unwrap();
                }
            });
        }
    });
    let root = tree.finish().unwrap();
    let point = writer
        .commit(draft("t", vec![disk("vda", bytes.len(), root)], vec![]))
        .unwrap();
    assert_eq!(read_disk(&repository, &point).unwrap(), bytes);
    let single = backup(&repository, "single", &bytes).unwrap();
    assert_eq!(single.disks[0].root, root);
    assert_clean(&repository);
}
