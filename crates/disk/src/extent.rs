//! Extents of an image that follow those of the file it lies in.
//!
//! Knows: where the file has a hole, preallocated space was never written and the disk reads as
//! zeros. Refuses to know: how the image maps the disk to the file.

use base::Result;
use base::block::{BlockRead, Extent, push_extent};
use base::size::ByteRange;

/// The most extents one question answers, in all formats.
pub(crate) const EXTENTS_PER_ANSWER: usize = 1024;
/// The most table entries one question looks up, in all formats.
pub(crate) const LOOKUPS_PER_ANSWER: usize = 65_536;

/// Appends what `range` of the disk holds, which lies at `host` of `file`. What lies past the end
/// of the file is called data, so that a cut file is noticed when it is read and never taken for
/// zeros. Says how much of the range is covered.
pub(crate) fn push_host_extents(
    extents: &mut Vec<Extent>,
    range: ByteRange,
    file: &dyn BlockRead,
    host: u64,
) -> Result<u64> {
    let (at, length) = (range.offset.0, range.length.0);
    let inside = file.size().0.saturating_sub(host).min(length);
    if inside == 0 {
        push_extent(extents, Extent::data(at, length));
        return Ok(length);
    }
    let mut covered = 0;
    for extent in file.extents(ByteRange::new(host, inside))? {
        let range = ByteRange::new(at + covered, extent.range.length.0.min(inside - covered));
        covered += range.length.0;
        push_extent(
            extents,
            Extent {
                range,
                kind: extent.kind,
            },
        );
    }
    Ok(covered)
}

/// Appends what `range` of a disk holds that is to be found in `parent`, if there is one and where
/// it is long enough; zeros elsewhere. Says how much of the range is covered.
pub(crate) fn push_parent_extents(
    extents: &mut Vec<Extent>,
    range: ByteRange,
    parent: Option<&dyn BlockRead>,
) -> Result<u64> {
    let at = range.offset.0;
    match parent {
        Some(parent) if at < parent.size().0 => {
            let inside = range.length.0.min(parent.size().0 - at);
            push_host_extents(extents, ByteRange::new(at, inside), parent, at)
        }
        _ => {
            push_extent(extents, Extent::zero(at, range.length.0));
            Ok(range.length.0)
        }
    }
}

/// Fills `buffer` with the bytes from `offset` on of `parent`, if there is one; zeros past its end.
pub(crate) fn read_parent(
    parent: Option<&dyn BlockRead>,
    offset: u64,
    buffer: &mut [u8],
) -> Result<()> {
    let rest = parent.map_or(0, |parent| parent.size().0.saturating_sub(offset));
    let (inside, outside) = buffer.split_at_mut((buffer.len() as u64).min(rest) as usize);
    outside.fill(0);
    match parent {
        Some(parent) if !inside.is_empty() => {
            parent.read_at(base::size::ByteOffset(offset), inside)
        }
        _ => Ok(()),
    }
}
