//! From a disk to a tree, one window after another, as a mover does it but in one thread.
//!
//! Knows: full reads and reads of changed ranges on top of a base. Refuses to know: points.

use base::Result;
use base::block::BlockRead;
use base::size::{ByteCount, ByteOffset, ByteRange};
use store::{NewBlock, RecutPiece, Repository, Root, Segment, TreeWriter, Writer};

/// Reads all of a disk and stores it.
///
/// # Errors
/// Those of the disk and of the store.
pub fn all_windows(writer: &Writer, source: &dyn BlockRead) -> Result<Root> {
    let tree = writer.tree(source.size(), None)?;
    let window = writer.cutter().window_size();
    let mut bytes = vec![0; window.as_usize()?];
    for index in 0..source.size().0.div_ceil(window.0) {
        let range = window_range(index, window, source.size());
        let bytes = &mut bytes[..range.length.as_usize()?];
        source.read_at(range.offset, bytes)?;
        set_whole_window(writer, &tree, index, bytes)?;
    }
    tree.finish()
}

/// Reads the changed ranges of a disk and stores what the base does not have.
///
/// # Errors
/// Those of the disk and of the store.
pub fn changed_windows(
    repository: &Repository,
    writer: &Writer,
    base: Root,
    source: &dyn BlockRead,
    changed: &[ByteRange],
) -> Result<Root> {
    let tree = writer.tree(source.size(), Some(base))?;
    let window = writer.cutter().window_size();
    for index in 0..source.size().0.div_ceil(window.0) {
        let range = window_range(index, window, source.size());
        let dirty: Vec<ByteRange> = changed
            .iter()
            .filter_map(|changed| changed.intersection(&range))
            .map(|part| ByteRange {
                offset: ByteOffset((part.offset - range.offset).0),
                ..part
            })
            .collect();
        if !dirty.is_empty() {
            recut_window(repository, writer, &tree, index, source, range, &dirty)?;
        }
    }
    tree.finish()
}

fn window_range(index: u64, window: ByteCount, size: ByteCount) -> ByteRange {
    let start = index * window.0;
    ByteRange::new(start, window.0.min(size.0.saturating_sub(start)))
}

fn set_whole_window(writer: &Writer, tree: &TreeWriter, index: u64, bytes: &[u8]) -> Result<()> {
    let mut segments = Vec::new();
    let mut blocks = Vec::new();
    for piece in writer.cutter().cut(bytes) {
        let bytes = &bytes[piece.range.clone()];
        let block = (!piece.zero).then(|| writer.cutter().block_id(bytes));
        segments.push(Segment {
            length: length_of(bytes.len()),
            block,
        });
        blocks.extend(block.map(|id| NewBlock { id, bytes }));
    }
    put_new(writer, &blocks)?;
    tree.set_window(index, &segments)
}

fn recut_window(
    repository: &Repository,
    writer: &Writer,
    tree: &TreeWriter,
    index: u64,
    source: &dyn BlockRead,
    window: ByteRange,
    dirty: &[ByteRange],
) -> Result<()> {
    let old = tree.base_window(index)?;
    let pieces = writer.cutter().recut(
        &old,
        length_of(window.length.as_usize()?),
        dirty,
        &mut |range, buffer| source.read_at(window.offset + ByteCount(range.offset.0), buffer),
        &mut |id, buffer| repository.read_block(id, buffer),
    )?;
    let mut segments = Vec::new();
    let mut blocks = Vec::new();
    for piece in &pieces {
        segments.push(match piece {
            RecutPiece::Kept(segment) => *segment,
            RecutPiece::Zero(length) => Segment {
                length: *length,
                block: None,
            },
            RecutPiece::New(bytes) => {
                let id = writer.cutter().block_id(bytes);
                blocks.push(NewBlock { id, bytes });
                Segment {
                    length: length_of(bytes.len()),
                    block: Some(id),
                }
            }
        });
    }
    put_new(writer, &blocks)?;
    tree.set_window(index, &segments)
}

/// Asks first, as a mover does over a network.
fn put_new(writer: &Writer, blocks: &[NewBlock<'_>]) -> Result<()> {
    let ids: Vec<_> = blocks.iter().map(|block| block.id).collect();
    let have = writer.have(&ids)?;
    let new: Vec<_> = blocks
        .iter()
        .zip(have)
        .filter(|(_, have)| !have)
        .map(|(b, _)| *b)
        .collect();
    if new.is_empty() {
        Ok(())
    } else {
        writer.put(&new).map(|_| ())
    }
}

/// Windows are at most 64 MiB.
fn length_of(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
