//! Packs made anew: frames in use moved out of sparse packs; lost lists made again.
//!
//! Knows: that a frame can be moved as it is. Refuses to know: keys and what is in the frames.

use super::census::Members;
use super::mark::Marker;
use super::{PackInfo, Run};
use crate::frame;
use crate::id::PackId;
use crate::index::{Entry, Index, PackRow, publish_entries};
use crate::layout::{self, Content};
use crate::limit::{ENTRIES_IN_MEMORY, FRAME_STORED_MAX};
use crate::membership::Membership;
use crate::pack::{self, FinishedPack, FrameEntry, PackWriter};
use crate::publish::{make_folder, publish_file};
use base::size::ByteOffset;
use base::{Kind, Result};

/// Index rows of packs, gathered until they make a segment.
#[derive(Default)]
struct Rows {
    packs: Vec<PackRow>,
    entries: Vec<Entry>,
}

impl Rows {
    fn add(&mut self, row: PackRow, frames: &[FrameEntry]) {
        let ordinal = self.packs.len() as u32;
        self.packs.push(row);
        for frame in frames {
            for (position, block) in frame.rows.iter().enumerate() {
                self.entries.push(Entry {
                    id: block.id,
                    pack: ordinal,
                    offset: frame.offset,
                    length: frame.length,
                    position: position as u16,
                });
            }
        }
    }

    fn publish(
        self,
        run: &Run<'_>,
        me: &Membership,
        content: Content,
        index: &mut Index,
    ) -> Result<()> {
        if self.packs.is_empty() {
            return Ok(());
        }
        let name = format!("segment-{}-{}", content.code(), self.packs[0].id);
        let segment = publish_entries(
            &*run.inner.files,
            me.path(&name)?,
            content,
            run.inner.config.id,
            self.entries,
            &self.packs,
            &[],
        )?;
        *index = index.with(segment);
        Ok(())
    }
}

/// Lists packs in the index that nobody lists and nobody alive is writing.
pub(super) fn adopt(
    run: &Run<'_>,
    me: &Membership,
    mut index: Index,
    unlisted: &[(PackId, PackInfo)],
    members: &Members,
) -> Result<Index> {
    for content in Content::ALL {
        let mut rows = Rows::default();
        for (id, _) in unlisted.iter().filter(|(_, info)| info.content == content) {
            run.step("list", rows.packs.len() as u64, unlisted.len() as u64)?;
            make_names_durable(run, content, id)?;
            let file = match run.inner.files.open(&layout::pack(content, id)?) {
                Err(error) if error.kind() == Kind::NotFound => continue,
                other => other?,
            };
            let listed = match pack::list_frames(&*file) {
                Ok(listed) if listed.header.content == content => listed,
                // Not a pack of ours any more; verify names it, nobody can use it.
                Ok(_) => continue,
                Err(error) if error.kind() == Kind::Corrupt => continue,
                Err(error) => return Err(error),
            };
            if members.writers.contains_key(&listed.header.writer) {
                continue;
            }
            let row = PackRow {
                id: *id,
                writer: listed.header.writer,
                length: listed.length,
            };
            rows.add(row, &listed.frames);
            if rows.entries.len() >= ENTRIES_IN_MEMORY {
                std::mem::take(&mut rows).publish(run, me, content, &mut index)?;
            }
        }
        rows.publish(run, me, content, &mut index)?;
    }
    Ok(index)
}

/// Makes the name of a pack durable that was found by listing: whoever wrote it may have died
/// between moving it and syncing its folder. Nothing may rely on it before.
fn make_names_durable(run: &Run<'_>, content: Content, id: &PackId) -> Result<()> {
    run.inner
        .files
        .sync_folder(&layout::folder(content.folder())?)?;
    run.inner
        .files
        .sync_folder(&layout::pack_folder(content, id)?)
}

/// Copies the frames in use of sparse packs into new packs, published and listed. Returns the packs
/// that are no longer needed; one with a frame that cannot be read is left alone.
pub(super) fn rewrite(
    run: &mut Run<'_>,
    me: &Membership,
    marker: &Marker<'_>,
    sparse: &[(PackId, PackInfo)],
) -> Result<Vec<(PackId, PackInfo)>> {
    let mut done = Vec::new();
    let mut index = marker.index().clone();
    for content in Content::ALL {
        let mut copier = Copier {
            run,
            me,
            content,
            open: None,
            sequence: 0,
            rows: Rows::default(),
        };
        for (number, (id, info)) in sparse.iter().enumerate() {
            if info.content != content {
                continue;
            }
            copier
                .run
                .step("rewrite", number as u64, sparse.len() as u64)?;
            let Some(frames) = read_frames(copier.run, marker, id, *info)? else {
                continue;
            };
            for (rows, bytes) in frames {
                copier.push(rows, &bytes)?;
            }
            done.push((*id, *info));
        }
        copier.close()?;
        let rows = std::mem::take(&mut copier.rows);
        rows.publish(run, me, content, &mut index)?;
    }
    Ok(done)
}

type Frames = Vec<(Vec<frame::Row>, Vec<u8>)>;

/// The frames in use of a pack, whole and checked; `None` where one is damaged.
fn read_frames(
    run: &Run<'_>,
    marker: &Marker<'_>,
    id: &PackId,
    info: PackInfo,
) -> Result<Option<Frames>> {
    let file = run.inner.files.open(&layout::pack(info.content, id)?)?;
    let mut frames = Vec::new();
    for (offset, length) in marker.live_frames(id) {
        if length as usize > FRAME_STORED_MAX {
            return Ok(None);
        }
        let mut bytes = vec![0; length as usize];
        match file.read_at(ByteOffset(u64::from(offset)), &mut bytes) {
            Err(error) if error.kind() == Kind::Corrupt => return Ok(None),
            other => other?,
        }
        let Ok(header) = frame::Header::parse(&bytes) else {
            return Ok(None);
        };
        let start = frame::header_length(header.rows.len());
        let sealed = bytes.get(start..).unwrap_or(&[]);
        if header.total() != bytes.len() || header.check_sealed(sealed).is_err() {
            return Ok(None);
        }
        frames.push((header.rows, bytes));
    }
    Ok(Some(frames))
}

/// Fills new packs.
struct Copier<'a, 'b> {
    run: &'a Run<'b>,
    me: &'a Membership,
    content: Content,
    open: Option<PackWriter>,
    sequence: u64,
    rows: Rows,
}

impl Copier<'_, '_> {
    fn push(&mut self, rows: Vec<frame::Row>, bytes: &[u8]) -> Result<()> {
        let config = &self.run.inner.config;
        let mut open = match self.open.take() {
            Some(open) => open,
            None => {
                let sequence = self.sequence;
                self.sequence += 1;
                let header = pack::Header {
                    content: self.content,
                    cipher: config.cipher.code(),
                    repository: config.id,
                    writer: self.me.id,
                    sequence: sequence * 2 + u64::from(self.content == Content::Tree),
                };
                let name = format!("pack-{}-{sequence}", self.content.code());
                PackWriter::create(&*self.run.inner.files, self.me.path(&name)?, header)?
            }
        };
        open.push(rows, bytes)?;
        self.open = Some(open);
        let full = self
            .open
            .as_ref()
            .is_some_and(|open| open.length() >= config.pack_size.0);
        if full { self.close() } else { Ok(()) }
    }

    fn close(&mut self) -> Result<()> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        let files = &*self.run.inner.files;
        let FinishedPack {
            id,
            content,
            writer,
            path,
            length,
            frames,
        } = open.finish()?;
        make_folder(files, &layout::pack_folder(content, &id)?)?;
        publish_file(files, &path, &layout::pack(content, &id)?)?;
        self.rows.add(PackRow { id, writer, length }, &frames);
        Ok(())
    }
}
