//! One index segment, open for looking things up.
//!
//! Knows: the bytes of a segment and how to find an entry with one range read. Only small tables
//! are held in memory, and those only once something was looked up.
//! Refuses to know: the other segments.

use super::Place;
use crate::fields::{Fields, check_version, malformed};
use crate::id::{BlockId, PackId, SegmentId};
use crate::layout::{Content, FORMAT_MAJOR, FORMAT_MINOR};
use crate::limit::{SEGMENT_ENTRIES_MAX, SEGMENT_PACKS_MAX};
use base::files::FileRead;
use base::id::{RepositoryId, WriterId};
use base::size::ByteOffset;
use base::{Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

const MAGIC: &[u8; 8] = b"BKSTINDX";
const END_MAGIC: &[u8; 8] = b"BKIXEND1";
/// Bytes of the header.
pub(super) const HEADER: usize = 32;
/// Bytes of an entry.
pub(super) const ENTRY: usize = 48;
/// Bytes of a row of the table of packs.
const PACK_ROW: usize = 64;
/// Bytes of the footer.
const FOOTER: usize = 64;
/// Bytes of one block of the filter.
const FILTER_BLOCK: usize = 64;
/// Bits set in the filter for an entry.
const FILTER_BITS: u32 = 8;
/// Entries for which the filter has one block: about 12 bits an entry, 1 % false hits.
const FILTER_ENTRIES: u64 = 42;
/// Entries of a bucket, on average, are between this and twice this.
const BUCKET: u64 = 24;
/// Most bits of an id that choose a bucket.
const BUCKET_BITS_MAX: u32 = 20;

/// Where a block lies, as an entry says it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Entry {
    pub(crate) id: BlockId,
    /// Row in the segment's table of packs.
    pub(crate) pack: u32,
    pub(crate) offset: u32,
    pub(crate) length: u32,
    pub(crate) position: u16,
}

impl Entry {
    pub(super) fn bytes(&self) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];
        bytes[..32].copy_from_slice(self.id.bytes());
        bytes[32..36].copy_from_slice(&self.pack.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.offset.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.length.to_le_bytes());
        bytes[44..46].copy_from_slice(&self.position.to_le_bytes());
        bytes
    }

    pub(super) fn parse(bytes: &[u8; ENTRY]) -> Result<Self> {
        let mut fields = Fields::new(bytes, "an index entry");
        Ok(Self {
            id: BlockId::from_bytes(fields.array()?),
            pack: fields.u32()?,
            offset: fields.u32()?,
            length: fields.u32()?,
            position: fields.u16()?,
        })
    }

    /// The place it means.
    pub(crate) const fn place(&self, content: Content, pack: PackId) -> Place {
        Place {
            content,
            pack,
            offset: self.offset,
            length: self.length,
            position: self.position,
        }
    }
}

/// A pack that a segment lists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PackRow {
    pub(crate) id: PackId,
    /// Who wrote it.
    pub(crate) writer: WriterId,
    /// Its bytes.
    pub(crate) length: u64,
}

impl PackRow {
    pub(super) fn bytes(&self) -> [u8; PACK_ROW] {
        let mut bytes = [0; PACK_ROW];
        bytes[..32].copy_from_slice(self.id.bytes());
        bytes[32..48].copy_from_slice(&self.writer.bytes());
        bytes[48..56].copy_from_slice(&self.length.to_le_bytes());
        bytes
    }
}

/// The header of a segment.
pub(super) fn header(content: Content, repository: RepositoryId) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..10].copy_from_slice(&FORMAT_MAJOR.to_le_bytes());
    bytes[10..12].copy_from_slice(&FORMAT_MINOR.to_le_bytes());
    bytes[12] = content.code();
    bytes[16..32].copy_from_slice(&repository.bytes());
    bytes
}

/// The footer of a segment: how many of each thing, and checksums of the tables.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Footer {
    pub(super) entries: u64,
    pub(super) bits: u32,
    pub(super) filter_blocks: u32,
    pub(super) packs: u32,
    pub(super) replaces: u32,
    pub(super) buckets_crc: u32,
    pub(super) filter_crc: u32,
    pub(super) packs_crc: u32,
}

impl Footer {
    pub(super) fn bytes(&self) -> [u8; FOOTER] {
        let mut bytes = [0; FOOTER];
        bytes[..8].copy_from_slice(&self.entries.to_le_bytes());
        let words = [
            self.bits,
            self.filter_blocks,
            self.packs,
            self.replaces,
            self.buckets_crc,
            self.filter_crc,
            self.packs_crc,
        ];
        for (place, word) in bytes[8..36].chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        let crc = crc32c::crc32c(&bytes[..52]);
        bytes[52..56].copy_from_slice(&crc.to_le_bytes());
        bytes[56..].copy_from_slice(END_MAGIC);
        bytes
    }

    fn parse(bytes: &[u8; FOOTER]) -> Result<Self> {
        let mut fields = Fields::new(bytes, "an index segment's footer");
        let footer = Self {
            entries: fields.u64()?,
            bits: fields.u32()?,
            filter_blocks: fields.u32()?,
            packs: fields.u32()?,
            replaces: fields.u32()?,
            buckets_crc: fields.u32()?,
            filter_crc: fields.u32()?,
            packs_crc: fields.u32()?,
        };
        fields.bytes(16)?;
        let crc = fields.u32()?;
        fields.expect(END_MAGIC, "magic")?;
        if crc32c::crc32c(&bytes[..52]) != crc {
            return Err(fields.wrong("its checksum is wrong"));
        }
        if footer.entries > SEGMENT_ENTRIES_MAX.min(u64::from(u32::MAX))
            || footer.bits > BUCKET_BITS_MAX
            || footer.packs > SEGMENT_PACKS_MAX
            || footer.replaces > SEGMENT_PACKS_MAX
            || (footer.filter_blocks == 0 && footer.entries > 0)
        {
            return Err(fields.wrong("its counts are beyond all bounds"));
        }
        Ok(footer)
    }

    const fn buckets(&self) -> u64 {
        1 << self.bits
    }

    const fn buckets_offset(&self) -> u64 {
        HEADER as u64 + self.entries * ENTRY as u64
    }

    /// Starts of buckets and one end, then a checksum a bucket.
    const fn buckets_length(&self) -> u64 {
        (2 * self.buckets() + 1) * 4
    }

    const fn filter_offset(&self) -> u64 {
        self.buckets_offset() + self.buckets_length()
    }

    const fn filter_length(&self) -> u64 {
        self.filter_blocks as u64 * FILTER_BLOCK as u64
    }

    const fn packs_offset(&self) -> u64 {
        self.filter_offset() + self.filter_length()
    }

    const fn packs_length(&self) -> u64 {
        self.packs as u64 * PACK_ROW as u64 + self.replaces as u64 * 32
    }

    const fn total(&self) -> u64 {
        self.packs_offset() + self.packs_length() + FOOTER as u64
    }
}

/// How many bits of an id choose a bucket among so many entries.
pub(super) const fn bucket_bits(entries: u64) -> u32 {
    let mut bits = 0;
    while bits < BUCKET_BITS_MAX && (entries >> bits) >= 2 * BUCKET {
        bits += 1;
    }
    bits
}

/// The bucket of an id.
pub(super) fn bucket(id: &BlockId, bits: u32) -> usize {
    let first = u64::from_be_bytes(*id.bytes().first_chunk().unwrap_or(&[0; 8]));
    if bits == 0 {
        0
    } else {
        (first >> (64 - bits)) as usize
    }
}

/// How many blocks the filter of so many entries has.
pub(super) const fn filter_blocks(entries: u64) -> u32 {
    if entries == 0 {
        0
    } else {
        (entries / FILTER_ENTRIES + 1) as u32
    }
}

/// The byte of the filter's block where an id's bits lie, and those bits as (byte, mask).
fn filter_places(id: &BlockId, blocks: u32) -> (usize, [(usize, u8); FILTER_BITS as usize]) {
    let bytes = id.bytes();
    let mut high = [0; 8];
    high.copy_from_slice(&bytes[8..16]);
    let block = ((u128::from(u64::from_le_bytes(high)) * u128::from(blocks)) >> 64) as usize;
    let mut low = [0; 16];
    low.copy_from_slice(&bytes[16..]);
    let mut bits = u128::from_le_bytes(low);
    let places = std::array::from_fn(|_| {
        let bit = (bits & 511) as usize;
        bits >>= 9;
        (bit / 8, 1 << (bit % 8))
    });
    (block * FILTER_BLOCK, places)
}

/// Notes an id in a filter.
pub(super) fn filter_insert(filter: &mut [u8], id: &BlockId) {
    let blocks = (filter.len() / FILTER_BLOCK) as u32;
    let (block, places) = filter_places(id, blocks);
    for (byte, mask) in places {
        if let Some(byte) = filter.get_mut(block + byte) {
            *byte |= mask;
        }
    }
}

/// Starts and checksums of buckets.
struct Buckets {
    starts: Vec<u32>,
    checksums: Vec<u32>,
}

/// A segment, open.
pub(crate) struct Segment {
    pub(crate) id: SegmentId,
    pub(crate) content: Content,
    /// The packs it lists.
    pub(crate) packs: Vec<PackRow>,
    /// Older segments that it makes void.
    pub(crate) replaces: Vec<SegmentId>,
    /// How many entries it has.
    pub(crate) count: u64,
    /// Its bytes.
    pub(crate) length: u64,
    file: Arc<dyn FileRead>,
    footer: Footer,
    buckets: OnceLock<Buckets>,
    filter: OnceLock<Vec<u8>>,
    /// Set once a part of it turned out damaged.
    suspect: AtomicBool,
}

impl Segment {
    /// Opens a segment: reads its footer and its table of packs.
    pub(crate) fn open(
        id: SegmentId,
        file: Arc<dyn FileRead>,
        repository: RepositoryId,
    ) -> Result<Self> {
        let what = "an index segment";
        let length = file.length()?.0;
        if length < (HEADER + FOOTER) as u64 {
            return Err(malformed(what, "it is too short"));
        }
        let mut head = [0; HEADER];
        file.read_at(ByteOffset::ZERO, &mut head)?;
        let mut fields = Fields::new(&head, what);
        fields.expect(MAGIC, "magic")?;
        check_version(fields.u16()?, what)?;
        fields.u16()?;
        let content = Content::from_code(fields.u8()?).ok_or_else(|| fields.wrong("its kind"))?;
        fields.bytes(3)?;
        fields.expect(&repository.bytes(), "repository")?;
        let mut foot = [0; FOOTER];
        file.read_at(ByteOffset(length - FOOTER as u64), &mut foot)?;
        let footer = Footer::parse(&foot)?;
        if footer.total() != length {
            return Err(malformed(what, "its length is wrong"));
        }
        let mut rows = vec![0; footer.packs_length() as usize];
        file.read_at(ByteOffset(footer.packs_offset()), &mut rows)?;
        if crc32c::crc32c(&rows) != footer.packs_crc {
            return Err(malformed(what, "the checksum of its packs is wrong"));
        }
        let mut fields = Fields::new(&rows, what);
        let mut packs = Vec::with_capacity(footer.packs as usize);
        for _ in 0..footer.packs {
            packs.push(PackRow {
                id: PackId::from_bytes(fields.array()?),
                writer: WriterId::from_bytes(fields.array()?),
                length: fields.u64()?,
            });
            fields.u64()?;
        }
        let mut replaces = Vec::with_capacity(footer.replaces as usize);
        for _ in 0..footer.replaces {
            replaces.push(SegmentId::from_bytes(fields.array()?));
        }
        Ok(Self {
            id,
            content,
            packs,
            replaces,
            count: footer.entries,
            length,
            file,
            footer,
            buckets: OnceLock::new(),
            filter: OnceLock::new(),
            suspect: AtomicBool::new(false),
        })
    }

    /// Whether a part of it turned out damaged: then its packs are better asked themselves.
    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Acquire)
    }

    /// Notes damage.
    fn damaged(&self, reason: &str) -> Error {
        self.suspect.store(true, Ordering::Release);
        malformed("an index segment", reason)
    }

    /// The pack an entry names.
    pub(crate) fn pack(&self, entry: &Entry) -> Result<&PackRow> {
        self.packs
            .get(entry.pack as usize)
            .ok_or_else(|| malformed("an index entry", "its pack is not in the segment"))
    }

    fn read(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length as usize];
        self.file.read_at(ByteOffset(offset), &mut bytes)?;
        Ok(bytes)
    }

    fn buckets(&self) -> Result<&Buckets> {
        if let Some(buckets) = self.buckets.get() {
            return Ok(buckets);
        }
        let bytes = self.read(self.footer.buckets_offset(), self.footer.buckets_length())?;
        if crc32c::crc32c(&bytes) != self.footer.buckets_crc {
            return Err(self.damaged("the checksum of its buckets is wrong"));
        }
        let mut words: Vec<u32> = bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|four| u32::from_le_bytes(*four))
            .collect();
        let checksums = words.split_off(self.footer.buckets() as usize + 1);
        let in_order = words.is_sorted() && words.last() == Some(&(self.count as u32));
        if !in_order {
            return Err(self.damaged("its buckets are not in order"));
        }
        Ok(self.buckets.get_or_init(|| Buckets {
            starts: words,
            checksums,
        }))
    }

    fn filter(&self) -> Result<&[u8]> {
        if let Some(filter) = self.filter.get() {
            return Ok(filter);
        }
        let bytes = self.read(self.footer.filter_offset(), self.footer.filter_length())?;
        if crc32c::crc32c(&bytes) != self.footer.filter_crc {
            return Err(self.damaged("the checksum of its filter is wrong"));
        }
        Ok(self.filter.get_or_init(|| bytes))
    }

    /// Whether the id may be here: false is certain.
    fn may_have(&self, id: &BlockId) -> Result<bool> {
        let filter = self.filter()?;
        let (block, places) = filter_places(id, self.footer.filter_blocks);
        Ok(places.iter().all(|(byte, mask)| {
            filter
                .get(block + byte)
                .is_some_and(|byte| byte & mask != 0)
        }))
    }

    /// The entry of an id.
    pub(crate) fn find(&self, id: &BlockId) -> Result<Option<Entry>> {
        Ok(self.locate(id)?.map(|(_, entry)| entry))
    }

    /// The entry of an id and its number in the segment.
    pub(crate) fn locate(&self, id: &BlockId) -> Result<Option<(u64, Entry)>> {
        if self.count == 0 || !self.may_have(id)? {
            return Ok(None);
        }
        let number = bucket(id, self.footer.bits);
        let buckets = self.buckets()?;
        let (start, end) = (buckets.starts[number], buckets.starts[number + 1]);
        if start == end {
            return Ok(None);
        }
        let bytes = self.bucket_bytes(start, end, buckets.checksums[number])?;
        let (entries, _) = bytes.as_chunks::<ENTRY>();
        match entries.binary_search_by(|entry| entry[..32].cmp(id.bytes())) {
            Ok(at) => Ok(Some((
                u64::from(start) + at as u64,
                Entry::parse(&entries[at])?,
            ))),
            Err(_) => Ok(None),
        }
    }

    fn bucket_bytes(&self, start: u32, end: u32, checksum: u32) -> Result<Vec<u8>> {
        let offset = HEADER as u64 + u64::from(start) * ENTRY as u64;
        let bytes = self.read(offset, u64::from(end - start) * ENTRY as u64)?;
        if crc32c::crc32c(&bytes) == checksum {
            return Ok(bytes);
        }
        // Once more, before the medium is accused of what the way from it may have done.
        let bytes = self.read(offset, u64::from(end - start) * ENTRY as u64)?;
        if crc32c::crc32c(&bytes) == checksum {
            return Ok(bytes);
        }
        Err(self.damaged("the checksum of a bucket is wrong"))
    }

    /// Reads all entries from first to last.
    pub(crate) fn reader(&self) -> EntryReader<'_> {
        EntryReader {
            segment: self,
            bucket: 0,
            entries: Vec::new(),
            at: 0,
            number: 0,
        }
    }
}

/// Entries of a segment from first to last, one bucket in memory at a time.
pub(crate) struct EntryReader<'a> {
    segment: &'a Segment,
    bucket: usize,
    entries: Vec<u8>,
    at: usize,
    number: u64,
}

impl EntryReader<'_> {
    /// The next entry and its number.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, Entry)>> {
        loop {
            if let Some(bytes) = self
                .entries
                .get(self.at..)
                .and_then(|rest| rest.first_chunk::<ENTRY>())
            {
                self.at += ENTRY;
                let number = self.number;
                self.number += 1;
                return Ok(Some((number, Entry::parse(bytes)?)));
            }
            let buckets = self.segment.buckets()?;
            if self.bucket >= buckets.checksums.len() {
                return Ok(None);
            }
            let (start, end) = (buckets.starts[self.bucket], buckets.starts[self.bucket + 1]);
            self.entries = self
                .segment
                .bucket_bytes(start, end, buckets.checksums[self.bucket])?;
            self.at = 0;
            self.bucket += 1;
        }
    }
}
