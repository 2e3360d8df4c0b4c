//! Segments answer as a map would, and damage is an error, never a wrong answer.

use super::*;
use crate::layout;
use base::files::{Files, Path};
use base::id::{RepositoryId, WriterId};
use base::os::OsFiles;
use base::random::{Random, SeededRandom};
use std::collections::BTreeMap;

fn repository() -> RepositoryId {
    RepositoryId::from_bytes([1; 16])
}

fn rows(count: u8) -> Vec<PackRow> {
    (0..count)
        .map(|n| PackRow {
            id: PackId::from_bytes([n; 32]),
            writer: WriterId::from_bytes([n; 16]),
            length: 1000 + u64::from(n),
        })
        .collect()
}

fn entries(random: &SeededRandom, count: u64) -> Vec<Entry> {
    (0..count)
        .map(|n| {
            let mut id = [0; 32];
            random.fill(&mut id);
            Entry {
                id: BlockId::from_bytes(id),
                pack: (n % 3) as u32,
                offset: n as u32 * 10,
                length: 500,
                position: (n % 7) as u16,
            }
        })
        .collect()
}

fn folder() -> (tempfile::TempDir, OsFiles) {
    let folder = tempfile::tempdir().unwrap();
    let files = OsFiles::open(folder.path()).unwrap();
    files.make_folder(&Path::new("index").unwrap()).unwrap();
    (folder, files)
}

fn publish(files: &OsFiles, entries: Vec<Entry>) -> Arc<Segment> {
    let path = Path::new("working").unwrap();
    publish_entries(
        files,
        path,
        Content::Data,
        repository(),
        entries,
        &rows(3),
        &[],
    )
    .unwrap()
}

#[test]
fn a_segment_answers_as_a_map_would() {
    let random = SeededRandom::new(4);
    for count in [0, 1, 2, 47, 48, 1000, 20_000] {
        let (_folder, files) = folder();
        let entries = entries(&random, count);
        let segment = publish(&files, entries.clone());
        assert_eq!(segment.count, count);
        for entry in &entries {
            assert_eq!(segment.find(&entry.id).unwrap(), Some(*entry));
        }
        for entry in self::entries(&random, 500) {
            assert_eq!(segment.find(&entry.id).unwrap(), None);
        }
        let mut sorted = entries;
        sorted.sort();
        let mut reader = segment.reader();
        let mut read = Vec::new();
        while let Some((number, entry)) = reader.next().unwrap() {
            assert_eq!(number, read.len() as u64);
            assert_eq!(segment.locate(&entry.id).unwrap().unwrap().0, number);
            read.push(entry);
        }
        assert_eq!(read, sorted);
    }
}

#[test]
fn merging_leaves_packs_out_and_replaces() {
    let random = SeededRandom::new(5);
    let (_folder, files) = folder();
    let first = publish(&files, entries(&random, 3000));
    let mut more = entries(&random, 2000);
    more.push(first.reader().next().unwrap().unwrap().1);
    let second = publish(&files, more);
    let gone = PackId::from_bytes([1; 32]);
    let both = [Arc::clone(&first), Arc::clone(&second)];
    let path = Path::new("merged").unwrap();
    let merged = merge(&files, path, Content::Data, repository(), &both, &|id| {
        *id != gone
    })
    .unwrap();
    let mut expected = BTreeMap::new();
    for segment in &both {
        let mut reader = segment.reader();
        while let Some((_, entry)) = reader.next().unwrap() {
            if segment.pack(&entry).unwrap().id != gone {
                expected.insert(entry.id, segment.pack(&entry).unwrap().id);
            }
        }
    }
    assert_eq!(merged.count, expected.len() as u64);
    for (id, pack) in expected {
        let entry = merged.find(&id).unwrap().unwrap();
        assert_eq!(merged.pack(&entry).unwrap().id, pack);
    }
    assert!(merged.packs.iter().all(|row| row.id != gone));
    let loaded = load(&files, repository(), &[]).unwrap();
    assert_eq!(loaded.segments.len(), 1);
    assert_eq!(loaded.replaced.len(), 2);
}

/// A file in memory.
struct Bytes(Vec<u8>);

impl base::files::FileRead for Bytes {
    fn length(&self) -> Result<base::size::ByteCount> {
        Ok(base::size::ByteCount(self.0.len() as u64))
    }
    fn read_at(&self, offset: base::size::ByteOffset, buffer: &mut [u8]) -> Result<()> {
        let start = offset.0 as usize;
        match self.0.get(start..start.saturating_add(buffer.len())) {
            Some(bytes) => {
                buffer.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(Error::corrupt("base.files.short", "too short")),
        }
    }
}

#[test]
fn every_flip_and_cut_is_an_error_or_changes_nothing() {
    let random = SeededRandom::new(6);
    let (folder, files) = folder();
    let entries = entries(&random, 60);
    let segment = publish(&files, entries.clone());
    let name = folder
        .path()
        .join(layout::segment(&segment.id).unwrap().as_str());
    let bytes = std::fs::read(&name).unwrap();
    assert_eq!(blake3::hash(&bytes).as_bytes(), segment.id.bytes());
    let open = |bytes: Vec<u8>| Segment::open(segment.id, Arc::new(Bytes(bytes)), repository());
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let Ok(opened) = open(flipped) else { continue };
        for entry in &entries {
            // An error is fine; another answer than the right one is not.
            if let Ok(found) = opened.find(&entry.id) {
                assert_eq!(found, Some(*entry), "bit {bit}");
            }
        }
    }
    for length in 0..bytes.len() {
        assert!(open(bytes[..length].to_vec()).is_err(), "cut at {length}");
    }
    let loaded = load(&files, repository(), &[]).unwrap();
    assert_eq!((loaded.segments.len(), loaded.damaged.len()), (1, 0));
    std::fs::write(&name, &bytes[1..]).unwrap();
    let loaded = load(&files, repository(), &[]).unwrap();
    assert_eq!((loaded.segments.len(), loaded.damaged.len()), (0, 1));
}
