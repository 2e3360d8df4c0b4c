//! Writing an index segment from entries in order.
//!
//! Knows: the order of a segment's parts; only its tables are held in memory.
//! Refuses to know: where entries come from.

use super::segment::{
    self, Entry, Footer, PackRow, Segment, bucket, bucket_bits, filter_blocks, filter_insert,
};
use crate::id::{BlockId, SegmentId};
use crate::layout::{self, Content};
use crate::publish::publish_file;
use base::files::{FileWrite, Files, Path};
use base::id::RepositoryId;
use base::{Error, Kind, Result};
use std::sync::Arc;

/// A segment being written.
pub(crate) struct Builder {
    content: Content,
    repository: RepositoryId,
    path: Path,
    file: Box<dyn FileWrite>,
    hasher: blake3::Hasher,
    /// Entries not yet appended.
    pending: Vec<u8>,
    bits: u32,
    /// How many entries lie before each bucket, up to the current one.
    starts: Vec<u32>,
    checksums: Vec<u32>,
    checksum: u32,
    filter: Vec<u8>,
    count: u64,
    last: Option<BlockId>,
}

/// Bytes gathered before they are appended.
const GATHER: usize = 1 << 20;

impl Builder {
    /// Begins a segment of at most `expected` entries in a new file.
    pub(crate) fn create(
        files: &dyn Files,
        path: Path,
        content: Content,
        repository: RepositoryId,
        expected: u64,
    ) -> Result<Self> {
        let file = files.create(&path)?;
        Ok(Self {
            content,
            repository,
            path,
            file,
            hasher: blake3::Hasher::new(),
            pending: segment::header(content, repository).to_vec(),
            bits: bucket_bits(expected),
            starts: vec![0],
            checksums: Vec::new(),
            checksum: 0,
            filter: vec![0; filter_blocks(expected) as usize * 64],
            count: 0,
            last: None,
        })
    }

    fn flush(&mut self) -> Result<()> {
        self.hasher.update(&self.pending);
        self.file.append(&self.pending)?;
        self.pending.clear();
        Ok(())
    }

    /// Appends an entry. Ids must rise; a second entry of the same id is left out.
    pub(crate) fn push(&mut self, entry: &Entry) -> Result<()> {
        if self.last == Some(entry.id) {
            return Ok(());
        }
        if self.last.is_some_and(|last| last > entry.id) || self.count >= u64::from(u32::MAX) {
            return Err(Error::new(
                Kind::Bug,
                "store.index.order",
                "entries of an index segment are not in order, or too many",
            ));
        }
        self.close_buckets(bucket(&entry.id, self.bits));
        let bytes = entry.bytes();
        self.checksum = crc32c::crc32c_append(self.checksum, &bytes);
        self.pending.extend_from_slice(&bytes);
        filter_insert(&mut self.filter, &entry.id);
        self.count += 1;
        self.last = Some(entry.id);
        if self.pending.len() >= GATHER {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// Ends all buckets before `number`.
    fn close_buckets(&mut self, number: usize) {
        while self.checksums.len() < number {
            self.checksums.push(std::mem::take(&mut self.checksum));
            self.starts.push(self.count as u32);
        }
    }

    /// Appends the tables, makes the segment durable and publishes it. Returns it, open.
    pub(crate) fn finish(
        mut self,
        files: &dyn Files,
        packs: &[PackRow],
        replaces: &[SegmentId],
    ) -> Result<Arc<Segment>> {
        self.close_buckets(1 << self.bits);
        let mut tables = Vec::new();
        for word in self.starts.iter().chain(&self.checksums) {
            tables.extend_from_slice(&word.to_le_bytes());
        }
        let mut rows: Vec<u8> = packs.iter().flat_map(PackRow::bytes).collect();
        rows.extend(replaces.iter().flat_map(|id| *id.bytes()));
        let footer = Footer {
            entries: self.count,
            bits: self.bits,
            filter_blocks: (self.filter.len() / 64) as u32,
            packs: packs.len() as u32,
            replaces: replaces.len() as u32,
            buckets_crc: crc32c::crc32c(&tables),
            filter_crc: crc32c::crc32c(&self.filter),
            packs_crc: crc32c::crc32c(&rows),
        };
        self.flush()?;
        for part in [&tables, &self.filter, &rows, &footer.bytes().to_vec()] {
            self.hasher.update(part);
            self.file.append(part)?;
        }
        self.file.sync()?;
        let id = SegmentId::from_bytes(*self.hasher.finalize().as_bytes());
        let to = layout::segment(&id)?;
        publish_file(files, &self.path, &to)?;
        let segment = Segment::open(id, files.open(&to)?, self.repository)?;
        debug_assert_eq!(segment.content, self.content);
        Ok(Arc::new(segment))
    }
}

/// Publishes a segment of entries that are in memory, in any order.
pub(crate) fn publish_entries(
    files: &dyn Files,
    path: Path,
    content: Content,
    repository: RepositoryId,
    mut entries: Vec<Entry>,
    packs: &[PackRow],
    replaces: &[SegmentId],
) -> Result<Arc<Segment>> {
    entries.sort_unstable();
    entries.dedup_by_key(|entry| entry.id);
    let mut builder = Builder::create(files, path, content, repository, entries.len() as u64)?;
    for entry in &entries {
        builder.push(entry)?;
    }
    builder.finish(files, packs, replaces)
}
