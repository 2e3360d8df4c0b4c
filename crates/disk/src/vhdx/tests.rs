//! Disks built here, byte by byte: what QEMU cannot make (differencing, logs in every state).

use super::{checksum, guid, parse_guid};
use crate::{FileHandle, Image, MemoryOpener, OpenOptions};
use base::Result;
use base::block::{BlockRead, ExtentKind};
use base::memory::MemoryDisk;
use base::size::{ByteOffset, ByteRange};
use std::sync::Arc;

const MIB: usize = 1 << 20;
const KIB64: usize = 64 << 10;
/// Header area, log, metadata, table of blocks: one MiB each; data follows.
const LOG: usize = MIB;
const METADATA: usize = 2 * MIB;
const BAT: usize = 3 * MIB;
const BLOCK: usize = MIB;
/// Blocks of 1 MiB and sectors of 512 bytes: a bitmap block after 4096 payload blocks.
const BITMAP_ENTRY: usize = BAT + 4096 * 8;

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn seal(bytes: &mut [u8], at: usize, length: usize) {
    let sum = checksum(&bytes[at..at + length]);
    put(bytes, at + 4, &sum.to_le_bytes());
}

struct Disk(Vec<u8>);

impl Disk {
    /// A disk of 5 MiB without data. `id` is its data-write id.
    fn new(id: u8, parent: Option<(&str, u8)>) -> Self {
        let mut file = vec![0; 4 * MIB];
        put(&mut file, 0, b"vhdxfile");
        put(&mut file, 3 * KIB64, b"regi");
        put(&mut file, 3 * KIB64 + 8, &2_u32.to_le_bytes());
        let regions = [
            ("2DC27766-F623-4200-9D64-115E9BFD4A08", BAT),
            ("8B7CA206-4790-4B9A-B8FE-575F050F886E", METADATA),
        ];
        for (index, (id, at)) in regions.iter().enumerate() {
            let entry = 3 * KIB64 + 16 + index * 32;
            put(&mut file, entry, &guid(id));
            put(&mut file, entry + 16, &(*at as u64).to_le_bytes());
            put(&mut file, entry + 24, &(MIB as u32).to_le_bytes());
            put(&mut file, entry + 28, &1_u32.to_le_bytes());
        }
        seal(&mut file, 3 * KIB64, KIB64);
        file.copy_within(3 * KIB64..4 * KIB64, 4 * KIB64);
        let flags = if parent.is_some() { 2_u32 } else { 0 };
        let mut parameters = (BLOCK as u32).to_le_bytes().to_vec();
        parameters.extend(flags.to_le_bytes());
        let mut items = vec![
            ("CAA16737-FA36-4D43-B3B6-33F0AA44E76B", parameters),
            (
                "2FA54224-CD1B-4876-B211-5DBED83BF4B8",
                (5 * MIB as u64).to_le_bytes().to_vec(),
            ),
            (
                "8141BF1D-A96F-4709-BA47-F233A8FAAB5F",
                512_u32.to_le_bytes().to_vec(),
            ),
            (
                "CDA348C7-445D-4471-9CC9-E9885251C556",
                4096_u32.to_le_bytes().to_vec(),
            ),
        ];
        if let Some((name, id)) = parent {
            items.push(("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C", locator(name, id)));
        }
        put(&mut file, METADATA, b"metadata");
        put(
            &mut file,
            METADATA + 10,
            &(items.len() as u16).to_le_bytes(),
        );
        for (index, (id, item)) in items.iter().enumerate() {
            let (entry, at) = (METADATA + 32 + index * 32, KIB64 + index * 4096);
            put(&mut file, entry, &guid(id));
            put(&mut file, entry + 16, &(at as u32).to_le_bytes());
            put(&mut file, entry + 20, &(item.len() as u32).to_le_bytes());
            put(&mut file, entry + 24, &4_u32.to_le_bytes());
            put(&mut file, METADATA + at, item);
        }
        let mut disk = Self(file);
        disk.header(1, 1, id, [0; 16]);
        disk
    }

    fn header(&mut self, which: usize, sequence: u64, id: u8, log_id: [u8; 16]) {
        let at = which * KIB64;
        put(&mut self.0, at, b"head");
        put(&mut self.0, at + 8, &sequence.to_le_bytes());
        put(&mut self.0, at + 32, &[id; 16]);
        put(&mut self.0, at + 48, &log_id);
        put(&mut self.0, at + 66, &1_u16.to_le_bytes());
        put(&mut self.0, at + 68, &(MIB as u32).to_le_bytes());
        put(&mut self.0, at + 72, &(LOG as u64).to_le_bytes());
        seal(&mut self.0, at, 4096);
    }

    /// Appends a MiB of data and says the table entry for it in `state`.
    fn data(&mut self, byte: u8, state: u64) -> u64 {
        let at = self.0.len();
        self.0.resize(at + MIB, byte);
        at as u64 | state
    }

    fn entry(&mut self, block: usize, entry: u64) {
        put(&mut self.0, BAT + block * 8, &entry.to_le_bytes());
    }

    /// Puts an entry into the log at `at`: changes are a file offset and either a sector or zeros.
    fn log(&mut self, at: usize, tail: usize, sequence: u64, changes: &[(u64, Option<Vec<u8>>)]) {
        let sectors = changes.iter().filter(|change| change.1.is_some()).count();
        let head = (64 + 32 * changes.len()).next_multiple_of(4096);
        let mut entry = vec![0; head + sectors * 4096];
        let length = entry.len();
        put(&mut entry, 0, b"loge");
        put(&mut entry, 8, &(length as u32).to_le_bytes());
        put(&mut entry, 12, &(tail as u32).to_le_bytes());
        put(&mut entry, 16, &sequence.to_le_bytes());
        put(&mut entry, 24, &(changes.len() as u32).to_le_bytes());
        put(&mut entry, 32, &[7; 16]);
        put(&mut entry, 48, &(4 * MIB as u64).to_le_bytes());
        put(&mut entry, 56, &(self.0.len() as u64).to_le_bytes());
        let mut data = head;
        for (index, (offset, bytes)) in changes.iter().enumerate() {
            let at = 64 + index * 32;
            put(&mut entry, at + 16, &offset.to_le_bytes());
            put(&mut entry, at + 24, &sequence.to_le_bytes());
            let Some(bytes) = bytes else {
                put(&mut entry, at, b"zero");
                put(&mut entry, at + 8, &4096_u64.to_le_bytes());
                continue;
            };
            put(&mut entry, at, b"desc");
            put(&mut entry, at + 4, &bytes[4092..]);
            put(&mut entry, at + 8, &bytes[..8]);
            put(&mut entry, data, b"data");
            put(
                &mut entry,
                data + 4,
                &((sequence >> 32) as u32).to_le_bytes(),
            );
            put(&mut entry, data + 8, &bytes[8..4092]);
            put(&mut entry, data + 4092, &(sequence as u32).to_le_bytes());
            data += 4096;
        }
        seal(&mut entry, 0, length);
        for (index, byte) in entry.iter().enumerate() {
            self.0[LOG + (at + index) % MIB] = *byte;
        }
    }
}

fn locator(name: &str, id: u8) -> Vec<u8> {
    let id = format!(
        "{{{0:02x}{0:02x}{0:02x}{0:02x}-{0:02x}{0:02x}-{0:02x}{0:02x}-{0:02x}{0:02x}-{0:02x}{0:02x}{0:02x}{0:02x}{0:02x}{0:02x}}}",
        id
    );
    let pairs = [("parent_linkage", &*id), ("relative_path", name)];
    let mut bytes = guid("B04AEFB7-D19E-4A81-B789-25B8E9445913").to_vec();
    bytes.extend([0, 0, pairs.len() as u8, 0]);
    let mut texts: Vec<u8> = Vec::new();
    let start = 20 + pairs.len() * 12;
    let mut lengths = Vec::new();
    for text in pairs.iter().flat_map(|(key, value)| [*key, *value]) {
        let text: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        lengths.push((start + texts.len(), text.len()));
        texts.extend(text);
    }
    for pair in lengths.chunks(2) {
        bytes.extend((pair[0].0 as u32).to_le_bytes());
        bytes.extend((pair[1].0 as u32).to_le_bytes());
        bytes.extend((pair[0].1 as u16).to_le_bytes());
        bytes.extend((pair[1].1 as u16).to_le_bytes());
    }
    bytes.extend(texts);
    bytes
}

fn open(files: &[(&str, &Disk)]) -> Result<Image> {
    let mut opener = MemoryOpener::default();
    for (name, disk) in files {
        let bytes: Arc<dyn BlockRead> = Arc::new(MemoryDisk::from(disk.0.clone()));
        opener = opener.with(format!("/vm/{name}"), bytes);
    }
    let bytes = Arc::new(MemoryDisk::from(files[0].1.0.clone()));
    let file = FileHandle::from_bytes(format!("/vm/{}", files[0].0), bytes);
    crate::open_file(file, &opener, OpenOptions::default())
}

fn byte(image: &Image, at: usize) -> u8 {
    let mut byte = [0xee];
    image.read_at(ByteOffset(at as u64), &mut byte).unwrap();
    byte[0]
}

#[test]
fn guids_are_stored_in_mixed_order() {
    let bytes = guid("00112233-4455-6677-8899-aabbccddeeff");
    assert_eq!(bytes[..8], [0x33, 0x22, 0x11, 0, 0x55, 0x44, 0x77, 0x66]);
    assert_eq!(
        parse_guid("{00112233-4455-6677-8899-AABBCCDDEEFF}"),
        Some(bytes)
    );
    for bad in [
        "",
        "{}",
        "0011223-34455-6677-8899-aabbccddeeff",
        "é".repeat(18).as_str(),
    ] {
        assert_eq!(parse_guid(bad), None);
    }
}

#[test]
fn blocks_are_data_zeros_or_nothing() {
    let mut disk = Disk::new(1, None);
    let entry = disk.data(5, 6);
    disk.entry(1, entry);
    for (block, state) in [(2, 1), (3, 2), (4, 3)] {
        disk.entry(block, state);
    }
    let image = open(&[("d.vhdx", &disk)]).unwrap();
    assert_eq!(image.info().sector_size.physical, 4096);
    assert_eq!(
        [0, 1, 2, 3, 4].map(|block| byte(&image, block * BLOCK + 9)),
        [0, 5, 0, 0, 0]
    );
    disk.entry(0, 4);
    let error = open(&[("d.vhdx", &disk)])
        .unwrap()
        .read_at(ByteOffset(0), &mut [0])
        .unwrap_err();
    assert_eq!(error.code(), "disk.vhdx.block-state");
    disk.entry(0, (1 << 40) | 6);
    let image = open(&[("d.vhdx", &disk)]).unwrap();
    let error = image.read_at(ByteOffset(0), &mut [0]).unwrap_err();
    assert_eq!(error.code(), "disk.vhdx.data-outside");
    assert_eq!(
        image.extents(ByteRange::new(0, 10)).unwrap()[0].kind,
        ExtentKind::Data
    );
}

#[test]
fn a_differencing_disk_lies_over_its_parent() {
    let mut base = Disk::new(1, None);
    for block in 0..3 {
        let entry = base.data(10 + block as u8, 6);
        base.entry(block, entry);
    }
    let mut top = Disk::new(2, Some((".\\base.vhdx", 1)));
    let entry = top.data(20, 6);
    top.entry(1, entry);
    let entry = top.data(30, 7);
    top.entry(2, entry);
    top.entry(0, 2);
    // Sectors 3, 4 and the last one of block 2 are in the top disk.
    let bitmap = top.data(0, 6);
    put(&mut top.0, BITMAP_ENTRY, &bitmap.to_le_bytes());
    for sector in [3, 4, 2047] {
        let bit = 2 * 2048 + sector;
        top.0[(bitmap & !6) as usize + bit / 8] |= 1 << (bit % 8);
    }
    let files = [("top.vhdx", &top), ("base.vhdx", &base)];
    let image = open(&files).unwrap();
    assert_eq!(image.info().variant, "differencing");
    assert_eq!(byte(&image, 5), 0);
    assert_eq!(byte(&image, BLOCK), 20);
    let mut block = vec![0; BLOCK];
    image
        .read_at(ByteOffset(2 * BLOCK as u64), &mut block)
        .unwrap();
    for (sector, bytes) in block.chunks(512).enumerate() {
        let expected = if [3, 4, 2047].contains(&sector) {
            30
        } else {
            12
        };
        assert_eq!(bytes, [expected; 512], "sector {sector}");
    }
    assert_eq!(byte(&image, 4 * BLOCK), 0);
    let extents = base::block::all_extents(&image, ByteRange::new(0, 5 * MIB as u64)).unwrap();
    assert_eq!(extents.len(), 3, "{extents:?}");
    base.header(2, 2, 9, [0; 16]);
    let files = [("top.vhdx", &top), ("base.vhdx", &base)];
    assert_eq!(open(&files).unwrap_err().code(), "disk.vhdx.parent-changed");
}

#[test]
fn the_newer_sound_header_counts() {
    let mut disk = Disk::new(1, None);
    disk.header(2, 2, 5, [0; 16]);
    assert_eq!(open(&[("d.vhdx", &disk)]).unwrap().identity, Some([5; 16]));
    disk.0[2 * KIB64 + 100] ^= 1;
    assert_eq!(open(&[("d.vhdx", &disk)]).unwrap().identity, Some([1; 16]));
    disk.0[KIB64 + 100] ^= 1;
    assert_eq!(
        open(&[("d.vhdx", &disk)]).unwrap_err().code(),
        "disk.vhdx.header"
    );
    // A damaged region table is read from its copy, a damaged copy is not.
    let mut disk = Disk::new(1, None);
    disk.0[3 * KIB64 + 100] ^= 1;
    assert!(open(&[("d.vhdx", &disk)]).is_ok());
    disk.0[4 * KIB64 + 100] ^= 1;
    assert_eq!(
        open(&[("d.vhdx", &disk)]).unwrap_err().code(),
        "disk.vhdx.region-table"
    );
}

/// The table of blocks as it should be is in the log only.
fn logged(logs: impl FnOnce(&mut Disk, &[Vec<u8>; 3])) -> Result<Image> {
    let mut disk = Disk::new(1, None);
    let tables = [5_u8, 6, 7].map(|byte| {
        let entry = disk.data(byte, 6);
        let mut table = vec![0; 4096];
        put(&mut table, 8, &entry.to_le_bytes());
        // The last entry of the sector is what the descriptor's trailing bytes carry.
        put(&mut table, 4092, &[byte; 4]);
        table
    });
    disk.header(2, 2, 1, [7; 16]);
    logs(&mut disk, &tables);
    open(&[("d.vhdx", &disk)])
}

#[test]
fn the_log_is_replayed_in_memory() {
    let bat = BAT as u64;
    // One entry.
    let image = logged(|disk, t| disk.log(0, 0, 3, &[(bat, Some(t[0].clone()))])).unwrap();
    assert_eq!(byte(&image, BLOCK + 7), 5);
    assert!(image.info().warnings[0].contains("log was replayed"));
    // A later entry overrides an earlier one; the sequence goes round the end of the log.
    let image = logged(|disk, t| {
        disk.log(MIB - 8192, MIB - 8192, 3, &[(bat, Some(t[0].clone()))]);
        disk.log(0, MIB - 8192, 4, &[(bat, Some(t[1].clone()))]);
    })
    .unwrap();
    assert_eq!(byte(&image, BLOCK + 7), 6);
    // An entry across the end.
    let image = logged(|disk, t| disk.log(MIB - 4096, MIB - 4096, 3, &[(bat, Some(t[2].clone()))]));
    assert_eq!(byte(&image.unwrap(), BLOCK + 7), 7);
    // Zeros over a sector, and a sector over zeros.
    let image = logged(|disk, t| {
        disk.log(0, 0, 3, &[(bat, Some(t[0].clone()))]);
        disk.log(8192, 0, 4, &[(bat, None)]);
    });
    assert_eq!(byte(&image.unwrap(), BLOCK + 7), 0);
    let image = logged(|disk, t| {
        disk.log(0, 0, 3, &[(bat, None), (bat, Some(t[1].clone()))]);
    });
    assert_eq!(byte(&image.unwrap(), BLOCK + 7), 6);
    // An older sequence elsewhere is ignored, and so is what is before the tail.
    let image = logged(|disk, t| {
        disk.log(0, 0, 9, &[(bat, Some(t[0].clone()))]);
        disk.log(65536, 65536, 20, &[(bat + 4096, None)]);
        disk.log(65536 + 4096, 65536 + 4096, 21, &[(bat + 4096, None)]);
    });
    assert_eq!(byte(&image.unwrap(), BLOCK + 7), 0);
    // A torn last entry is as if it were not there.
    let image = logged(|disk, t| {
        disk.log(0, 0, 3, &[(bat, Some(t[0].clone()))]);
        disk.log(8192, 0, 4, &[(bat, Some(t[1].clone()))]);
        disk.0[LOG + 8192 + 5000] ^= 1;
    });
    assert_eq!(byte(&image.unwrap(), BLOCK + 7), 5);
}

#[test]
fn logs_that_cannot_be_are_refused() {
    let bat = BAT as u64;
    let code = |logs: &dyn Fn(&mut Disk, &[Vec<u8>; 3])| {
        logged(|disk, t| logs(disk, t))
            .unwrap_err()
            .code()
            .to_owned()
    };
    assert_eq!(code(&|_, _| {}), "disk.vhdx.log-empty");
    assert_eq!(
        code(&|d, t| d.log(0, 0, 3, &[(1 << 50, Some(t[0].clone()))])),
        "disk.vhdx.log-outside"
    );
    assert_eq!(
        code(&|d, _| d.log(0, 0, 3, &[(u64::MAX - 4095, None)])),
        "disk.vhdx.log-outside"
    );
    assert_eq!(
        code(&|d, _| d.log(0, 4096, 3, &[(bat, None)])),
        "disk.vhdx.log-empty"
    );
    let cut = |d: &mut Disk, _: &[Vec<u8>; 3]| {
        d.log(0, 0, 3, &[(bat, None)]);
        put(&mut d.0, LOG + 48, &(1_u64 << 40).to_le_bytes());
        seal(&mut d.0, LOG, 4096);
    };
    assert_eq!(code(&cut), "disk.vhdx.short");
}
