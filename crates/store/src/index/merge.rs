//! Merging segments into one, leaving out packs that are gone.
//!
//! Knows: a merge of sorted lists with one bucket of each in memory. Refuses to know: when.

use super::build::Builder;
use super::segment::{Entry, PackRow, Segment};
use crate::id::{PackId, SegmentId};
use crate::layout::Content;
use base::Result;
use base::files::{Files, Path};
use base::id::RepositoryId;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

/// Merges `segments` (all of one content) into a new one that replaces them, with only the packs
/// for which `keep` says so. Returns it, published and open.
pub(crate) fn merge(
    files: &dyn Files,
    path: Path,
    content: Content,
    repository: RepositoryId,
    segments: &[Arc<Segment>],
    keep: &dyn Fn(&PackId) -> bool,
) -> Result<Arc<Segment>> {
    let mut packs: Vec<PackRow> = Vec::new();
    let mut ordinals: HashMap<PackId, u32> = HashMap::new();
    for row in segments
        .iter()
        .flat_map(|segment| &segment.packs)
        .filter(|row| keep(&row.id))
    {
        ordinals.entry(row.id).or_insert_with(|| {
            packs.push(*row);
            packs.len() as u32 - 1
        });
    }
    let expected = segments.iter().map(|segment| segment.count).sum();
    let mut builder = Builder::create(files, path, content, repository, expected)?;
    let mut readers: Vec<_> = segments.iter().map(|segment| segment.reader()).collect();
    let mut heap: BinaryHeap<Reverse<(Entry, usize)>> = BinaryHeap::new();
    for source in 0..readers.len() {
        if let Some(entry) = next_kept(&mut readers[source], &segments[source], &ordinals)? {
            heap.push(Reverse((entry, source)));
        }
    }
    while let Some(Reverse((entry, source))) = heap.pop() {
        builder.push(&entry)?;
        if let Some(entry) = next_kept(&mut readers[source], &segments[source], &ordinals)? {
            heap.push(Reverse((entry, source)));
        }
    }
    let replaces: Vec<SegmentId> = segments.iter().map(|segment| segment.id).collect();
    builder.finish(files, &packs, &replaces)
}

fn next_kept(
    reader: &mut super::segment::EntryReader<'_>,
    segment: &Segment,
    ordinals: &HashMap<PackId, u32>,
) -> Result<Option<Entry>> {
    while let Some((_, mut entry)) = reader.next()? {
        if let Some(ordinal) = ordinals.get(&segment.pack(&entry)?.id) {
            entry.pack = *ordinal;
            return Ok(Some(entry));
        }
    }
    Ok(None)
}
