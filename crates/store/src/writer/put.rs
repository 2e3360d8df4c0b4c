//! Storing blocks and nodes: which are new, grouped into frames, compressed and sealed.
//!
//! Knows: how neighbours share a frame. Refuses to know: which pack a frame goes to.

use super::{NewBlock, PutCount, Shared};
use crate::frame::Row;
use crate::id::BlockId;
use crate::layout::Content;
use crate::limit::{FRAME_BLOCKS_MAX, NODE_FRAME, NODE_SIZE_MAX};
use base::size::ByteCount;
use base::{Error, Kind, Result};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

impl Shared {
    /// Stores those blocks that are new.
    pub(super) fn put(&self, blocks: &[NewBlock<'_>]) -> Result<PutCount> {
        let mut count = PutCount::default();
        let mut rows: Vec<Row> = Vec::new();
        let mut plain: Vec<u8> = Vec::new();
        let target = self.options.frame_size.0 as usize;
        for block in blocks {
            self.check_block(block)?;
            if !self.promise(&block.id)? {
                continue;
            }
            count.blocks += 1;
            count.plain += ByteCount(block.bytes.len() as u64);
            let full = plain.len() + block.bytes.len() > target || rows.len() == FRAME_BLOCKS_MAX;
            if full && !rows.is_empty() {
                count.stored += self.put_frame(std::mem::take(&mut rows), &plain)?;
                plain.clear();
            }
            rows.push(Row {
                id: block.id,
                length: block.bytes.len() as u32,
            });
            plain.extend_from_slice(block.bytes);
        }
        if !rows.is_empty() {
            count.stored += self.put_frame(rows, &plain)?;
        }
        self.new_bytes.fetch_add(count.plain.0, Ordering::AcqRel);
        Ok(count)
    }

    fn check_block(&self, block: &NewBlock<'_>) -> Result<()> {
        let cutter = self.inner.blocks.cutter();
        if block.bytes.is_empty() || block.bytes.len() > cutter.parameters().max as usize {
            return Err(Error::invalid(
                "store.block.length",
                format!("a block of {} bytes", block.bytes.len()),
            ));
        }
        if self.options.check_ids && cutter.block_id(block.bytes) != block.id {
            return Err(Error::corrupt(
                "store.block.id-mismatch",
                format!("the bytes of block {} changed on the way", block.id),
            )
            .hint("test the memory of both machines and the network between them"));
        }
        Ok(())
    }

    /// Promises to store a block; false where it is there or another thread promised.
    fn promise(&self, id: &BlockId) -> Result<bool> {
        if self
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(id)
            || self.index().has(Content::Data, id)?
        {
            return Ok(false);
        }
        Ok(self
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(*id))
    }

    fn put_frame(&self, rows: Vec<Row>, plain: &[u8]) -> Result<ByteCount> {
        let codecs = self.inner.blocks.codecs();
        let (header, bytes) = self.maker.make(Content::Data, rows, plain, codecs)?;
        self.append_data(header.rows, &bytes)?;
        Ok(ByteCount(bytes.len() as u64))
    }

    /// Stores a tree node where it is new; its id.
    pub(super) fn put_node(&self, bytes: &[u8]) -> Result<BlockId> {
        if bytes.len() > NODE_SIZE_MAX {
            return Err(Error::new(
                Kind::Bug,
                "store.node.too-large",
                "a tree node is too large",
            ));
        }
        let id = self.inner.blocks.node_id(bytes);
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if nodes.known.contains(&id) || self.index().has(Content::Tree, &id)? {
            return Ok(id);
        }
        nodes.known.insert(id);
        let full =
            nodes.plain.len() + bytes.len() > NODE_FRAME || nodes.rows.len() == FRAME_BLOCKS_MAX;
        if full && !nodes.rows.is_empty() {
            self.close_node_frame(&mut nodes)?;
        }
        nodes.rows.push(Row {
            id,
            length: bytes.len() as u32,
        });
        nodes.plain.extend_from_slice(bytes);
        Ok(id)
    }
}
