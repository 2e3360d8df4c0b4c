//! Damage of every object: found, named exactly, and it costs no more than what it hit.

use crate::support::*;
use std::collections::BTreeMap;
use std::path::{Path as OsPath, PathBuf};
use std::sync::Arc;
use store::*;

/// All files of a repository by their path below its root.
fn objects(root: &OsPath) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_owned();
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn verify(place: &Place) -> base::Result<VerifyReport> {
    let repository = Repository::open(Arc::clone(&place.files), environment(5), None)?;
    let options = VerifyOptions {
        read_data: true,
        ..VerifyOptions::default()
    };
    repository.verify(&options, &|_| {})
}

fn matters(path: &OsPath) -> bool {
    let text = path.to_str().unwrap();
    ["packs/", "index/", "points/"]
        .iter()
        .any(|start| text.starts_with(start))
}

#[test]
fn every_object_damaged_in_turn_is_found_and_what_can_be_restored_is() {
    let place = place();
    let repository = create(&place);
    let bytes = sample(3, 700_000);
    let point = backup(&repository, "web", &bytes).unwrap();
    drop(repository);
    assert!(verify(&place).unwrap().is_clean());
    let root = place.folder.path();
    for (name, original) in objects(root) {
        let path = root.join(&name);
        let middle = original.len() / 2;
        let mut flipped = original.clone();
        if let Some(byte) = flipped.get_mut(middle) {
            *byte ^= 0x10;
        }
        let mut zeroed = original.clone();
        zeroed
            .iter_mut()
            .skip(middle)
            .take(4096)
            .for_each(|byte| *byte = 0);
        for damaged in [
            Some(flipped),
            Some(zeroed),
            Some(original[..middle].to_vec()),
            None,
        ] {
            if damaged.as_ref() == Some(&original) {
                continue;
            }
            match &damaged {
                Some(bytes) => std::fs::write(&path, bytes).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            let report = verify(&place).unwrap();
            // A point that is gone altogether leaves no trace; an index that is gone loses nothing.
            let silent = damaged.is_none() && !name.starts_with("packs");
            assert_eq!(
                report.is_clean(),
                silent || !matters(&name),
                "{name:?} {report:?}"
            );
            check_restore(&place, &name, &point, &bytes, &report);
            std::fs::write(&path, &original).unwrap();
        }
    }
    assert!(verify(&place).unwrap().is_clean());
}

/// Whatever verify does not name as lost must restore.
fn check_restore(place: &Place, name: &OsPath, point: &Point, bytes: &[u8], report: &VerifyReport) {
    let repository = Repository::open(Arc::clone(&place.files), environment(5), None).unwrap();
    let list = repository.points().unwrap();
    if name.starts_with("points") {
        assert!(list.points.is_empty(), "{name:?}");
        return;
    }
    assert_eq!(list.points, std::slice::from_ref(point));
    let lost: Vec<std::ops::Range<usize>> = report
        .damage
        .iter()
        .filter_map(|damage| match damage {
            Damage::Range { name, range, .. } if name == "vda" => {
                Some(range.offset.0 as usize..range.end().0 as usize)
            }
            _ => None,
        })
        .collect();
    let reader = match repository.open_disk(point, "vda") {
        Ok(reader) => reader,
        Err(error) => {
            // Only a root that is lost keeps a disk from opening.
            assert_eq!(lost, std::slice::from_ref(&(0..bytes.len())), "{error:?}");
            return;
        }
    };
    for start in (0..bytes.len()).step_by(4096) {
        let end = (start + 4096).min(bytes.len());
        let mut page = vec![0; end - start];
        let offset = base::size::ByteOffset(start as u64);
        let read = base::block::BlockRead::read_at(&reader, offset, &mut page);
        let named = lost
            .iter()
            .any(|range| range.start < end && start < range.end);
        match read {
            Ok(()) => {
                assert_eq!(page, bytes[start..end], "{name:?}: wrong bytes at {start}");
                assert!(!named, "{name:?}: {start} was called lost and is not");
            }
            Err(_) => assert!(named, "{name:?}: {start} is lost and was not named"),
        }
    }
}

#[test]
fn a_host_without_keys_finds_every_change() {
    let place = place();
    let repository = Repository::create(
        Arc::clone(&place.files),
        environment(1),
        &options(Some("not told to the host")),
    )
    .unwrap();
    backup(&repository, "web", &sample(3, 400_000)).unwrap();
    let check = || verify_sealed(&*place.files, &base::cancel::Cancel::new(), &|_| {}).unwrap();
    assert!(check().is_clean());
    let root = place.folder.path();
    for (name, original) in objects(root).into_iter().filter(|(name, _)| matters(name)) {
        for at in [0, original.len() / 3, original.len() - 1] {
            let mut damaged = original.clone();
            damaged[at] ^= 1;
            std::fs::write(root.join(&name), damaged).unwrap();
            assert_eq!(check().damage.len(), 1, "{name:?} at {at}");
        }
        std::fs::write(root.join(&name), &original[..original.len() - 1]).unwrap();
        assert_eq!(check().damage.len(), 1, "{name:?} cut");
        std::fs::write(root.join(&name), &original).unwrap();
    }
}

#[test]
fn the_index_can_be_lost_and_made_again() {
    let place = place();
    let repository = create(&place);
    let bytes = sample(3, 900_000);
    let point = backup(&repository, "web", &bytes).unwrap();
    let blocks = repository.info().unwrap().blocks;
    for entry in std::fs::read_dir(place.folder.path().join("index")).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let open = || Repository::open(Arc::clone(&place.files), environment(2), None).unwrap();
    // Nothing is needed to read on.
    assert_eq!(read_disk(&open(), &point).unwrap(), bytes);
    // A collection lists the packs anew and removes none.
    let report = open().collect(&CollectOptions::default(), &|_| {}).unwrap();
    assert_eq!((report.retired, report.removed), (0, 0));
    assert_eq!(open().info().unwrap().blocks, blocks);
    // So does a rebuild, also where trailers are gone.
    let packs = open().info().unwrap().pack_count;
    let damaged: Vec<PathBuf> = objects(place.folder.path())
        .into_keys()
        .filter(|name| name.starts_with("packs"))
        .collect();
    for name in damaged {
        let path = place.folder.path().join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        let end = bytes.len() - 1;
        bytes[end] ^= 0xff;
        std::fs::write(&path, bytes).unwrap();
    }
    assert_eq!(open().rebuild_index(&|_| {}).unwrap(), packs);
    assert_eq!(open().info().unwrap().blocks, blocks);
    assert_eq!(read_disk(&open(), &point).unwrap(), bytes);
}

#[test]
fn either_copy_of_the_description_and_of_the_keys_opens_the_repository() {
    let place = place();
    let point = backup(&create(&place), "web", &sample(1, 100_000)).unwrap();
    let root = place.folder.path();
    for name in ["repository", "repository.copy", "keys/1", "keys/1.copy"] {
        let original = std::fs::read(root.join(name)).unwrap();
        for length in (0..original.len()).step_by(7) {
            std::fs::write(root.join(name), &original[..length]).unwrap();
            let repository = Repository::open(Arc::clone(&place.files), environment(2), None);
            assert_eq!(repository.unwrap().point(point.id).unwrap(), point);
        }
        std::fs::remove_file(root.join(name)).unwrap();
        Repository::open(Arc::clone(&place.files), environment(2), None).unwrap();
        std::fs::write(root.join(name), &original).unwrap();
    }
}

#[test]
fn another_version_is_refused_untouched() {
    let place = place();
    create(&place);
    let root = place.folder.path();
    let text = std::fs::read_to_string(root.join("repository")).unwrap();
    for (from, to) in [
        ("\"major\":1", "\"major\":2"),
        ("\"must_understand\":[]", "\"must_understand\":[\"parity\"]"),
    ] {
        for name in ["repository", "repository.copy"] {
            std::fs::write(root.join(name), text.replace(from, to)).unwrap();
        }
        let before = objects(root);
        let refused = Repository::open(Arc::clone(&place.files), environment(2), None);
        assert_eq!(refused.unwrap_err().code(), "store.repository.version");
        assert_eq!(objects(root), before);
    }
}

#[test]
fn a_collection_mends_damaged_index_segments() {
    let place = place();
    let repository = create(&place);
    let bytes = sample(3, 900_000);
    let point = backup(&repository, "web", &bytes).unwrap();
    let blocks = repository.info().unwrap().blocks;
    drop(repository);
    let root = place.folder.path();
    let segments: Vec<(PathBuf, Vec<u8>)> = objects(root)
        .into_iter()
        .filter(|(name, _)| name.starts_with("index"))
        .collect();
    for (name, original) in &segments {
        for damage in 0..4 {
            let mut damaged = original.clone();
            match damage {
                0 => damaged[60] ^= 1,
                1 => damaged.truncate(40),
                2 => damaged.clear(),
                _ => damaged[8] ^= 1,
            }
            std::fs::write(root.join(name), damaged).unwrap();
            let open = || Repository::open(Arc::clone(&place.files), environment(2), None).unwrap();
            assert_eq!(
                read_disk(&open(), &point).unwrap(),
                bytes,
                "{name:?} {damage}"
            );
            let next = backup(&open(), "next", &bytes).unwrap();
            open().collect(&CollectOptions::default(), &|_| {}).unwrap();
            assert!(verify(&place).unwrap().is_clean(), "{name:?} {damage}");
            open().delete_point(next.id).unwrap();
            open().collect(&CollectOptions::default(), &|_| {}).unwrap();
            assert!(open().info().unwrap().blocks >= blocks);
            assert_eq!(read_disk(&open(), &point).unwrap(), bytes);
            if !root.join(name).exists() {
                break;
            }
        }
    }
}

/// A run after the damage stores again what it needs, and readers find the whole copy.
#[test]
fn what_a_short_pack_held_is_stored_again_and_read_from_there() {
    for content in ["data", "tree"] {
        let place = place();
        let repository = create(&place);
        let bytes = sample(17, 600_000);
        backup(&repository, "web", &bytes).unwrap();
        drop(repository);
        let root = place.folder.path();
        for (name, original) in objects(root) {
            if name.starts_with(format!("packs/{content}")) {
                std::fs::write(root.join(name), &original[..original.len() / 2]).unwrap();
            }
        }
        let repository = Repository::open(Arc::clone(&place.files), environment(6), None).unwrap();
        let again = backup(&repository, "web", &bytes).unwrap();
        drop(repository);
        let repository = Repository::open(Arc::clone(&place.files), environment(7), None).unwrap();
        assert!(
            read_disk(&repository, &again).unwrap() == bytes,
            "{content}"
        );
    }
}
