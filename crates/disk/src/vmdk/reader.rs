//! Reading VMware disks.
//!
//! Knows: the extents side by side, and the parent below them. Refuses to know: how a sparse
//! extent finds its grains.

use super::descriptor::{Descriptor, ExtentStorage, LENGTH_MAX};
use super::grain::{PAGES, Place, SparseExtent};
use super::header::SparseHeader;
use super::{SECTOR, corrupt, unsupported};
use crate::chain::Chain;
use crate::extent::{
    EXTENTS_PER_ANSWER, LOOKUPS_PER_ANSWER, push_host_extents, push_parent_extents, read_parent,
};
use crate::image::{Format, Image, ImageInfo};
use crate::opener::FileHandle;
use base::block::{BlockRead, Extent, check_range, push_extent};
use base::size::{ByteCount, ByteOffset, ByteRange};
use base::{Error, Kind, Result};
use std::sync::Arc;

/// A VMware disk open for reading.
struct VmdkReader {
    size: u64,
    pieces: Vec<Piece>,
    parent: Option<Arc<dyn BlockRead>>,
}

/// One extent and where it is in the disk.
struct Piece {
    start: u64,
    length: u64,
    bytes: PieceBytes,
}

enum PieceBytes {
    Flat { file: Arc<dyn BlockRead>, at: u64 },
    Sparse(SparseExtent),
    Zero,
}

/// Opens the disk whose descriptor or only extent is `file`.
pub(crate) fn open(file: FileHandle, chain: &Chain) -> Result<Image> {
    let mut magic = [0; 4];
    if file.bytes.size().0 < 4 {
        return Err(corrupt(
            "header-short",
            "the file is too short for a VMware disk",
        ));
    }
    file.bytes.read_at(ByteOffset::ZERO, &mut magic)?;
    match &magic {
        b"KDMV" | b"COWD" => open_monolithic(file, chain),
        [0xbe, 0xba, 0xfe, 0xca] => Err(unsupported(
            "sesparse",
            "the file is a seSparse snapshot of ESXi",
        )
        .hint("consolidate the snapshot, or back up the machine through its host")),
        _ => open_descriptor(file, chain),
    }
}

/// A sparse file with its descriptor inside, or without any (an extent by itself).
fn open_monolithic(file: FileHandle, chain: &Chain) -> Result<Image> {
    let header = SparseHeader::read(&*file.bytes)?;
    let descriptor = match header.descriptor_offset {
        0 => None,
        _ => Some(embedded_descriptor(&header, &*file.bytes)?),
    };
    let size = header.capacity * SECTOR;
    let variant = match &descriptor {
        Some(descriptor) => descriptor.create_type.clone(),
        None if header.compressed => "streamOptimized".to_owned(),
        None => "single extent".to_owned(),
    };
    if let Some(descriptor) = &descriptor
        && (descriptor.extents.len() > 1
            || descriptor
                .extents
                .first()
                .is_some_and(|line| line.sectors != header.capacity))
    {
        return Err(corrupt(
            "descriptor",
            "the descriptor inside describes another disk",
        ));
    }
    let mut info = ImageInfo::new(&file, Format::Vmdk, &variant, ByteCount(size));
    info.block_size = Some(ByteCount(header.grain_sectors * SECTOR));
    let extent = SparseExtent::new(header, file.bytes.clone(), chain.share(PAGES));
    let piece = Piece {
        start: 0,
        length: size,
        bytes: PieceBytes::Sparse(extent),
    };
    finish(file, chain, info, descriptor.as_ref(), vec![piece])
}

fn embedded_descriptor(header: &SparseHeader, file: &dyn BlockRead) -> Result<Descriptor> {
    let outside = || corrupt("descriptor", "the descriptor lies outside the file");
    let at = header
        .descriptor_offset
        .checked_mul(SECTOR)
        .ok_or_else(outside)?;
    let length = header
        .descriptor_sectors
        .saturating_mul(SECTOR)
        .min(LENGTH_MAX);
    if at.checked_add(length).is_none_or(|end| end > file.size().0) {
        return Err(outside());
    }
    let mut bytes = vec![0; length as usize];
    file.read_at(ByteOffset(at), &mut bytes)?;
    Descriptor::parse(&bytes)
}

/// A descriptor by itself, which names the files of the extents.
fn open_descriptor(file: FileHandle, chain: &Chain) -> Result<Image> {
    let length = file.bytes.size().0;
    if length > LENGTH_MAX {
        return Err(corrupt(
            "descriptor-too-long",
            "the file is too long for a descriptor",
        ));
    }
    let mut bytes = vec![0; length as usize];
    file.bytes.read_at(ByteOffset::ZERO, &mut bytes)?;
    let descriptor = Descriptor::parse(&bytes)?;
    if descriptor.extents.is_empty() {
        return Err(corrupt("no-extents", "the descriptor names no extents"));
    }
    let mut info = ImageInfo::new(
        &file,
        Format::Vmdk,
        &descriptor.create_type,
        ByteCount::ZERO,
    );
    // Large disks have hundreds of extents: together they keep what one would.
    let pages = (chain.share(PAGES) / descriptor.extents.len()).max(2);
    let mut pieces: Vec<Piece> = Vec::new();
    let mut start = 0_u64;
    for line in &descriptor.extents {
        let length = line.sectors * SECTOR;
        let bytes = match line.storage {
            ExtentStorage::Zero => PieceBytes::Zero,
            storage => {
                let part = chain.file(&file.path, &line.file)?;
                info.allocated += part.allocated;
                info.files.push(part.path);
                open_extent(storage, length, part.bytes, pages)?
            }
        };
        if let PieceBytes::Sparse(extent) = &bytes {
            info.block_size = Some(ByteCount(extent.grain_size()));
        }
        pieces.push(Piece {
            start,
            length,
            bytes,
        });
        start = start.saturating_add(length);
        crate::file::check_disk_size(start)?;
    }
    info.virtual_size = ByteCount(start);
    finish(file, chain, info, Some(&descriptor), pieces)
}

fn open_extent(
    storage: ExtentStorage,
    length: u64,
    file: Arc<dyn BlockRead>,
    pages: usize,
) -> Result<PieceBytes> {
    match storage {
        ExtentStorage::Zero => Ok(PieceBytes::Zero),
        ExtentStorage::Flat { first_sector } => {
            let at = first_sector.checked_mul(SECTOR);
            let end = at.and_then(|at| at.checked_add(length));
            match (at, end) {
                (Some(at), Some(end)) if end <= file.size().0 => Ok(PieceBytes::Flat { file, at }),
                _ => Err(corrupt(
                    "extent-short",
                    "an extent's file is shorter than the extent",
                )
                .hint("the file was cut off; copy it again or restore it from a backup")),
            }
        }
        ExtentStorage::Sparse => {
            let extent = SparseExtent::new(SparseHeader::read(&*file)?, file, pages);
            if extent.size() < length {
                return Err(corrupt(
                    "extent-short",
                    "a sparse extent is smaller than it should be",
                ));
            }
            Ok(PieceBytes::Sparse(extent))
        }
    }
}

/// Opens the parent, if there is one, and puts all together.
fn finish(
    file: FileHandle,
    chain: &Chain,
    mut info: ImageInfo,
    descriptor: Option<&Descriptor>,
    pieces: Vec<Piece>,
) -> Result<Image> {
    let mut parent = None;
    if let Some(descriptor) = descriptor
        && let Some(name) = &descriptor.parent_name
    {
        let image = chain.parent(&file.path, name, Some(Format::Vmdk))?;
        check_parent(descriptor, &image)?;
        info.add_parent(&image.info);
        parent = Some(image.disk);
    }
    let reader = VmdkReader {
        size: info.virtual_size.0,
        pieces,
        parent,
    };
    let identity = descriptor.map(|descriptor| identity(descriptor.content_id));
    Ok(Image {
        disk: Arc::new(reader),
        info,
        identity,
    })
}

/// A parent that was written after this disk was made on it would give mixed-up data.
fn check_parent(descriptor: &Descriptor, parent: &Image) -> Result<()> {
    if parent.identity == Some(identity(descriptor.parent_content_id)) {
        return Ok(());
    }
    Err(Error::new(
        Kind::Corrupt,
        "disk.vmdk.parent-changed",
        format!(
            "{} was changed after this disk was made on it",
            parent.info.path.display()
        ),
    )
    .hint("the snapshot chain is broken; restore the disk from a backup"))
}

/// The content id as an image's identity.
fn identity(content_id: u32) -> [u8; 16] {
    u128::from(content_id).to_le_bytes()
}

/// What a stretch of the disk turned out to be.
enum Found<'a> {
    Flat(&'a dyn BlockRead, u64),
    Grain(&'a SparseExtent, Place, u64),
    Zero,
}

impl VmdkReader {
    /// What is at `offset`, and for how many bytes (at most `length`) that holds.
    fn find(&self, offset: u64, length: u64, lookups: &mut usize) -> Result<(Found<'_>, u64)> {
        let index = self
            .pieces
            .partition_point(|piece| piece.start + piece.length <= offset);
        let piece = self
            .pieces
            .get(index)
            .ok_or_else(|| corrupt("gap", "no extent here"))?;
        let within = offset - piece.start;
        let length = length.min(piece.length - within);
        *lookups += 1;
        match &piece.bytes {
            PieceBytes::Zero => Ok((Found::Zero, length)),
            PieceBytes::Flat { file, at } => Ok((Found::Flat(&**file, at + within), length)),
            PieceBytes::Sparse(extent) => {
                let (place, reach) = run(extent, within, length, lookups)?;
                Ok((Found::Grain(extent, place, within), reach))
            }
        }
    }
}

/// The place of `offset` in an extent and how far it reaches, neighbours that follow in the file
/// included.
fn run(
    extent: &SparseExtent,
    offset: u64,
    length: u64,
    lookups: &mut usize,
) -> Result<(Place, u64)> {
    let (place, mut reach) = extent.locate(offset)?;
    while reach < length && *lookups < LOOKUPS_PER_ANSWER {
        let expected = match place {
            Place::Data(host) => Place::Data(host + reach),
            Place::Zero | Place::Hole => place,
            Place::Compressed(_) => break,
        };
        let (next, more) = extent.locate(offset + reach)?;
        *lookups += 1;
        if next != expected {
            break;
        }
        reach += more;
    }
    Ok((place, reach.min(length)))
}

impl BlockRead for VmdkReader {
    fn size(&self) -> ByteCount {
        ByteCount(self.size)
    }

    fn read_at(&self, offset: ByteOffset, mut buffer: &mut [u8]) -> Result<()> {
        check_range(ByteRange::new(offset.0, buffer.len() as u64), self.size())?;
        let mut at = offset.0;
        while !buffer.is_empty() {
            let (found, length) = self.find(at, buffer.len() as u64, &mut 0)?;
            let (piece, rest) = buffer.split_at_mut(length as usize);
            match found {
                Found::Flat(file, host) => file.read_at(ByteOffset(host), piece)?,
                Found::Zero => piece.fill(0),
                Found::Grain(extent, place, within) => match place {
                    Place::Data(host) => extent.read_data(host, piece)?,
                    Place::Compressed(host) => {
                        let in_grain = within % extent.grain_size();
                        let start = within - in_grain;
                        extent.read_compressed(host, start, in_grain as usize, piece)?;
                    }
                    Place::Zero => piece.fill(0),
                    Place::Hole => read_parent(self.parent.as_deref(), at, piece)?,
                },
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
            let (found, length) = self.find(at, range.end().0 - at, &mut lookups)?;
            let piece = ByteRange::new(at, length);
            at += match found {
                Found::Flat(file, host) => push_host_extents(&mut extents, piece, file, host)?,
                Found::Grain(extent, Place::Data(host), _) => {
                    push_host_extents(&mut extents, piece, &*extent.file, host)?
                }
                Found::Grain(_, Place::Hole, _) => {
                    push_parent_extents(&mut extents, piece, self.parent.as_deref())?
                }
                Found::Grain(_, Place::Compressed(_), _) => {
                    push_extent(&mut extents, Extent::data(at, length));
                    length
                }
                Found::Zero | Found::Grain(_, Place::Zero, _) => {
                    push_extent(&mut extents, Extent::zero(at, length));
                    length
                }
            };
        }
        Ok(extents)
    }
}
