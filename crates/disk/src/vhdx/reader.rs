//! Reading VHDX disks.
//!
//! Knows: the order in which a file is opened, and how blocks and the parent make one disk.
//! Refuses to know: how blocks are found.

use super::corrupt;
use super::header::Header;
use super::metadata::{Metadata, Parent};
use super::region::Regions;
use super::table::{PAGES, Place, Table};
use crate::chain::Chain;
use crate::extent::{
    EXTENTS_PER_ANSWER, LOOKUPS_PER_ANSWER, push_host_extents, push_parent_extents, read_parent,
};
use crate::image::{Format, Image, ImageInfo};
use crate::opener::FileHandle;
use crate::reference::open_parent;
use base::block::{BlockRead, Extent, check_range, push_extent};
use base::size::{ByteCount, ByteOffset, ByteRange};
use base::{Error, Kind, Result};
use std::sync::Arc;

/// A VHDX open for reading.
struct VhdxReader {
    size: u64,
    table: Table,
    file: Arc<dyn BlockRead>,
    parent: Option<Arc<dyn BlockRead>>,
}

/// Opens the disk in `file`, and those below it.
pub(crate) fn open(file: FileHandle, chain: &Chain) -> Result<Image> {
    let header = Header::read(&*file.bytes)?;
    let mut info = ImageInfo::new(&file, Format::Vhdx, "dynamic", ByteCount::ZERO);
    let mut bytes = file.bytes.clone();
    if header.log_id != [0; 16] {
        let replayed = super::log::replay(bytes.clone(), &header)?;
        if replayed.is_changed() {
            info.warnings.push(
                "it was not closed cleanly; its log was replayed in memory, the file itself was \
                 not changed"
                    .to_owned(),
            );
        }
        bytes = Arc::new(replayed);
    }
    let regions = Regions::read(&*bytes)?;
    let metadata = Metadata::read(&*bytes, regions.metadata)?;
    info.virtual_size = ByteCount(metadata.size);
    info.block_size = Some(ByteCount(metadata.block_size));
    info.sector_size = metadata.sector_size;
    let mut parent = None;
    if let Some(name) = &metadata.parent {
        "differencing".clone_into(&mut info.variant);
        let image = open_parent(
            chain,
            &file.path,
            &name.relative,
            &name.absolute,
            Format::Vhdx,
        )?;
        check_parent(name, &image)?;
        info.add_parent(&image.info);
        parent = Some(image.disk);
    } else if metadata.fixed {
        "fixed".clone_into(&mut info.variant);
    }
    let table = Table::new(bytes.clone(), regions.bat, &metadata, chain.share(PAGES))?;
    let reader = VhdxReader {
        size: metadata.size,
        table,
        file: bytes,
        parent,
    };
    Ok(Image {
        disk: Arc::new(reader),
        info,
        identity: Some(header.data_write_id),
    })
}

/// A parent that was written after this disk was made on it would give mixed-up data.
fn check_parent(name: &Parent, parent: &Image) -> Result<()> {
    if parent.identity.is_some_and(|id| name.ids.contains(&id)) {
        return Ok(());
    }
    Err(Error::new(
        Kind::Corrupt,
        "disk.vhdx.parent-changed",
        format!(
            "{} was changed after this disk was made on it",
            parent.info.path.display()
        ),
    )
    .hint("the checkpoint chain is broken; restore the disk from a backup"))
}

impl VhdxReader {
    /// The place of `offset` and how far it reaches, neighbours that follow in the file included.
    fn run(&self, offset: u64, length: u64, lookups: &mut usize) -> Result<(Place, u64)> {
        let (place, mut reach) = self.table.locate(offset)?;
        *lookups += 1;
        while reach < length && *lookups < LOOKUPS_PER_ANSWER {
            let expected = match place {
                Place::Data(host) => Place::Data(host.saturating_add(reach)),
                Place::Zero | Place::Hole => place,
            };
            let (next, more) = self.table.locate(offset + reach)?;
            *lookups += 1;
            if next != expected {
                break;
            }
            reach += more;
        }
        Ok((place, reach.min(length)))
    }
}

impl BlockRead for VhdxReader {
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
                Place::Zero => piece.fill(0),
                Place::Hole => read_parent(self.parent.as_deref(), at, piece)?,
                Place::Data(host) if host.saturating_add(length) <= self.file.size().0 => {
                    self.file.read_at(ByteOffset(host), piece)?;
                }
                Place::Data(host) => {
                    let what = format!("data at {host:#x} lies outside the file");
                    return Err(corrupt("data-outside", what));
                }
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
                Place::Data(host) => push_host_extents(&mut extents, piece, &*self.file, host)?,
                Place::Hole => push_parent_extents(&mut extents, piece, self.parent.as_deref())?,
                Place::Zero => {
                    push_extent(&mut extents, Extent::zero(at, length));
                    length
                }
            };
        }
        Ok(extents)
    }
}
