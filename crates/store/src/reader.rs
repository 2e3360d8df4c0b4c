//! A disk of a point, read like any disk.
//!
//! Knows: from a place to the window, its segments and their blocks; what is zero without reading.
//! Refuses to know: what is on the disk.

use crate::cut::Segment;
use crate::id::Root;
use crate::layout::{self, Content};
use crate::membership::Membership;
use crate::point;
use crate::repository::{Inner, may_read_unpinned};
use crate::tree::{self, RootRecord};
use base::block::{BlockRead, Extent, check_range, push_extent};
use base::id::PointId;
use base::size::{ByteCount, ByteOffset, ByteRange};
use base::{Error, Kind, Result};
use std::sync::{Arc, Mutex, PoisonError};

/// Windows that one answer about extents looks at, at most.
const EXTENT_WINDOWS: u64 = 64;

/// A disk of a point, read like any disk, from any thread. Its extents say which ranges are zero.
/// While it lives its blocks are pinned.
pub struct DiskReader {
    inner: Arc<Inner>,
    root: Root,
    record: RootRecord,
    pin: Option<Arc<Membership>>,
    /// The window read last and its segments: reads mostly go on where they were.
    last: Mutex<Option<(u64, Arc<Vec<Segment>>)>>,
}

impl DiskReader {
    /// Opens the content of a root of a point.
    pub(crate) fn open(
        inner: &Arc<Inner>,
        point: PointId,
        root: Root,
        size: ByteCount,
    ) -> Result<Self> {
        let pin = pin(inner, point, root)?;
        let mut reader = Self {
            inner: Arc::clone(inner),
            root,
            record: RootRecord {
                levels: 0,
                window: inner.config.cut.window,
                size: 0,
                top: None,
            },
            pin,
            last: Mutex::new(None),
        };
        reader.record = inner.root_record(&root)?;
        if reader.record.size != size.0 {
            return Err(Error::corrupt(
                "store.disk.size",
                format!(
                    "the tree has {} bytes, the point says {size}",
                    reader.record.size
                ),
            ));
        }
        Ok(reader)
    }

    /// The root it reads.
    pub const fn root(&self) -> Root {
        self.root
    }

    fn segments(&self, window: u64) -> Result<Arc<Vec<Segment>>> {
        let known = self
            .last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some((_, segments)) = known.filter(|(index, _)| *index == window) {
            return Ok(segments);
        }
        let segments = Arc::new(tree::leaf_of(&self.inner.blocks, &self.record, window)?);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((window, Arc::clone(&segments)));
        Ok(segments)
    }

    /// Fills `buffer` from `start` on of a window.
    fn read_window(&self, window: u64, start: u64, buffer: &mut [u8]) -> Result<()> {
        let segments = self.segments(window)?;
        let wanted = ByteRange::new(start, buffer.len() as u64);
        if segments.is_empty() {
            buffer.fill(0);
            return Ok(());
        }
        let mut at = 0;
        for segment in segments.iter() {
            let here = ByteRange::new(at, u64::from(segment.length));
            at += u64::from(segment.length);
            let Some(part) = here.intersection(&wanted) else {
                continue;
            };
            let from = (part.offset.0 - start) as usize;
            let into = &mut buffer[from..from + part.length.0 as usize];
            match &segment.block {
                None => into.fill(0),
                Some(id) => {
                    let block = self.inner.blocks.read(Content::Data, id)?;
                    let skip = (part.offset.0 - here.offset.0) as usize;
                    let bytes = block.get(skip..skip + into.len()).ok_or_else(|| {
                        Error::corrupt(
                            "store.block.length",
                            format!("the block {id} is shorter than the tree says"),
                        )
                    })?;
                    into.copy_from_slice(bytes);
                }
            }
        }
        Ok(())
    }
}

/// Pins a root, then looks whether the point is still there: in this order a collector either sees
/// the pin or we see that the point is gone.
fn pin(inner: &Arc<Inner>, point: PointId, root: Root) -> Result<Option<Arc<Membership>>> {
    let Some(member) = inner.reader()? else {
        return Ok(None);
    };
    match member.pin(root) {
        Ok(()) => {}
        Err(error) if may_read_unpinned(&error) => return Ok(None),
        Err(error) => return Err(error),
    }
    match inner.files.open(&layout::point(point)?) {
        Ok(_) => Ok(Some(member)),
        Err(error) => {
            member.unpin(&root)?;
            Err(if error.kind() == Kind::NotFound {
                point::not_found(point)
            } else {
                error
            })
        }
    }
}

impl Drop for DiskReader {
    fn drop(&mut self) {
        if let Some(member) = &self.pin {
            // A pin that stays delays a collection until this process ends, no more.
            let _ = member.unpin(&self.root);
        }
    }
}

impl BlockRead for DiskReader {
    fn size(&self) -> ByteCount {
        ByteCount(self.record.size)
    }

    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<()> {
        check_range(ByteRange::new(offset.0, buffer.len() as u64), self.size())?;
        let window = u64::from(self.record.window);
        let mut at = offset.0;
        let mut rest = buffer;
        while !rest.is_empty() {
            let start = at % window;
            let length = (rest.len() as u64).min(window - start) as usize;
            let (part, tail) = rest.split_at_mut(length);
            self.read_window(at / window, start, part)?;
            at += length as u64;
            rest = tail;
        }
        Ok(())
    }

    fn extents(&self, range: ByteRange) -> Result<Vec<Extent>> {
        check_range(range, self.size())?;
        let window = u64::from(self.record.window);
        let mut extents = Vec::new();
        let first = range.offset.0 / window;
        let end = range.end().0;
        let mut index = first;
        while index * window < end && index < first + EXTENT_WINDOWS {
            let mut at = index * window;
            let whole = [Segment {
                length: self.record.window_length(index),
                block: None,
            }];
            let segments = self.segments(index)?;
            let segments = if segments.is_empty() {
                &whole[..]
            } else {
                &segments[..]
            };
            for segment in segments {
                let here = ByteRange::new(at, u64::from(segment.length));
                at += u64::from(segment.length);
                if let Some(part) = here.intersection(&range) {
                    let (offset, length) = (part.offset.0, part.length.0);
                    push_extent(
                        &mut extents,
                        match segment.block {
                            None => Extent::zero(offset, length),
                            Some(_) => Extent::data(offset, length),
                        },
                    );
                }
            }
            index += 1;
        }
        Ok(extents)
    }
}
