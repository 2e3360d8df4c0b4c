//! VHD and VHDX disks made by QEMU.

use crate::content::{assert_as_sparse_as, assert_holds, content, write_raw};
use crate::qemu::{self, text};
use base::block::BlockRead;
use base::size::{ByteOffset, MIB};
use disk::Format;

fn convert(format: &str, seed: u64, size: u64, options: &str) {
    let folder = tempfile::tempdir().unwrap();
    let bytes = content(seed, size);
    let raw = write_raw(folder.path(), "source.raw", &bytes);
    let image = folder.path().join("image");
    let arguments = [
        "convert",
        "-f",
        "raw",
        "-O",
        format,
        "-o",
        options,
        text(&raw),
        text(&image),
    ];
    qemu::img(&arguments);
    let opened = disk::open(&image).unwrap();
    assert_eq!(Format::from_name(format), Some(opened.info().format));
    assert_eq!(opened.info().warnings, Vec::<String>::new());
    assert_holds(&opened, &bytes, options);
    assert_as_sparse_as(&opened, &qemu::map(format, &image), options);
}

#[test]
fn vhd_disks_read_the_same() {
    for (seed, subformat) in ["fixed", "dynamic"].iter().enumerate() {
        let options = format!("subformat={subformat},force_size=on");
        convert("vpc", 300 + seed as u64, 9 * MIB + 512 * 5, &options);
    }
}

/// Without being told the size QEMU rounds it up to what cylinders, heads and sectors can say.
#[test]
fn a_vhd_with_a_geometry_reads_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let raw = write_raw(folder.path(), "source.raw", &content(310, 5 * MIB + 512));
    let (image, flat) = (
        folder.path().join("image.vhd"),
        folder.path().join("flat.raw"),
    );
    qemu::img(&[
        "convert",
        "-f",
        "raw",
        "-O",
        "vpc",
        text(&raw),
        text(&image),
    ]);
    qemu::img(&[
        "convert",
        "-f",
        "vpc",
        "-O",
        "raw",
        text(&image),
        text(&flat),
    ]);
    let expected = std::fs::read(&flat).unwrap();
    assert!(expected.len() as u64 > 5 * MIB + 512);
    assert_holds(&disk::open(&image).unwrap(), &expected, "geometry");
}

#[test]
fn vhdx_disks_read_the_same() {
    let variants = [
        "subformat=dynamic",
        "subformat=dynamic,block_size=1M",
        "subformat=dynamic,block_size=256M",
        "subformat=dynamic,block_size=1M,log_size=4M",
        "subformat=dynamic,block_state_zero=off",
        "subformat=fixed",
    ];
    for (seed, options) in variants.iter().enumerate() {
        convert("vhdx", 320 + seed as u64, 13 * MIB + 512 * 8, options);
    }
}

/// The chunk after which the table of blocks has an entry for a bitmap: block 4096 of 1 MiB.
#[test]
fn large_vhdx_disks_read_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image.vhdx");
    qemu::img(&[
        "create",
        "-f",
        "vhdx",
        "-o",
        "block_size=1M",
        text(&image),
        "20G",
    ]);
    qemu::io(
        "vhdx",
        &image,
        &[
            "write -P 1 4095M 3M",
            "write -P 2 8191M 2M",
            "write -P 3 20479M 1M",
        ],
    );
    let opened = disk::open(&image).unwrap();
    let places = [
        (4094, 0),
        (4095, 1),
        (4097, 1),
        (4098, 0),
        (8191, 2),
        (8192, 2),
        (8193, 0),
        (20479, 3),
    ];
    for (at, expected) in places {
        let mut bytes = vec![9; MIB as usize];
        opened.read_at(ByteOffset(at * MIB), &mut bytes).unwrap();
        assert!(bytes.iter().all(|byte| *byte == expected), "block {at}");
    }
    assert_as_sparse_as(&opened, &qemu::map("vhdx", &image), "large");
}

/// A host that died between writing the log and the table: QEMU and we must replay the same.
#[test]
fn a_log_that_qemu_wrote_is_replayed_as_qemu_does() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image.vhdx");
    qemu::img(&[
        "create",
        "-f",
        "vhdx",
        "-o",
        "block_size=1M",
        text(&image),
        "64M",
    ]);
    qemu::io("vhdx", &image, &["write -P 1 1M 1M"]);
    qemu::io_killed("vhdx", &image, &["write -P 2 5M 2M", "flush"]);
    let mut bytes = std::fs::read(&image).unwrap();
    // Where the table of blocks is stands in the region table.
    let entry = 192 * 1024 + 16;
    let bat = (0..2)
        .map(|index| &bytes[entry + index * 32..entry + (index + 1) * 32])
        .find(|region| region[..4] == [0x66, 0x77, 0xc2, 0x2d])
        .map(|region| u64::from_le_bytes(region[16..24].try_into().unwrap()) as usize)
        .unwrap();
    // As if the table had not been written after the log.
    bytes[bat + 5 * 8..bat + 7 * 8].fill(0);
    mark_log_as_used(&mut bytes);
    std::fs::write(&image, &bytes).unwrap();
    let opened = disk::open(&image).unwrap();
    assert!(
        opened.info().warnings[0].contains("replayed"),
        "{:?}",
        opened.info()
    );
    assert!(
        std::fs::read(&image).unwrap() == bytes,
        "the file was changed"
    );
    let repaired = folder.path().join("repaired.vhdx");
    std::fs::write(&repaired, &bytes).unwrap();
    qemu::img(&["check", "-r", "all", "-f", "vhdx", text(&repaired)]);
    let flat = folder.path().join("flat.raw");
    qemu::img(&[
        "convert",
        "-f",
        "vhdx",
        "-O",
        "raw",
        text(&repaired),
        text(&flat),
    ]);
    let expected = std::fs::read(&flat).unwrap();
    assert_eq!(expected[5 * MIB as usize + 5], 2);
    assert_eq!(expected[6 * MIB as usize + 5], 2);
    assert_holds(&opened, &expected, "after the replay");
}

/// Puts the id of the newest log entry into the newest header. QEMU takes it out again as soon as
/// the table is written, so that no kill from outside leaves the state between.
fn mark_log_as_used(bytes: &mut [u8]) {
    let number =
        |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let newest_log = (MIB as usize..2 * MIB as usize)
        .step_by(4096)
        .filter(|at| &bytes[*at..at + 4] == b"loge")
        .max_by_key(|at| number(bytes, at + 16))
        .unwrap();
    let header = [64 << 10, 128 << 10]
        .into_iter()
        .max_by_key(|at| number(bytes, at + 8))
        .unwrap();
    bytes.copy_within(newest_log + 32..newest_log + 48, header + 48);
    bytes[header + 4..header + 8].fill(0);
    let sum = crc32c::crc32c(&bytes[header..header + 4096]);
    bytes[header + 4..header + 8].copy_from_slice(&sum.to_le_bytes());
}
