//! Writing new qcow2 images (version 3, clusters of 64 KiB), at any place and in any order.
//!
//! Knows: clusters are allocated when first written, whole clusters of zeros are given back, and
//! in which order things become durable. Refuses to know: backing images, compression.
//!
//! # Order
//! Data and counts are durable before the L2 tables that name the data, L2 tables before the L1
//! table; and a cluster is reused only when no durable table names it any more. So
//! at every moment the file is a sound image that holds at least what the last
//! [`flush`](BlockWrite::flush) kept; a crash may leak clusters but never shares or loses one.

use super::header::{Header, corrupt};
use super::refcount::Allocator;
use super::table::OFFSET_MASK;
use crate::extent::{EXTENTS_PER_ANSWER, LOOKUPS_PER_ANSWER};
use crate::file::{GrowingFile, HostFile};
use crate::inflate::Compression;
use base::block::{BlockRead, BlockWrite, Extent, check_range, push_extent};
use base::size::{ByteCount, ByteOffset, ByteRange};
use base::{Error, Kind, Result};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

const CLUSTER_BITS: u32 = 16;
const CLUSTER: u64 = 1 << CLUSTER_BITS;
const ENTRIES: u64 = CLUSTER / 8;
/// The bytes of the disk that one L2 table describes.
const COVERAGE: u64 = ENTRIES * CLUSTER;
/// Set in entries whose cluster is counted once, which is all of ours.
const FLAG_COPIED: u64 = 1 << 63;
/// The largest disk: beyond it QEMU's bound on the table of reference counts comes near.
const SIZE_MAX: u64 = 1 << 50;
/// L2 tables kept in memory (8 MiB).
const L2_TABLES_MAX: usize = 128;
/// Clusters given back before they are recycled without being asked (256 MiB).
const WAITING_MAX: usize = 4096;

/// A new qcow2 image. Reads give what was written.
pub struct Qcow2Writer {
    size: u64,
    file: Box<dyn GrowingFile>,
    state: Mutex<State>,
    /// Held shared while data is read or written at a place found before, and alone while clusters
    /// are recycled: so that nobody writes to a cluster that became somebody else's.
    in_use: RwLock<()>,
}

struct State {
    allocator: Allocator,
    l1_offset: u64,
    l1: Vec<u64>,
    l1_dirty: bool,
    l2: BTreeMap<u64, L2Table>,
    clock: u64,
    /// Once writing a table failed nothing is known about the file: all further writes fail.
    failed: bool,
}

struct L2Table {
    entries: Vec<u64>,
    dirty: bool,
    last_used: u64,
}

/// Makes a new qcow2 image (version 3) of `size` zeros.
///
/// # Errors
/// `Exists` where the name is taken; `Limit` above 1 PiB; `Full`, `Denied` and others of the
/// system.
pub fn create(path: &Path, size: ByteCount) -> Result<Qcow2Writer> {
    check_size(size)?;
    Qcow2Writer::on(Box::new(HostFile::create(path)?), size)
}

fn check_size(size: ByteCount) -> Result<()> {
    if size.0 > SIZE_MAX {
        return Err(Error::new(
            Kind::Limit,
            "disk.qcow2.size-too-large",
            format!(
                "a qcow2 image of {size} is larger than the {} we make",
                ByteCount(SIZE_MAX)
            ),
        ));
    }
    Ok(())
}

impl Qcow2Writer {
    /// Makes an image in an empty file.
    pub(super) fn on(file: Box<dyn GrowingFile>, size: ByteCount) -> Result<Self> {
        check_size(size)?;
        let l1_entries = size.0.div_ceil(COVERAGE).max(1);
        let l1_clusters = l1_entries.div_ceil(ENTRIES);
        // All data, all tables, the counts themselves, and those that wait to be recycled.
        let most_clusters = size.0.div_ceil(CLUSTER) + l1_entries + l1_clusters;
        let most_clusters = most_clusters + most_clusters / 1024 + 16 * WAITING_MAX as u64;
        let table_clusters = Allocator::table_clusters(CLUSTER, most_clusters);
        let l1_offset = (1 + table_clusters) * CLUSTER;
        let header = Header {
            version: 3,
            cluster_bits: CLUSTER_BITS,
            size: size.0,
            l1_offset,
            l1_entries,
            refcount_table_offset: CLUSTER,
            refcount_table_clusters: table_clusters as u32,
            snapshots: 0,
            dirty: false,
            corrupt: false,
            extended_l2: false,
            compression: Compression::Deflate,
            backing_name: None,
            backing_format: None,
            data_file: None,
        };
        let allocator = Allocator::new(CLUSTER, table_clusters, 1 + table_clusters + l1_clusters);
        file.set_length(allocator.file_length())?;
        file.write_at(0, &header.to_bytes())?;
        let state = State {
            allocator,
            l1_offset,
            l1: vec![0; l1_entries as usize],
            l1_dirty: false,
            l2: BTreeMap::new(),
            clock: 0,
            failed: false,
        };
        let writer = Self {
            size: size.0,
            file,
            state: Mutex::new(state),
            in_use: RwLock::new(()),
        };
        writer.flush()?;
        Ok(writer)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the cluster of `offset` lies, if anywhere, allocating it if asked to.
    fn place(&self, state: &mut State, offset: u64, allocate: bool) -> Result<Option<u64>> {
        let (l1_index, l2_index) = (offset / COVERAGE, (offset % COVERAGE / CLUSTER) as usize);
        if !allocate && !state.has_l2(l1_index) {
            return Ok(None);
        }
        self.load_l2(state, l1_index)?;
        let State { allocator, l2, .. } = state;
        let Some(table) = l2.get_mut(&l1_index) else {
            return Ok(None);
        };
        let entry = &mut table.entries[l2_index];
        if *entry == 0 && allocate {
            *entry = allocator.allocate()? | FLAG_COPIED;
            table.dirty = true;
        }
        let host = *entry & OFFSET_MASK;
        Ok((host != 0).then_some(host))
    }

    /// Takes the cluster of `offset` out of the disk.
    fn drop_cluster(&self, state: &mut State, offset: u64) -> Result<()> {
        let Some(host) = self.place(state, offset, false)? else {
            return Ok(());
        };
        if let Some(table) = state.l2.get_mut(&(offset / COVERAGE)) {
            table.entries[(offset % COVERAGE / CLUSTER) as usize] = 0;
            table.dirty = true;
        }
        state.allocator.release(host);
        Ok(())
    }

    /// Makes `range` read as zeros; says how many clusters wait to be recycled now.
    fn drop_range(&self, range: ByteRange) -> Result<usize> {
        let _held = self.in_use.read().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.state();
        Self::check_usable(&state)?;
        let (mut at, end) = (range.offset.0, range.end().0);
        while at < end {
            if !state.has_l2(at / COVERAGE) {
                at = end.min((at / COVERAGE + 1) * COVERAGE);
                continue;
            }
            let piece = ByteRange::new(at, (CLUSTER - at % CLUSTER).min(end - at));
            at += piece.length.0;
            let starts = piece.offset.0.is_multiple_of(CLUSTER);
            if starts && (piece.length.0 == CLUSTER || at == self.size) {
                self.drop_cluster(&mut state, piece.offset.0)?;
            } else if let Some(host) = self.place(&mut state, piece.offset.0, false)? {
                let zeros = vec![0; piece.length.0 as usize];
                self.file
                    .write_at(host + piece.offset.0 % CLUSTER, &zeros)?;
            }
        }
        Ok(state.allocator.waiting())
    }

    /// Brings the L2 table `index` into memory, making it where it is new.
    fn load_l2(&self, state: &mut State, index: u64) -> Result<()> {
        state.clock += 1;
        let now = state.clock;
        if let Some(table) = state.l2.get_mut(&index) {
            table.last_used = now;
            return Ok(());
        }
        if state.l2.len() >= L2_TABLES_MAX {
            let oldest = state.l2.iter().min_by_key(|(_, table)| table.last_used);
            if let Some((key, dirty)) = oldest.map(|(key, table)| (*key, table.dirty)) {
                if dirty {
                    self.file.sync()?;
                    self.store_tables(state)?;
                }
                state.l2.remove(&key);
            }
        }
        let offset = state.l1[index as usize] & OFFSET_MASK;
        let table = if offset == 0 {
            // Its place in the file is chosen when it is stored.
            L2Table {
                entries: vec![0; ENTRIES as usize],
                dirty: true,
                last_used: now,
            }
        } else {
            let mut bytes = vec![0; CLUSTER as usize];
            self.file.read_at(offset, &mut bytes)?;
            let (words, _) = bytes.as_chunks::<8>();
            let entries = words.iter().map(|word| u64::from_be_bytes(*word)).collect();
            L2Table {
                entries,
                dirty: false,
                last_used: now,
            }
        };
        state.l2.insert(index, table);
        Ok(())
    }

    /// Makes counts, L2 tables and the L1 table durable, in this order. The data they name is
    /// durable already.
    fn store_tables(&self, state: &mut State) -> Result<()> {
        let result = self.try_store_tables(state);
        state.failed |= result.is_err();
        result
    }

    fn try_store_tables(&self, state: &mut State) -> Result<()> {
        for (index, table) in &state.l2 {
            let l1_entry = &mut state.l1[*index as usize];
            if table.dirty && *l1_entry == 0 {
                *l1_entry = state.allocator.allocate()? | FLAG_COPIED;
                state.l1_dirty = true;
            }
        }
        self.file.set_length(state.allocator.file_length())?;
        state.allocator.store(&*self.file)?;
        self.file.sync()?;
        let mut any = false;
        for (index, table) in &mut state.l2 {
            if !table.dirty {
                continue;
            }
            let bytes: Vec<u8> = table.entries.iter().flat_map(|e| e.to_be_bytes()).collect();
            self.file
                .write_at(state.l1[*index as usize] & OFFSET_MASK, &bytes)?;
            table.dirty = false;
            any = true;
        }
        if any {
            self.file.sync()?;
        }
        if state.l1_dirty {
            let bytes: Vec<u8> = state
                .l1
                .iter()
                .flat_map(|entry| entry.to_be_bytes())
                .collect();
            self.file.write_at(state.l1_offset, &bytes)?;
            state.l1_dirty = false;
            self.file.sync()?;
        }
        Ok(())
    }

    fn check_usable(state: &State) -> Result<()> {
        if state.failed {
            return Err(Error::new(
                Kind::Io,
                "disk.qcow2.write-failed-before",
                "a write to this image failed before; what it holds is not known",
            )
            .hint("make the image anew"));
        }
        Ok(())
    }

    /// The pieces of `range` that lie in one cluster each.
    fn pieces(range: ByteRange) -> impl Iterator<Item = ByteRange> {
        let end = range.end().0;
        let mut at = range.offset.0;
        std::iter::from_fn(move || {
            let length = (CLUSTER - at % CLUSTER).min(end.checked_sub(at)?);
            let piece = ByteRange::new(at, length);
            at += length;
            (length > 0).then_some(piece)
        })
    }

    /// The pieces of `range` and where they lie, neighbours in the file joined.
    fn runs(&self, range: ByteRange, allocate: bool) -> Result<Vec<(Option<u64>, u64)>> {
        let mut state = self.state();
        if allocate {
            Self::check_usable(&state)?;
        }
        let mut runs: Vec<(Option<u64>, u64)> = Vec::new();
        for piece in Self::pieces(range) {
            let place = self.place(&mut state, piece.offset.0, allocate)?;
            let host = place.map(|host| host + piece.offset.0 % CLUSTER);
            match runs.last_mut() {
                Some((last, length)) if last.map(|last| last + *length) == host => {
                    *length += piece.length.0;
                }
                _ => runs.push((host, piece.length.0)),
            }
        }
        Ok(runs)
    }
}

impl State {
    fn has_l2(&self, l1_index: u64) -> bool {
        self.l2.contains_key(&l1_index) || self.l1[l1_index as usize] != 0
    }
}

impl BlockRead for Qcow2Writer {
    fn size(&self) -> ByteCount {
        ByteCount(self.size)
    }

    fn read_at(&self, offset: ByteOffset, mut buffer: &mut [u8]) -> Result<()> {
        let range = ByteRange::new(offset.0, buffer.len() as u64);
        check_range(range, self.size())?;
        let _held = self.in_use.read().unwrap_or_else(PoisonError::into_inner);
        for (place, length) in self.runs(range, false)? {
            let (piece, rest) = buffer.split_at_mut(length as usize);
            match place {
                None => piece.fill(0),
                Some(host) => self.read_host(host, piece)?,
            }
            buffer = rest;
        }
        Ok(())
    }

    fn extents(&self, range: ByteRange) -> Result<Vec<Extent>> {
        check_range(range, self.size())?;
        let mut state = self.state();
        let mut extents = Vec::new();
        let mut at = range.offset.0;
        for _ in 0..LOOKUPS_PER_ANSWER {
            if at == range.end().0 || extents.len() == EXTENTS_PER_ANSWER {
                break;
            }
            let rest = range.end().0 - at;
            let extent = if !state.has_l2(at / COVERAGE) {
                Extent::zero(at, rest.min(COVERAGE - at % COVERAGE))
            } else if self.place(&mut state, at, false)?.is_some() {
                Extent::data(at, rest.min(CLUSTER - at % CLUSTER))
            } else {
                Extent::zero(at, rest.min(CLUSTER - at % CLUSTER))
            };
            at = extent.range.end().0;
            push_extent(&mut extents, extent);
        }
        Ok(extents)
    }
}

impl Qcow2Writer {
    /// Reads data; what lies past the end of the file was allocated but not written yet.
    fn read_host(&self, host: u64, buffer: &mut [u8]) -> Result<()> {
        let rest = self.file.length()?.saturating_sub(host);
        let (inside, outside) = buffer.split_at_mut((buffer.len() as u64).min(rest) as usize);
        outside.fill(0);
        if inside.is_empty() {
            Ok(())
        } else {
            self.file.read_at(host, inside)
        }
    }
}

impl BlockWrite for Qcow2Writer {
    fn write_at(&self, offset: ByteOffset, mut bytes: &[u8]) -> Result<()> {
        let range = ByteRange::new(offset.0, bytes.len() as u64);
        check_range(range, self.size())?;
        let _held = self.in_use.read().unwrap_or_else(PoisonError::into_inner);
        for (place, length) in self.runs(range, true)? {
            let (piece, rest) = bytes.split_at(length as usize);
            let host = place.ok_or_else(|| corrupt("no-place", "a cluster was not allocated"))?;
            self.file.write_at(host, piece)?;
            bytes = rest;
        }
        Ok(())
    }

    fn write_zeroes(&self, range: ByteRange) -> Result<()> {
        check_range(range, self.size())?;
        let waiting = self.drop_range(range)?;
        if waiting >= WAITING_MAX {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&self) -> Result<()> {
        // The bulk of the data, while others may still write. The sync that orders data before the
        // tables that name it is the first one of `store_tables`.
        if let Err(error) = self.file.sync() {
            self.state().failed = true;
            return Err(error);
        }
        {
            let mut state = self.state();
            Self::check_usable(&state)?;
            self.store_tables(&mut state)?;
            if state.allocator.waiting() == 0 {
                return Ok(());
            }
        }
        let _alone = self.in_use.write().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.state();
        // Clusters may have been given back since: their tables must be durable as well.
        self.file.sync()?;
        self.store_tables(&mut state)?;
        state.allocator.recycle(&*self.file)?;
        state.allocator.store(&*self.file)
    }
}
