//! The index: from a block's id to its place (format page, section "Index").
//!
//! Knows: a set of immutable sorted segments, looked into by range reads, so that memory does not
//! grow with the repository; which packs are retired.
//! Refuses to know: what the blocks are. The index is a cache: packs alone can rebuild it.

mod build;
mod load;
mod marks;
mod merge;
mod segment;
#[cfg(test)]
mod tests;

pub(crate) use build::publish_entries;
pub(crate) use load::{DamagedSegment, load};
pub(crate) use marks::Marks;
pub(crate) use merge::merge;
pub(crate) use segment::{Entry, PackRow, Segment};

use crate::id::{BlockId, PackId, SegmentId};
use crate::layout::Content;
use crate::pack::Listed;
use base::{Error, Kind, Result};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// Where a block lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) content: Content,
    pub(crate) pack: PackId,
    /// Where its frame begins.
    pub(crate) offset: u32,
    /// Bytes of the frame.
    pub(crate) length: u32,
    /// Which block of the frame it is.
    pub(crate) position: u16,
}

/// A view of the index: fixed once made, shared by reference.
#[derive(Clone, Default)]
pub(crate) struct Index {
    /// All segments in use, in the order of their ids.
    pub(crate) segments: Vec<Arc<Segment>>,
    /// Packs that no new tree may use.
    pub(crate) retired: Arc<HashSet<PackId>>,
    /// Blocks of packs that no segment lists (theirs was lost), found by looking into the packs.
    orphans: Arc<BTreeMap<BlockId, Place>>,
    /// Packs that are in `orphans`.
    orphan_packs: Arc<HashSet<PackId>>,
}

impl Index {
    pub(crate) fn new(segments: Vec<Arc<Segment>>, retired: HashSet<PackId>) -> Self {
        Self {
            segments,
            retired: Arc::new(retired),
            ..Self::default()
        }
    }

    /// With one more segment.
    pub(crate) fn with(&self, segment: Arc<Segment>) -> Self {
        let mut index = self.clone();
        index.segments.push(segment);
        index
    }

    /// Segments that turned out damaged.
    pub(crate) fn suspects(&self) -> HashSet<SegmentId> {
        let suspects = self.segments.iter().filter(|segment| segment.is_suspect());
        suspects.map(|segment| segment.id).collect()
    }

    /// With more packs that no new tree may use.
    pub(crate) fn without(&self, packs: HashSet<PackId>) -> Self {
        let mut index = self.clone();
        if !packs.is_empty() {
            index.retired = Arc::new(&*self.retired | &packs);
        }
        index
    }

    /// With what was found in packs that no segment lists.
    pub(crate) fn with_orphans(&self, packs: &[(PackId, Listed)]) -> Self {
        let mut index = self.clone();
        let mut orphans = (*self.orphans).clone();
        let mut names = (*self.orphan_packs).clone();
        // Packs with a whole trailer come last and so win: what a search finds in a damaged pack
        // may be bytes that only look like a frame.
        let (searched, whole): (Vec<_>, Vec<_>) = packs
            .iter()
            .partition(|(_, listed)| listed.trailer_damage.is_some());
        for (pack, listed) in searched.into_iter().chain(whole) {
            names.insert(*pack);
            for frame in &listed.frames {
                for (position, row) in frame.rows.iter().enumerate() {
                    orphans.insert(
                        row.id,
                        Place {
                            content: listed.header.content,
                            pack: *pack,
                            offset: frame.offset,
                            length: frame.length,
                            position: position as u16,
                        },
                    );
                }
            }
        }
        index.orphans = Arc::new(orphans);
        index.orphan_packs = Arc::new(names);
        index
    }

    /// All packs that segments list.
    pub(crate) fn listed_packs(&self) -> HashSet<PackId> {
        let mut packs: HashSet<PackId> = (*self.orphan_packs).clone();
        for segment in &self.segments {
            packs.extend(segment.packs.iter().map(|row| row.id));
        }
        packs
    }

    /// Whether a new tree may use the block as it lies in the repository.
    pub(crate) fn has(&self, content: Content, id: &BlockId) -> Result<bool> {
        for segment in self
            .segments
            .iter()
            .filter(|segment| segment.content == content)
        {
            match segment.find(id) {
                Ok(Some(entry)) if !self.retired.contains(&segment.pack(&entry)?.id) => {
                    return Ok(true);
                }
                Ok(_) => {}
                // A damaged list says nothing: the block is stored once more.
                Err(error) if error.kind() == Kind::Corrupt => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Where a block lies; a place in a pack that is not retired if there is one.
    ///
    /// A damaged segment does not keep the others from being asked; its error is returned only
    /// where nothing was found.
    pub(crate) fn find(&self, content: Content, id: &BlockId) -> Result<Option<Place>> {
        let mut second = None;
        let mut damage: Option<Error> = None;
        for segment in self
            .segments
            .iter()
            .filter(|segment| segment.content == content)
        {
            match segment.find(id) {
                Ok(Some(entry)) => {
                    let pack = segment.pack(&entry)?.id;
                    let place = entry.place(content, pack);
                    if !self.retired.contains(&pack) {
                        return Ok(Some(place));
                    }
                    second = Some(place);
                }
                Ok(None) => {}
                Err(error) => damage = Some(error),
            }
        }
        let orphan = self
            .orphans
            .get(id)
            .filter(|place| place.content == content)
            .copied();
        match (second.or(orphan), damage) {
            (Some(place), _) => Ok(Some(place)),
            (None, Some(error)) => Err(error),
            (None, None) => Ok(None),
        }
    }

    /// All places where a block lies, as far as they can be found: for what cannot be read at the
    /// first.
    pub(crate) fn places(&self, content: Content, id: &BlockId) -> Vec<Place> {
        let mut places = Vec::new();
        for segment in &self.segments {
            if segment.content == content
                && let Ok(Some(entry)) = segment.find(id)
                && let Ok(pack) = segment.pack(&entry)
            {
                places.push(entry.place(content, pack.id));
            }
        }
        let orphan = self.orphans.get(id);
        places.extend(orphan.filter(|place| place.content == content));
        places
    }

    /// Entries of all segments, counted once per segment.
    pub(crate) fn entries(&self) -> u64 {
        self.segments.iter().map(|segment| segment.count).sum()
    }
}
