//! Disks built here, byte by byte: what QEMU cannot make (differencing) or would not (hostile).

use super::header::{Footer, Header, checksum};
use crate::{FileHandle, Format, Image, MemoryOpener, OpenOptions};
use base::Result;
use base::block::{BlockRead, ExtentKind, all_extents};
use base::memory::MemoryDisk;
use base::size::{ByteOffset, ByteRange, KIB, MIB};
use std::sync::Arc;

const BLOCK: usize = 512 * 1024;

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn footer(kind: u32, size: u64, id: u8) -> Vec<u8> {
    let mut footer = vec![0; 512];
    put(&mut footer, 0, b"conectix");
    put(&mut footer, 16, &512_u64.to_be_bytes());
    put(&mut footer, 48, &size.to_be_bytes());
    put(&mut footer, 60, &kind.to_be_bytes());
    put(&mut footer, 68, &[id; 16]);
    let sum = checksum(&footer, 64);
    put(&mut footer, 64, &sum.to_be_bytes());
    footer
}

/// A dynamic or differencing disk of 4 MiB in blocks of 512 KiB. Each of `sectors` is written with
/// its byte; the bitmap says so.
fn sparse(kind: u32, id: u8, parent: Option<(&str, u8)>, sectors: &[(usize, u8)]) -> Vec<u8> {
    let footer = footer(kind, 4 * MIB, id);
    let mut file = footer.clone();
    file.resize(3072, 0);
    put(&mut file, 512, b"cxsparse");
    put(&mut file, 512 + 16, &2048_u64.to_be_bytes());
    put(&mut file, 512 + 28, &8_u32.to_be_bytes());
    put(&mut file, 512 + 32, &(BLOCK as u32).to_be_bytes());
    file[2048..2048 + 32].fill(0xff);
    if let Some((name, id)) = parent {
        put(&mut file, 512 + 40, &[id; 16]);
        let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        put(&mut file, 512 + 576, b"W2ru");
        put(&mut file, 512 + 576 + 4, &1_u32.to_be_bytes());
        put(&mut file, 512 + 576 + 8, &(name.len() as u32).to_be_bytes());
        put(&mut file, 512 + 576 + 16, &2560_u64.to_be_bytes());
        put(&mut file, 2560, &name);
    }
    let sum = checksum(&file[512..1536], 36);
    put(&mut file, 512 + 36, &sum.to_be_bytes());
    for (sector, byte) in sectors {
        let (block, within) = (sector / 1024, sector % 1024);
        let entry = 2048 + block * 4;
        let mut place = u32::from_be_bytes(file[entry..entry + 4].try_into().unwrap());
        if place == u32::MAX {
            place = (file.len() / 512) as u32;
            put(&mut file, entry, &place.to_be_bytes());
            let length = file.len() + 512 + BLOCK;
            // What is not in the bitmap must not be read, so make it visible.
            file.resize(length, 0xdd);
            file[place as usize * 512..][..512].fill(0);
        }
        let at = place as usize * 512;
        file[at + within / 8] |= 0x80 >> (within % 8);
        file[at + 512 + within * 512..][..512].fill(*byte);
    }
    file.extend_from_slice(&footer);
    file
}

fn open(files: &[(&str, Vec<u8>)]) -> Result<Image> {
    let mut opener = MemoryOpener::default();
    for (name, bytes) in files {
        let bytes: Arc<dyn BlockRead> = Arc::new(MemoryDisk::from(bytes.clone()));
        opener = opener.with(format!("/vm/{name}"), bytes);
    }
    let bytes = Arc::new(MemoryDisk::from(files[0].1.clone()));
    let file = FileHandle::from_bytes(format!("/vm/{}", files[0].0), bytes);
    crate::open_file(file, &opener, OpenOptions::default())
}

fn sectors(image: &Image) -> Vec<u8> {
    let mut bytes = vec![0xee; image.size().0 as usize];
    image.read_at(ByteOffset::ZERO, &mut bytes).unwrap();
    bytes
        .chunks(512)
        .map(|sector| {
            assert!(sector.iter().all(|byte| *byte == sector[0]));
            sector[0]
        })
        .collect()
}

#[test]
fn sectors_outside_the_bitmap_read_as_zeros() {
    let image = open(&[("d.vhd", sparse(3, 1, None, &[(0, 5), (1025, 6), (8191, 7)]))]).unwrap();
    assert_eq!(
        (image.info().format, &*image.info().variant),
        (Format::Vhd, "dynamic")
    );
    let mut expected = vec![0; 8192];
    (expected[0], expected[1025], expected[8191]) = (5, 6, 7);
    assert_eq!(sectors(&image), expected);
    let data: Vec<u64> = all_extents(&image, ByteRange::new(0, 4 * MIB))
        .unwrap()
        .into_iter()
        .filter(|extent| extent.kind == ExtentKind::Data)
        .map(|extent| extent.range.offset.0 / 512)
        .collect();
    assert_eq!(data, [0, 1025, 8191]);
}

#[test]
fn a_differencing_disk_lies_over_its_parent() {
    let base = sparse(3, 1, None, &[(0, 5), (10, 6), (1025, 6), (8191, 7)]);
    let middle = sparse(
        4,
        2,
        Some((".\\base.vhd", 1)),
        &[(10, 8), (11, 9), (3000, 4)],
    );
    let top = sparse(4, 3, Some(("middle.vhd", 2)), &[(11, 3), (8191, 2)]);
    let files = [
        ("top.vhd", top),
        ("middle.vhd", middle),
        ("base.vhd", base.clone()),
    ];
    let image = open(&files).unwrap();
    let mut expected = vec![0; 8192];
    for (sector, byte) in [(0, 5), (10, 8), (11, 3), (1025, 6), (3000, 4), (8191, 2)] {
        expected[sector] = byte;
    }
    assert_eq!(sectors(&image), expected);
    assert_eq!(image.info().parents.len(), 2);
    // Another disk in the parent's place is noticed.
    let stranger = sparse(3, 9, None, &[(10, 1)]);
    let files = [files[0].clone(), files[1].clone(), ("base.vhd", stranger)];
    assert_eq!(open(&files).unwrap_err().code(), "disk.vhd.parent-changed");
    let code = open(&files[..2]).unwrap_err().code().to_owned();
    assert_eq!(code, "disk.opener.not-found");
    let lonely = sparse(4, 2, Some(("..\\..\\etc\\base.vhd", 1)), &[]);
    assert_eq!(
        open(&[("d.vhd", lonely)]).unwrap_err().code(),
        "disk.opener.not-found"
    );
    let own_parent = sparse(4, 2, Some(("d.vhd", 2)), &[]);
    assert_eq!(
        open(&[("d.vhd", own_parent)]).unwrap_err().code(),
        "disk.chain.loop"
    );
}

#[test]
fn a_damaged_footer_is_replaced_by_its_copy() {
    let mut file = sparse(3, 1, None, &[(7, 5)]);
    let end = file.len() - 500;
    file[end] ^= 1;
    let image = open(&[("d.vhd", file.clone())]).unwrap();
    assert!(image.info().warnings[0].contains("copy"));
    assert_eq!(sectors(&image)[7], 5);
    file[20] ^= 1;
    assert_eq!(
        open(&[("d.vhd", file)]).unwrap_err().code(),
        "disk.vhd.footer-checksum"
    );
}

#[test]
fn headers_that_cannot_be_are_refused() {
    let code = |at: usize, value: &[u8]| {
        let mut file = sparse(3, 1, None, &[]);
        put(&mut file, 512 + at, value);
        let sum = checksum(&file[512..1536], 36);
        put(&mut file, 512 + 36, &sum.to_be_bytes());
        let file = MemoryDisk::from(file);
        let footer = Footer::read(&file).unwrap();
        Header::read(&file, &footer).unwrap_err().code().to_owned()
    };
    assert_eq!(code(0, b"x"), "disk.vhd.header");
    assert_eq!(code(16, &u64::MAX.to_be_bytes()), "disk.vhd.table-outside");
    assert_eq!(code(28, &7_u32.to_be_bytes()), "disk.vhd.table-too-small");
    assert_eq!(code(32, &0_u32.to_be_bytes()), "disk.vhd.block-size");
    assert_eq!(code(32, &3000_u32.to_be_bytes()), "disk.vhd.block-size");
    assert_eq!(
        code(32, &(1_u32 << 31).to_be_bytes()),
        "disk.vhd.block-size"
    );
    let mut file = sparse(3, 1, None, &[]);
    put(&mut file, 2048, &0x7fff_ffff_u32.to_be_bytes());
    let image = open(&[("d.vhd", file)]).unwrap();
    let error = image.read_at(ByteOffset(5 * KIB), &mut [0; 9]).unwrap_err();
    assert_eq!(error.code(), "disk.vhd.block-outside");
    // A fixed disk that was cut off.
    let mut file = vec![0; 8 * 512];
    file.extend(footer(2, MIB, 1));
    assert_eq!(
        open(&[("d.vhd", file)]).unwrap_err().code(),
        "disk.vhd.short"
    );
}
