//! Opening all segments of a repository.
//!
//! Knows: that a damaged segment is set aside and named, never a reason not to open; that a segment
//! replaced by another does not count. Refuses to know: what to do about damage.

use super::segment::Segment;
use crate::digest::hash_range;
use crate::id::SegmentId;
use base::files::{Files, Path};
use base::id::RepositoryId;
use base::{Error, Kind, Result};
use std::collections::HashSet;
use std::sync::Arc;

/// A segment that cannot be used.
pub(crate) struct DamagedSegment {
    pub(crate) name: String,
    pub(crate) error: Error,
}

/// What the index folder holds.
pub(crate) struct Loaded {
    /// In use, in the order of their ids.
    pub(crate) segments: Vec<Arc<Segment>>,
    /// Made void by another one that is there.
    pub(crate) replaced: Vec<SegmentId>,
    pub(crate) damaged: Vec<DamagedSegment>,
}

/// Opens all segments. Those in `known` are taken as they are.
pub(crate) fn load(
    files: &dyn Files,
    repository: RepositoryId,
    known: &[Arc<Segment>],
) -> Result<Loaded> {
    // A segment may be merged away between listing and opening: then a newer list has its heir.
    for _ in 0..16 {
        if let Some(loaded) = try_load(files, repository, known)? {
            return Ok(loaded);
        }
    }
    Err(Error::new(
        Kind::Conflict,
        "store.index.changing",
        "the index changes without rest",
    )
    .hint("try again"))
}

fn try_load(
    files: &dyn Files,
    repository: RepositoryId,
    known: &[Arc<Segment>],
) -> Result<Option<Loaded>> {
    let folder = Path::new("index")?;
    let mut segments = Vec::new();
    let mut damaged = Vec::new();
    for entry in files.list(&folder)? {
        let Ok(id) = entry.name.parse::<SegmentId>() else {
            continue;
        };
        if let Some(segment) = known.iter().find(|segment| segment.id == id) {
            segments.push(Arc::clone(segment));
            continue;
        }
        let opened = files
            .open(&folder.join(id)?)
            .and_then(|file| Segment::open(id, file, repository));
        match opened {
            Ok(segment) => segments.push(Arc::new(segment)),
            Err(error) if error.kind() == Kind::NotFound => return Ok(None),
            // A newer format must not be taken for damage, nor damage for a newer format: only
            // bytes that have the digest they are named after are believed.
            Err(error) if error.kind() == Kind::Unsupported => {
                if is_as_named(files, &folder.join(id)?, &id)? {
                    return Err(error);
                }
                damaged.push(DamagedSegment {
                    name: entry.name,
                    error,
                });
            }
            Err(error) => damaged.push(DamagedSegment {
                name: entry.name,
                error,
            }),
        }
    }
    let void: HashSet<SegmentId> = segments
        .iter()
        .flat_map(|segment| segment.replaces.iter().copied())
        .collect();
    let (replaced, segments): (Vec<_>, Vec<_>) = segments
        .into_iter()
        .partition(|segment| void.contains(&segment.id));
    let replaced = replaced.iter().map(|segment| segment.id).collect();
    Ok(Some(Loaded {
        segments,
        replaced,
        damaged,
    }))
}

/// Whether a segment's bytes are those it is named after.
fn is_as_named(files: &dyn Files, path: &Path, id: &SegmentId) -> Result<bool> {
    let file = files.open(path)?;
    let length = file.length()?.0;
    let digest = hash_range(&*file, 0, length, &mut blake3::Hasher::new())?;
    Ok(digest == *id.bytes())
}
