//! Reading VHDs.
//!
//! Knows: fixed, dynamic and differencing disks. Refuses to know: how blocks are found.

use super::corrupt;
use super::header::{DiskKind, Footer, Header};
use super::table::{PAGES, Table};
use crate::chain::Chain;
use crate::extent::{
    EXTENTS_PER_ANSWER, LOOKUPS_PER_ANSWER, push_host_extents, push_parent_extents, read_parent,
};
use crate::image::{Format, Image, ImageInfo};
use crate::opener::FileHandle;
use crate::reference::open_parent;
use base::block::{BlockRead, Extent, check_range};
use base::size::{ByteCount, ByteOffset, ByteRange};
use base::{Error, Kind, Result};
use std::sync::Arc;

/// A VHD open for reading.
struct VhdReader {
    size: u64,
    /// `None` where the disk is fixed: then the file is the disk.
    table: Option<Table>,
    file: Arc<dyn BlockRead>,
    parent: Option<Arc<dyn BlockRead>>,
}

/// Opens the disk in `file`, and those below it.
pub(crate) fn open(file: FileHandle, chain: &Chain) -> Result<Image> {
    let footer = Footer::read(&*file.bytes)?;
    let variant = match footer.kind {
        DiskKind::Fixed => "fixed",
        DiskKind::Dynamic => "dynamic",
        DiskKind::Differencing => "differencing",
    };
    let mut info = ImageInfo::new(&file, Format::Vhd, variant, ByteCount(footer.size));
    if footer.from_copy {
        info.warnings
            .push("its footer is damaged; the copy at its start was used".to_owned());
    }
    let (mut table, mut parent) = (None, None);
    if footer.kind == DiskKind::Fixed {
        if footer.size > file.bytes.size().0 {
            return Err(corrupt("short", "the file is shorter than the disk in it"));
        }
    } else {
        let header = Header::read(&*file.bytes, &footer)?;
        info.block_size = Some(ByteCount(header.block_size));
        if footer.kind == DiskKind::Differencing {
            let image = open_parent(
                chain,
                &file.path,
                &header.parent_relative,
                &header.parent_name,
                Format::Vhd,
            )?;
            check_parent(&header, &image)?;
            info.add_parent(&image.info);
            parent = Some(image.disk);
        }
        table = Some(Table::new(
            header,
            footer.size,
            file.bytes.clone(),
            chain.share(PAGES),
        ));
    }
    let reader = VhdReader {
        size: footer.size,
        table,
        file: file.bytes,
        parent,
    };
    Ok(Image {
        disk: Arc::new(reader),
        info,
        identity: Some(footer.id),
    })
}

/// A differencing disk on another disk than it was made on would give mixed-up data.
fn check_parent(header: &Header, parent: &Image) -> Result<()> {
    if parent.identity == Some(header.parent_id) {
        return Ok(());
    }
    Err(Error::new(
        Kind::Corrupt,
        "disk.vhd.parent-changed",
        format!(
            "{} is not the disk that this one was made on",
            parent.info.path.display()
        ),
    )
    .hint("put the right parent in its place, or restore the disk from a backup"))
}

impl VhdReader {
    /// Where `offset` lies and how far that reaches, neighbours that follow in the file included.
    fn run(&self, offset: u64, length: u64, lookups: &mut usize) -> Result<(Option<u64>, u64)> {
        let Some(table) = &self.table else {
            return Ok((Some(offset), length));
        };
        let (host, mut reach) = table.locate(offset)?;
        *lookups += 1;
        while reach < length && *lookups < LOOKUPS_PER_ANSWER {
            let (next, more) = table.locate(offset + reach)?;
            *lookups += 1;
            if next != host.map(|host| host + reach) {
                break;
            }
            reach += more;
        }
        Ok((host, reach.min(length)))
    }
}

impl BlockRead for VhdReader {
    fn size(&self) -> ByteCount {
        ByteCount(self.size)
    }

    fn read_at(&self, offset: ByteOffset, mut buffer: &mut [u8]) -> Result<()> {
        check_range(ByteRange::new(offset.0, buffer.len() as u64), self.size())?;
        let mut at = offset.0;
        while !buffer.is_empty() {
            let (host, length) = self.run(at, buffer.len() as u64, &mut 0)?;
            let (piece, rest) = buffer.split_at_mut(length as usize);
            match host {
                None => read_parent(self.parent.as_deref(), at, piece)?,
                Some(host) if host.saturating_add(length) <= self.file.size().0 => {
                    self.file.read_at(ByteOffset(host), piece)?;
                }
                Some(host) => {
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
            let (host, length) = self.run(at, range.end().0 - at, &mut lookups)?;
            let piece = ByteRange::new(at, length);
            at += match host {
                Some(host) => push_host_extents(&mut extents, piece, &*self.file, host)?,
                None => push_parent_extents(&mut extents, piece, self.parent.as_deref())?,
            };
        }
        Ok(extents)
    }
}
