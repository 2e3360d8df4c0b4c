//! Frames: neighbouring blocks, compressed together and sealed (format page, section "Frames").
//!
//! Knows: the bytes of a frame, how to make one and how to open one. A frame says all about itself
//! and is bound to nothing around it, so it can be moved to another pack without its keys.
//! Refuses to know: which pack it lies in and how blocks are found.

mod codec;
#[cfg(test)]
mod tests;

pub(crate) use codec::Codecs;

use crate::fields::{Fields, malformed};
use crate::id::BlockId;
use crate::key::{FRAME, KeySet};
use crate::layout::Content;
use crate::limit::{FRAME_BLOCKS_MAX, FRAME_PLAIN_MAX};
use crate::seal::{Cipher, Sealer, TAG};
use base::id::RepositoryId;
use base::{Error, Kind, Result};
use codec::Codec;
use std::sync::atomic::{AtomicU64, Ordering};

const MAGIC: &[u8; 4] = b"BKFR";
/// Bytes before the block table.
const FIXED: usize = 68;
/// Bytes of one row of the block table.
const ROW: usize = 36;
/// The context in the associated data of every frame.
const CONTEXT: &[u8] = b"backstay store 1 frame";

/// One row of a frame's block table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Row {
    pub(crate) id: BlockId,
    /// Its plain bytes.
    pub(crate) length: u32,
}

/// What a frame says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) content: Content,
    codec: Codec,
    salt: [u8; 32],
    epoch: u32,
    domain: u32,
    number: u64,
    /// Plain bytes of all blocks.
    pub(crate) plain: u32,
    /// Bytes after the header.
    pub(crate) sealed: u32,
    sealed_crc: u32,
    pub(crate) rows: Vec<Row>,
}

/// Bytes of a frame's header with `rows` rows.
pub(crate) const fn header_length(rows: usize) -> usize {
    FIXED + rows * ROW + 4
}

/// The least bytes from which the length of a header can be told.
pub(crate) const PREFIX: usize = 8;

/// The length of the header that begins with these bytes, if they begin one.
pub(crate) fn header_length_of(prefix: &[u8]) -> Option<usize> {
    let mut fields = Fields::new(prefix, "a frame");
    fields.expect(MAGIC, "magic").ok()?;
    fields.u16().ok()?;
    let rows = usize::from(fields.u16().ok()?);
    (rows > 0 && rows <= FRAME_BLOCKS_MAX).then(|| header_length(rows))
}

impl Header {
    /// Bytes of the whole frame.
    pub(crate) fn total(&self) -> usize {
        header_length(self.rows.len()) + self.sealed as usize
    }

    /// Reads a header from the start of foreign bytes.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let what = "a frame's header";
        let length =
            header_length_of(bytes).ok_or_else(|| malformed(what, "no frame begins here"))?;
        let Some(bytes) = bytes.get(..length) else {
            return Err(malformed(what, "it is too short"));
        };
        let Some((covered, crc)) = bytes.split_last_chunk::<4>() else {
            return Err(malformed(what, "it is too short"));
        };
        if crc32c::crc32c(covered) != u32::from_le_bytes(*crc) {
            return Err(malformed(what, "its checksum is wrong"));
        }
        let mut fields = Fields::new(covered, what);
        fields.expect(MAGIC, "magic")?;
        let content = Content::from_code(fields.u8()?).ok_or_else(|| fields.wrong("its kind"))?;
        let codec = Codec::from_code(fields.u8()?).ok_or_else(|| newer("its codec"))?;
        let count = usize::from(fields.u16()?);
        let salt = fields.array()?;
        let (epoch, domain, number) = (fields.u32()?, fields.u32()?, fields.u64()?);
        if domain != 0 {
            return Err(newer("its key domain"));
        }
        let (plain, sealed, sealed_crc) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let mut rows = Vec::with_capacity(count);
        for _ in 0..count {
            rows.push(Row {
                id: BlockId::from_bytes(fields.array()?),
                length: fields.u32()?,
            });
        }
        fields.end()?;
        let sum: u64 = rows.iter().map(|row| u64::from(row.length)).sum();
        if sum != u64::from(plain) || plain as usize > FRAME_PLAIN_MAX {
            return Err(malformed(what, "its lengths do not fit"));
        }
        if sealed as usize > codec::stored_max(plain as usize) + TAG || (sealed as usize) < TAG {
            return Err(malformed(what, "its stored length does not fit"));
        }
        Ok(Self {
            content,
            codec,
            salt,
            epoch,
            domain,
            number,
            plain,
            sealed,
            sealed_crc,
            rows,
        })
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.bound();
        let rows = bytes.split_off(FIXED - 4);
        bytes.extend_from_slice(&self.sealed_crc.to_le_bytes());
        bytes.extend_from_slice(&rows);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    /// The header without its two checksums: what the seal binds.
    fn bound(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(header_length(self.rows.len()));
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[self.content.code(), self.codec.code()]);
        bytes.extend_from_slice(&(self.rows.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&self.salt);
        bytes.extend_from_slice(&self.epoch.to_le_bytes());
        bytes.extend_from_slice(&self.domain.to_le_bytes());
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.plain.to_le_bytes());
        bytes.extend_from_slice(&self.sealed.to_le_bytes());
        for row in &self.rows {
            bytes.extend_from_slice(row.id.bytes());
            bytes.extend_from_slice(&row.length.to_le_bytes());
        }
        bytes
    }

    fn associated(&self, repository: RepositoryId) -> Vec<u8> {
        [CONTEXT, &repository.bytes(), &self.bound()].concat()
    }

    /// An error unless the sealed bytes are those the header speaks of. Needs no keys.
    pub(crate) fn check_sealed(&self, sealed: &[u8]) -> Result<()> {
        if sealed.len() == self.sealed as usize && crc32c::crc32c(sealed) == self.sealed_crc {
            Ok(())
        } else {
            Err(malformed("a frame", "its checksum is wrong"))
        }
    }
}

/// The error for a whole frame that this program is too old for.
fn newer(what: &str) -> Error {
    Error::new(
        Kind::Unsupported,
        "store.object.version",
        format!("a frame: {what} is unknown"),
    )
    .hint("use a newer Backstay; nothing was changed")
}

/// Makes the frames of one session: one salt, one number a frame.
pub(crate) struct Maker {
    repository: RepositoryId,
    salt: [u8; 32],
    epoch: u32,
    sealer: Sealer,
    /// The next frame's number. Only ever counts up, and the salt dies with the session, so no
    /// number is used twice under one key.
    next: AtomicU64,
    level: i32,
    check: bool,
}

impl Maker {
    /// A session that seals with the latest key and a fresh `salt`.
    pub(crate) fn new(
        repository: RepositoryId,
        keys: &KeySet,
        cipher: Cipher,
        salt: [u8; 32],
        level: i32,
        check: bool,
    ) -> Result<Self> {
        let epoch = keys.epoch();
        let sealer = Sealer::new(cipher, &keys.sealing(FRAME, epoch, &salt)?)?;
        Ok(Self {
            repository,
            salt,
            epoch,
            sealer,
            next: AtomicU64::new(0),
            level,
            check,
        })
    }

    /// A frame of blocks whose bytes follow each other in `plain`.
    pub(crate) fn make(
        &self,
        content: Content,
        rows: Vec<Row>,
        plain: &[u8],
        codecs: &Codecs,
    ) -> Result<(Header, Vec<u8>)> {
        if rows.is_empty() || rows.len() > FRAME_BLOCKS_MAX || plain.len() > FRAME_PLAIN_MAX {
            return Err(Error::new(
                Kind::Bug,
                "store.frame.too-large",
                format!("a frame of {} blocks and {} bytes", rows.len(), plain.len()),
            ));
        }
        let (codec, mut sealed) = codecs.compress(plain, self.level)?;
        let mut header = Header {
            content,
            codec,
            salt: self.salt,
            epoch: self.epoch,
            domain: 0,
            number: self.next.fetch_add(1, Ordering::Relaxed),
            plain: plain.len() as u32,
            sealed: (sealed.len() + TAG) as u32,
            sealed_crc: 0,
            rows,
        };
        let associated = header.associated(self.repository);
        self.sealer
            .seal_in_place(header.number, &associated, &mut sealed)?;
        if self.check {
            let again = self.sealer.open(header.number, &associated, &sealed)?;
            if codecs.decompress(codec, again, plain.len())? != plain {
                return Err(Error::corrupt(
                    "store.frame.check-failed",
                    "a frame opened to other bytes than were put into it",
                )
                .hint("test this machine's memory; nothing wrong was written"));
            }
        }
        header.sealed_crc = crc32c::crc32c(&sealed);
        let mut bytes = header.bytes();
        bytes.reserve_exact(sealed.len());
        bytes.append(&mut sealed);
        Ok((header, bytes))
    }
}

/// Opens a frame: its plain bytes, every block checked against its length but not yet its id.
pub(crate) fn open(
    header: &Header,
    sealed: &[u8],
    repository: RepositoryId,
    cipher: Cipher,
    keys: &KeySet,
    codecs: &Codecs,
) -> Result<Vec<u8>> {
    header.check_sealed(sealed)?;
    let key = keys.sealing(FRAME, header.epoch, &header.salt)?;
    let sealer = Sealer::new(cipher, &key)?;
    let packed = sealer.open(header.number, &header.associated(repository), sealed)?;
    codecs.decompress(header.codec, packed, header.plain as usize)
}
