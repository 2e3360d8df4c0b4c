//! Reading qcow2 images.
//!
//! Knows: data in this file or an external one, compressed clusters, and backing images.
//! Refuses to know: how places are found; `table` does.

use super::header::{Header, corrupt};
use super::table::{PAGES, Place, Tables};
use crate::cache::Cache;
use crate::chain::Chain;
use crate::extent::{
    EXTENTS_PER_ANSWER, LOOKUPS_PER_ANSWER, push_host_extents, push_parent_extents, read_parent,
};
use crate::image::{Format, Image, ImageInfo};
use crate::inflate::{Compression, inflate};
use crate::opener::FileHandle;
use base::block::{BlockRead, Extent, check_range, push_extent};
use base::size::{ByteCount, ByteOffset, ByteRange, MIB};
use base::{Error, Kind, Result};
use std::sync::Arc;

/// Unpacked clusters kept, in bytes.
const UNPACKED_MAX: u64 = 4 * MIB;

/// A qcow2 image open for reading.
struct Qcow2Reader {
    size: u64,
    cluster_size: u64,
    compression: Compression,
    tables: Tables,
    file: Arc<dyn BlockRead>,
    data: Arc<dyn BlockRead>,
    backing: Option<Arc<dyn BlockRead>>,
    unpacked: Cache<Vec<u8>>,
}

/// Opens the image in `file`, and those below it.
pub(crate) fn open(file: FileHandle, chain: &Chain) -> Result<Image> {
    let header = Header::read(&*file.bytes)?;
    let variant = if header.version == 2 { "v2" } else { "v3" };
    let mut info = ImageInfo::new(&file, Format::Qcow2, variant, ByteCount(header.size));
    info.block_size = Some(ByteCount(header.cluster_size()));
    warn(&header, &mut info);
    let data = match &header.data_file {
        None => file.bytes.clone(),
        Some(name) if name.is_empty() => {
            return Err(corrupt(
                "data-file",
                "the name of the external data file is missing",
            ));
        }
        Some(name) => {
            let data = chain.file(&file.path, local_name(name)?)?;
            info.allocated += data.allocated;
            info.files.push(data.path);
            data.bytes
        }
    };
    let backing = open_backing(&header, &file, chain, &mut info)?;
    let reader = Qcow2Reader {
        size: header.size,
        cluster_size: header.cluster_size(),
        compression: header.compression,
        unpacked: Cache::new(chain.share((UNPACKED_MAX / header.cluster_size()).min(64) as usize)),
        tables: Tables::new(header, file.bytes.clone(), chain.share(PAGES)),
        file: file.bytes,
        data,
        backing,
    };
    Ok(Image::new(Arc::new(reader), info))
}

fn warn(header: &Header, info: &mut ImageInfo) {
    if header.dirty {
        info.warnings.push(
            "it was not closed cleanly; its data is read as it is (qemu-img check -r all mends \
             the reference counts)"
                .to_owned(),
        );
    }
    if header.corrupt {
        info.warnings
            .push("QEMU marked it as corrupt; some data may be wrong".to_owned());
    }
    if header.snapshots > 0 {
        info.warnings.push(format!(
            "its {} internal snapshots are not read, only the active state",
            header.snapshots
        ));
    }
}

fn open_backing(
    header: &Header,
    file: &FileHandle,
    chain: &Chain,
    info: &mut ImageInfo,
) -> Result<Option<Arc<dyn BlockRead>>> {
    let Some(name) = &header.backing_name else {
        return Ok(None);
    };
    let format = match &header.backing_format {
        None => {
            info.warnings
                .push("the format of its backing image is not written down".to_owned());
            None
        }
        Some(format) => Some(Format::from_name(format).ok_or_else(|| {
            Error::new(
                Kind::Unsupported,
                "disk.qcow2.backing-format",
                format!("the backing image has the format \u{201c}{format}\u{201d}"),
            )
            .hint("Backstay reads raw, qcow2, vmdk, vhdx and vhd images")
        })?),
    };
    let parent = chain.parent(&file.path, local_name(name)?, format)?;
    info.add_parent(&parent.info);
    Ok(Some(parent.disk))
}

/// The file a name means. QEMU's other ways to name things (network addresses, JSON) are refused.
fn local_name(name: &str) -> Result<&str> {
    if let Some(path) = name.strip_prefix("file:") {
        return Ok(path);
    }
    let scheme = name.split_once(':').map(|(scheme, _)| scheme);
    if scheme.is_some_and(|scheme| !scheme.contains('/')) {
        let shown: String = name.chars().take(200).filter(|c| !c.is_control()).collect();
        return Err(Error::new(
            Kind::Unsupported,
            "disk.qcow2.reference-unsupported",
            format!("the image refers to \u{201c}{shown}\u{201d}, which is no file"),
        )
        .hint("rebase it onto a local file with qemu-img rebase"));
    }
    Ok(name)
}

impl Qcow2Reader {
    /// The place of `offset` and how far it reaches, neighbours that follow in the file included;
    /// at most `length`.
    fn run(&self, offset: u64, length: u64, lookups: &mut usize) -> Result<(Place, u64)> {
        let (place, mut reach) = self.tables.locate(offset)?;
        *lookups += 1;
        while reach < length && *lookups < LOOKUPS_PER_ANSWER {
            let expected = match place {
                Place::Data(host) => Place::Data(host + reach),
                Place::Zero | Place::Hole => place,
                Place::Compressed(..) => break,
            };
            let (next, more) = self.tables.locate(offset + reach)?;
            *lookups += 1;
            if next != expected {
                break;
            }
            reach += more;
        }
        Ok((place, reach.min(length)))
    }

    fn read_data(&self, host: u64, buffer: &mut [u8]) -> Result<()> {
        let rest = self.data.size().0.saturating_sub(host);
        // QEMU leaves off the end of the last cluster where nothing was written to it.
        let last = host.saturating_add(buffer.len() as u64 - 1);
        let cluster = last / self.cluster_size * self.cluster_size;
        if rest < buffer.len() as u64 && self.data.size().0 <= cluster {
            return Err(corrupt(
                "data-outside",
                format!("data at {host:#x} lies outside the file"),
            )
            .hint("the file was cut off; restore it from a backup"));
        }
        let (inside, outside) = buffer.split_at_mut((buffer.len() as u64).min(rest) as usize);
        outside.fill(0);
        if inside.is_empty() {
            Ok(())
        } else {
            self.data.read_at(ByteOffset(host), inside)
        }
    }

    fn read_compressed(&self, host: u64, length: u64, at: usize, buffer: &mut [u8]) -> Result<()> {
        let cluster = self.unpacked.get(host, || {
            let mut packed = vec![0; length as usize];
            self.file.read_at(ByteOffset(host), &mut packed)?;
            let mut cluster = vec![0; self.cluster_size as usize];
            inflate(self.compression, &packed, &mut cluster)?;
            Ok(cluster)
        })?;
        buffer.copy_from_slice(&cluster[at..at + buffer.len()]);
        Ok(())
    }
}

impl BlockRead for Qcow2Reader {
    fn size(&self) -> ByteCount {
        ByteCount(self.size)
    }

    fn read_at(&self, offset: ByteOffset, mut buffer: &mut [u8]) -> Result<()> {
        check_range(ByteRange::new(offset.0, buffer.len() as u64), self.size())?;
        let mut at = offset.0;
        while !buffer.is_empty() {
            let (place, length) = self.run(at, buffer.len() as u64, &mut 0)?;
            let (piece, rest) = buffer.split_at_mut(length as usize);
            match place {
                Place::Data(host) => self.read_data(host, piece)?,
                Place::Compressed(host, length) => {
                    let within = (at % self.cluster_size) as usize;
                    self.read_compressed(host, length, within, piece)?;
                }
                Place::Zero => piece.fill(0),
                Place::Hole => read_parent(self.backing.as_deref(), at, piece)?,
            }
            at += length;
            buffer = rest;
        }
        Ok(())
    }

    fn extents(&self, range: ByteRange) -> Result<Vec<Extent>> {
        check_range(range, self.size())?;
        let mut extents = Vec::new();
        let (mut at, mut lookups) = (range.offset.0, 0);
        while at < range.end().0
            && extents.len() < EXTENTS_PER_ANSWER
            && lookups < LOOKUPS_PER_ANSWER
        {
            let (place, length) = self.run(at, range.end().0 - at, &mut lookups)?;
            let piece = ByteRange::new(at, length);
            at += match place {
                Place::Hole => push_parent_extents(&mut extents, piece, self.backing.as_deref())?,
                Place::Data(host) => push_host_extents(&mut extents, piece, &*self.data, host)?,
                Place::Zero => {
                    push_extent(&mut extents, Extent::zero(at, length));
                    length
                }
                Place::Compressed(..) => {
                    push_extent(&mut extents, Extent::data(at, length));
                    length
                }
            };
        }
        Ok(extents)
    }
}
