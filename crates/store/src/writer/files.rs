//! A writer's packs and index segments, from the first frame to their published names.
//!
//! Knows: one open pack of each kind, when it is full, and that tree packs wait until all data is
//! durable. Refuses to know: what is in the frames.

use super::Shared;
use crate::frame::Row;
use crate::id::BlockId;
use crate::index::{Entry, PackRow, publish_entries};
use crate::layout::{self, Content};
use crate::limit::ENTRIES_IN_MEMORY;
use crate::pack::{self, FinishedPack, PackWriter};
use crate::publish::{make_folder, publish_file};
use base::Result;
use base::files::Path;
use std::collections::HashSet;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

/// Data packs of a writer.
#[derive(Default)]
pub(super) struct DataPacks {
    open: Option<PackWriter>,
    unlisted: Unlisted,
}

/// Tree packs of a writer.
#[derive(Default)]
pub(super) struct TreePacks {
    /// The frame being gathered.
    pub(super) rows: Vec<Row>,
    pub(super) plain: Vec<u8>,
    /// Nodes that this writer put.
    pub(super) known: HashSet<BlockId>,
    open: Option<PackWriter>,
    /// Complete and durable, but not published before all data is.
    ready: Vec<FinishedPack>,
}

/// Published packs whose index segment is not out yet.
#[derive(Default)]
struct Unlisted {
    packs: Vec<PackRow>,
    entries: Vec<Entry>,
}

impl Unlisted {
    fn add(&mut self, pack: &FinishedPack) {
        let ordinal = self.packs.len() as u32;
        self.packs.push(PackRow {
            id: pack.id,
            writer: pack.writer,
            length: pack.length,
        });
        for frame in &pack.frames {
            for (position, row) in frame.rows.iter().enumerate() {
                self.entries.push(Entry {
                    id: row.id,
                    pack: ordinal,
                    offset: frame.offset,
                    length: frame.length,
                    position: position as u16,
                });
            }
        }
    }
}

impl Shared {
    fn create_pack(&self, content: Content) -> Result<PackWriter> {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let header = pack::Header {
            content,
            cipher: self.inner.config.cipher.code(),
            repository: self.inner.config.id,
            writer: self.member.id,
            sequence,
        };
        let path = self.member.path(&format!("pack-{sequence}"))?;
        PackWriter::create(&*self.inner.files, path, header)
    }

    /// Appends a frame to the open data pack. The lock is held for the append alone; a pack that is
    /// full is finished by the thread that filled it while others go on with the next.
    pub(super) fn append_data(&self, rows: Vec<Row>, frame: &[u8]) -> Result<()> {
        let full = {
            let mut data = self.data.lock().unwrap_or_else(PoisonError::into_inner);
            let mut open = match data.open.take() {
                Some(open) => open,
                None => self.create_pack(Content::Data)?,
            };
            open.push(rows, frame)?;
            if open.length() >= self.inner.config.pack_size.0 {
                Some(open)
            } else {
                data.open = Some(open);
                None
            }
        };
        match full {
            Some(pack) => self.finish_data_pack(pack),
            None => Ok(()),
        }
    }

    fn finish_data_pack(&self, pack: PackWriter) -> Result<()> {
        let pack = pack.finish()?;
        self.publish_pack(&pack)?;
        let ripe = {
            let mut data = self.data.lock().unwrap_or_else(PoisonError::into_inner);
            data.unlisted.add(&pack);
            if data.unlisted.entries.len() < ENTRIES_IN_MEMORY {
                return Ok(());
            }
            std::mem::take(&mut data.unlisted)
        };
        self.publish_data_index(ripe)
    }

    fn publish_pack(&self, pack: &FinishedPack) -> Result<()> {
        let files = &*self.inner.files;
        self.ensure_folder(&layout::pack_folder(pack.content, &pack.id)?)?;
        publish_file(files, &pack.path, &layout::pack(pack.content, &pack.id)?)?;
        self.stored_bytes.fetch_add(pack.length, Ordering::AcqRel);
        Ok(())
    }

    /// Makes a folder and its name durable, once.
    fn ensure_folder(&self, folder: &Path) -> Result<()> {
        if self
            .folders
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(folder)
        {
            return Ok(());
        }
        make_folder(&*self.inner.files, folder)?;
        self.folders
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(folder.clone());
        Ok(())
    }

    fn publish_data_index(&self, unlisted: Unlisted) -> Result<()> {
        let ids: Vec<BlockId> = unlisted.entries.iter().map(|entry| entry.id).collect();
        self.publish_index(Content::Data, unlisted)?;
        // From here on the segment answers for these blocks.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for id in &ids {
            known.remove(id);
        }
        Ok(())
    }

    fn publish_index(&self, content: Content, unlisted: Unlisted) -> Result<()> {
        if unlisted.packs.is_empty() {
            return Ok(());
        }
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let segment = publish_entries(
            &*self.inner.files,
            self.member.path(&format!("segment-{sequence}"))?,
            content,
            self.inner.config.id,
            unlisted.entries,
            &unlisted.packs,
            &[],
        )?;
        self.stored_bytes
            .fetch_add(segment.length, Ordering::AcqRel);
        self.add_segment(segment);
        Ok(())
    }

    /// Makes all data durable and lists it.
    pub(super) fn finish_data(&self) -> Result<()> {
        let open = self
            .data
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .open
            .take();
        if let Some(pack) = open {
            self.finish_data_pack(pack)?;
        }
        let unlisted = std::mem::take(
            &mut self
                .data
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .unlisted,
        );
        self.publish_data_index(unlisted)
    }

    /// Seals the gathered nodes into the open tree pack.
    pub(super) fn close_node_frame(&self, nodes: &mut TreePacks) -> Result<()> {
        if nodes.rows.is_empty() {
            return Ok(());
        }
        let rows = std::mem::take(&mut nodes.rows);
        let plain = std::mem::take(&mut nodes.plain);
        let codecs = self.inner.blocks.codecs();
        let (header, bytes) = self.maker.make(Content::Tree, rows, &plain, codecs)?;
        let mut open = match nodes.open.take() {
            Some(open) => open,
            None => self.create_pack(Content::Tree)?,
        };
        open.push(header.rows, &bytes)?;
        if open.length() >= self.inner.config.pack_size.0 {
            nodes.ready.push(open.finish()?);
        } else {
            nodes.open = Some(open);
        }
        Ok(())
    }

    /// Makes all trees durable, publishes and lists them. Only after [`Self::finish_data`].
    pub(super) fn finish_trees(&self) -> Result<()> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        self.close_node_frame(&mut nodes)?;
        if let Some(open) = nodes.open.take() {
            nodes.ready.push(open.finish()?);
        }
        let mut unlisted = Unlisted::default();
        for pack in std::mem::take(&mut nodes.ready) {
            self.publish_pack(&pack)?;
            unlisted.add(&pack);
        }
        self.publish_index(Content::Tree, unlisted)?;
        nodes.known.clear();
        Ok(())
    }
}
