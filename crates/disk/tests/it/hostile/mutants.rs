//! Mutants: mostly where headers and tables are, with numbers that break arithmetic, or cut at
//! random places. Whatever comes: no panic, no hang, no large allocation, and no error that blames
//! ourselves.

use super::{Fixture, Mutant, fixture, image_of};
use crate::allocation;
use crate::content::{content, write_raw};
use crate::qemu::{self, text};
use base::block::{BlockRead, Extent, ExtentKind};
use base::memory::MemoryDisk;
use base::random::{Random, SeededRandom};
use base::size::{ByteCount, ByteOffset, ByteRange, MIB};
use base::{Kind, Result};
use disk::Format;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Mutants of each fixture; every format has at least 2,000.
const MUTANTS: u64 = 1100;
/// Far more than any mutant needs, even on a loaded machine.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Opens a mutant and reads here and there.
fn exercise(fixture: &Fixture, mutant: Mutant, random: &SeededRandom) -> Result<()> {
    let image = image_of(fixture, mutant)?;
    let size = image.size().0;
    let mut result = Ok(());
    let mut buffer = vec![0; 200_000];
    for place in 0..6 {
        let length = (1 + random.below(buffer.len() as u64)).min(size);
        let at = match place {
            0 => 0,
            1 => size - length,
            _ => random.below(size - length + 1),
        };
        let read = image.read_at(ByteOffset(at), &mut buffer[..length as usize]);
        // What reads as zeros by promise must be readable.
        let extents = image.extents(ByteRange::new(at, length));
        if let (Err(_), Ok(extents)) = (&read, &extents) {
            let zero = |extent: &Extent| extent.kind == ExtentKind::Zero;
            assert!(
                !(extents.iter().all(zero)
                    && extents.iter().map(|e| e.range.length.0).sum::<u64>() == length),
                "unreadable and yet called zeros: {at}+{length}"
            );
        }
        result = result.and(read).and(extents.map(drop));
    }
    let mut at = 0;
    for _ in 0..10 {
        if at == size {
            break;
        }
        match image.extents(ByteRange::new(at, size - at)) {
            Ok(extents) => at = extents.last().unwrap().range.end().0,
            Err(error) => return Err(error),
        }
    }
    result
}

/// Numbers that break arithmetic.
fn nasty(random: &SeededRandom) -> u64 {
    match random.below(6) {
        0 => 0,
        1 => u64::MAX >> random.below(64),
        2 => 1 << random.below(64),
        3 => (1_u64 << random.below(64)).wrapping_sub(1 + random.below(3)),
        4 => random.below(1 << 20) * 512,
        _ => random.next_u64(),
    }
}

fn mutate(fixture: &Fixture, random: &SeededRandom) -> Mutant {
    let mut mutant = Mutant::of(&fixture.bytes);
    for _ in 0..1 + random.below(3) {
        let table = fixture.tables[random.below(fixture.tables.len() as u64) as usize];
        let width = 1 << random.below(4);
        let at = table.offset.0 + random.below(table.length.0) / width * width;
        let number = nasty(random);
        let bytes = if random.one_in(2) {
            number.to_be_bytes()
        } else {
            number.to_le_bytes()
        };
        let bytes = if random.one_in(2) {
            bytes[..width as usize].to_vec()
        } else {
            bytes[8 - width as usize..].to_vec()
        };
        if at + width <= mutant.size {
            mutant = mutant.with(at, &bytes);
        }
    }
    if random.one_in(8) {
        mutant.size = match random.below(3) {
            0 => random.below(4096),
            1 => random.below(mutant.size),
            _ => mutant.size.saturating_sub(random.below(1024)),
        }
        .min(mutant.size);
    } else if !random.one_in(4) {
        (fixture.reseal)(&mut mutant);
    }
    mutant
}

fn run(name: &str, fixture: &Fixture) {
    assert!(
        exercise(fixture, Mutant::of(&fixture.bytes), &SeededRandom::new(0)).is_ok(),
        "{name}: the fixture itself must be sound"
    );
    let mut refused = 0;
    for seed in 0..MUTANTS {
        let random = SeededRandom::new(seed);
        let mutant = mutate(fixture, &random);
        let (start, patches) = (
            Instant::now(),
            format!("{:?} {}", mutant.patches, mutant.size),
        );
        allocation::reset();
        if let Err(error) = exercise(fixture, mutant, &random) {
            refused += 1;
            assert_ne!(
                error.kind(),
                Kind::Bug,
                "{name} seed {seed}: {error:?} {patches}"
            );
            assert!(
                error.code().starts_with("disk."),
                "{name} seed {seed}: {error:?} {patches}"
            );
        }
        let largest = allocation::largest();
        assert!(
            largest <= 64 * MIB as usize,
            "{name} seed {seed}: {largest} bytes {patches}"
        );
        assert!(
            start.elapsed() < TIME_MAX,
            "{name} seed {seed}: {:?}",
            start.elapsed()
        );
    }
    assert!(
        refused > MUTANTS / 50,
        "{name}: only {refused} mutants were noticed"
    );
}

/// A download that broke off, a disk that was full: what is read is right or an error.
#[test]
fn a_cut_file_gives_errors_and_never_other_bytes() {
    let fixtures = [
        fixture(Format::Qcow2, "qcow2", "compat=1.1", false),
        fixture(Format::Qcow2, "qcow2", "compression_type=zlib", true),
        fixture(Format::Vmdk, "vmdk", "subformat=monolithicSparse", false),
        fixture(Format::Vmdk, "vmdk", "subformat=streamOptimized", false),
        fixture(Format::Vhd, "vpc", "subformat=dynamic,force_size=on", false),
        fixture(Format::Vhd, "vpc", "subformat=fixed,force_size=on", false),
        fixture(Format::Vhdx, "vhdx", "block_size=1M", false),
    ];
    let expected = content(400, 3 * MIB);
    for fixture in fixtures {
        let length = fixture.bytes.size().0;
        let mut noticed = 0;
        // QEMU itself leaves off the end of a last cluster that is zeros, so that there a cut
        // inside a cluster cannot be told from a sound file.
        let step = if fixture.format == Format::Qcow2 {
            64 * 1024
        } else {
            31 * 512
        };
        for cut in (0..length).step_by(step).chain([length - 1]) {
            if fixture.format == Format::Qcow2 && cut == length - 1 {
                continue;
            }
            let mut mutant = Mutant::of(&fixture.bytes);
            mutant.size = cut;
            let Ok(image) = image_of(&fixture, mutant) else {
                noticed += 1;
                continue;
            };
            for (index, expected) in expected.chunks(50_000).enumerate() {
                let mut bytes = vec![0; expected.len()];
                let at = ByteOffset(index as u64 * 50_000);
                match image.read_at(at, &mut bytes) {
                    Err(_) => noticed += 1,
                    Ok(()) => assert!(bytes == expected, "{:?} cut at {cut}", fixture.format),
                }
                let range = ByteRange {
                    offset: at,
                    length: ByteCount(expected.len() as u64),
                };
                for extent in image.extents(range).unwrap_or_default() {
                    let start = (extent.range.offset - at).0 as usize;
                    let piece = &expected[start..start + extent.range.length.0 as usize];
                    assert!(
                        extent.kind == ExtentKind::Data || base::block::is_zero(piece),
                        "{:?} cut at {cut}: {extent:?} is data",
                        fixture.format
                    );
                }
            }
        }
        assert!(noticed > 0);
    }
}

#[test]
fn mutated_qcow2_images() {
    let variants = [
        ("cluster_size=4k", false),
        ("compression_type=zlib", true),
        ("compression_type=zstd,cluster_size=16k", true),
        ("extended_l2=on,cluster_size=16k", false),
    ];
    for (options, compressed) in variants {
        let mut fixture = fixture(Format::Qcow2, "qcow2", options, compressed);
        // The refcount table, the L1 table and the first L2 table.
        let sound = Mutant::of(&fixture.bytes);
        let number = |at| u64::from_be_bytes(sound.get(at, 8).try_into().unwrap());
        let l1 = number(40);
        let l2 = number(l1) & 0x00ff_ffff_ffff_fe00;
        fixture
            .tables
            .extend([ByteRange::new(l1, 16), ByteRange::new(l2, 4096)]);
        run(options, &fixture);
    }
}

#[test]
fn mutated_qcow2_overlays() {
    let folder = tempfile::tempdir().unwrap();
    write_raw(folder.path(), "base", &content(401, 2 * MIB));
    let image = folder.path().join("image");
    qemu::img(&[
        "create",
        "-f",
        "qcow2",
        "-b",
        "base",
        "-F",
        "raw",
        text(&image),
        "3M",
    ]);
    qemu::io(
        "qcow2",
        &image,
        &["write -P 3 1M 200k", "write -z 1300k 200k"],
    );
    let bytes = Arc::new(MemoryDisk::from(std::fs::read(&image).unwrap()));
    let parent = Arc::new(MemoryDisk::from(
        std::fs::read(folder.path().join("base")).unwrap(),
    ));
    let tables = vec![ByteRange::new(0, 600), ByteRange::new(0, bytes.size().0)];
    let format = Format::Qcow2;
    run(
        "overlay",
        &Fixture {
            format,
            bytes,
            tables,
            reseal: |_| {},
            parent: Some(parent),
        },
    );
}

#[test]
fn mutated_vmdk_disks() {
    let options = ["subformat=monolithicSparse", "subformat=streamOptimized"];
    for options in options {
        let mut fixture = fixture(Format::Vmdk, "vmdk", options, false);
        let sound = Mutant::of(&fixture.bytes);
        let directory = u64::from_le_bytes(sound.get(56, 8).try_into().unwrap()) * 512;
        let table = u64::from(u32::from_le_bytes(
            sound.get(directory, 4).try_into().unwrap(),
        )) * 512;
        fixture.tables.extend([
            ByteRange::new(0, 80),
            ByteRange::new(directory, 16),
            ByteRange::new(table, 256),
        ]);
        run(options, &fixture);
    }
    let text = "# Disk DescriptorFile\nversion=1\nCID=0a1b2c3d\nparentCID=ffffffff\n\
        createType=\"custom\"\nRW 2048 FLAT \"base\" 16\nRW 128 ZERO\nRW 64 FLAT \"base\" 0\n";
    let bytes = Arc::new(MemoryDisk::from(text.as_bytes().to_vec()));
    let tables = vec![ByteRange::new(0, text.len() as u64)];
    let parent = Some(Arc::new(MemoryDisk::from(content(402, 2 * MIB))));
    run(
        "descriptor",
        &Fixture {
            format: Format::Vmdk,
            bytes,
            tables,
            reseal: |_| {},
            parent,
        },
    );
}

/// The one's complement sums of a VHD, of which each structure has one.
fn reseal_vhd(mutant: &mut Mutant) {
    let end = mutant.size - 512;
    for (at, length, place) in [(0, 512, 64), (512, 1024, 36), (end, 512, 64)] {
        let mut bytes = mutant.get(at, length);
        if bytes.starts_with(b"conectix") || bytes.starts_with(b"cxsparse") {
            bytes[place..place + 4].fill(0);
            let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
            mutant
                .patches
                .push((at + place as u64, (!sum).to_be_bytes().to_vec()));
        }
    }
}

#[test]
fn mutated_vhd_disks() {
    for options in [
        "subformat=dynamic,force_size=on",
        "subformat=fixed,force_size=on",
    ] {
        let mut fixture = fixture(Format::Vhd, "vpc", options, false);
        let end = fixture.bytes.size().0 - 512;
        fixture.tables = vec![ByteRange::new(end, 88), ByteRange::new(end, 512)];
        if options.contains("dynamic") {
            fixture
                .tables
                .extend([ByteRange::new(512, 48), ByteRange::new(1536, 64)]);
        }
        fixture.reseal = reseal_vhd;
        run(options, &fixture);
    }
}

/// CRC-32C of headers and region tables.
fn reseal_vhdx(mutant: &mut Mutant) {
    let kib = 1024;
    for (at, length) in [(64, 4), (128, 4), (192, 64), (256, 64)] {
        let mut bytes = mutant.get(at * kib, length * 1024);
        bytes[4..8].fill(0);
        let sum = crc32c::crc32c(&bytes);
        mutant
            .patches
            .push((at * kib + 4, sum.to_le_bytes().to_vec()));
    }
}

#[test]
fn mutated_vhdx_disks() {
    for options in ["subformat=dynamic,block_size=1M", "subformat=fixed"] {
        let mut fixture = fixture(Format::Vhdx, "vhdx", options, false);
        let kib = 1024;
        let sound = Mutant::of(&fixture.bytes);
        let region = |index: u64| {
            let bytes = sound.get(192 * kib + 16 + index * 32 + 16, 8);
            u64::from_le_bytes(bytes.try_into().unwrap())
        };
        fixture.tables = vec![
            ByteRange::new(64 * kib, 80),
            ByteRange::new(128 * kib, 80),
            ByteRange::new(192 * kib, 80),
            ByteRange::new(256 * kib, 80),
        ];
        for index in 0..2 {
            // Whichever is the metadata: its table and its items.
            fixture.tables.push(ByteRange::new(region(index), 192));
            fixture
                .tables
                .push(ByteRange::new(region(index) + 64 * kib, 64));
        }
        fixture.reseal = reseal_vhdx;
        run(options, &fixture);
    }
}

/// A log with one entry that is sound, so that what is in it is reached.
#[test]
fn mutated_vhdx_logs() {
    let mut fixture = fixture(Format::Vhdx, "vhdx", "block_size=1M", false);
    let mut bytes = fixture.bytes.to_vec();
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let header = [64 << 10, 128 << 10]
        .into_iter()
        .max_by_key(|at| number(at + 8))
        .unwrap();
    let log = number(header + 72) as usize;
    bytes[header + 48..header + 64].fill(7);
    let mut entry = vec![0; 8192];
    entry[..4].copy_from_slice(b"loge");
    entry[8..12].copy_from_slice(&8192_u32.to_le_bytes());
    entry[16] = 1;
    entry[24] = 2;
    entry[32..48].fill(7);
    entry[64..68].copy_from_slice(b"zero");
    entry[72..80].copy_from_slice(&4096_u64.to_le_bytes());
    // Both change the creator's name at the start of the file, which nobody reads.
    entry[64 + 16 + 1] = 0x10;
    entry[64 + 24] = 1;
    entry[96..100].copy_from_slice(b"desc");
    entry[96 + 16 + 1] = 0x20;
    entry[96 + 24] = 1;
    entry[4096..4100].copy_from_slice(b"data");
    entry[4096 + 4092] = 1;
    bytes[log..log + 8192].copy_from_slice(&entry);
    let disk = Arc::new(MemoryDisk::from(bytes));
    fixture.reseal = |mutant| {
        reseal_vhdx(mutant);
        let mut entry = mutant.get(MIB, 8192);
        entry[4..8].fill(0);
        let sum = crc32c::crc32c(&entry);
        mutant.patches.push((MIB + 4, sum.to_le_bytes().to_vec()));
    };
    assert_eq!(log as u64, MIB, "the log is where the resealing expects it");
    let mut sealed = Mutant::of(&disk);
    (fixture.reseal)(&mut sealed);
    let sound = sealed.get(0, sealed.size as usize);
    fixture.bytes = Arc::new(MemoryDisk::from(sound));
    fixture.tables = vec![
        ByteRange::new(MIB, 128),
        ByteRange::new(header as u64 + 48, 32),
    ];
    run("log", &fixture);
}

#[test]
fn random_bytes_with_a_signature() {
    let signatures: [(Format, &[u8]); 5] = [
        (Format::Qcow2, b"QFI\xfb\0\0\0\x03"),
        (Format::Vmdk, b"KDMV\x01\0\0\0"),
        (Format::Vmdk, b"COWD\x01\0\0\0"),
        (Format::Vhdx, b"vhdxfile"),
        (Format::Vhd, b"conectix"),
    ];
    for (format, signature) in signatures {
        for seed in 0..300 {
            let random = SeededRandom::new(seed);
            let mut bytes = vec![0; 1 + random.below(300_000) as usize];
            random.fill(&mut bytes);
            let length = signature.len().min(bytes.len());
            bytes[..length].copy_from_slice(&signature[..length]);
            let bytes = Arc::new(MemoryDisk::from(bytes));
            let fixture = Fixture {
                format,
                bytes,
                tables: vec![],
                reseal: |_| {},
                parent: None,
            };
            allocation::reset();
            let result = exercise(&fixture, Mutant::of(&fixture.bytes), &random);
            assert!(allocation::largest() <= 64 * MIB as usize);
            if let Err(error) = result {
                assert_ne!(error.kind(), Kind::Bug);
            }
        }
    }
}
