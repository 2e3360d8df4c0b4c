//! qcow2 images made by QEMU read by us, and made by us read by QEMU.

use crate::content::{assert_as_sparse_as, assert_holds, content, write_raw};
use crate::qemu::{self, text};
use base::block::{BlockRead, BlockWrite, is_zero};
use base::random::SeededRandom;
use base::size::{ByteCount, ByteOffset, ByteRange, GIB, KIB, MIB};
use disk::{Format, OpenOptions};
use std::path::Path;

fn convert(folder: &Path, seed: u64, size: u64, options: &str, flags: &[&str]) {
    let bytes = content(seed, size);
    let raw = write_raw(folder, "source.raw", &bytes);
    let image = folder.join("image.qcow2");
    let mut arguments = vec!["convert", "-f", "raw", "-O", "qcow2", "-o", options];
    arguments.extend(flags);
    arguments.extend([text(&raw), text(&image)]);
    qemu::img(&arguments);
    let opened = disk::open(&image).unwrap();
    assert_eq!(opened.info().format, Format::Qcow2, "{options}");
    assert_eq!(opened.info().warnings, Vec::<String>::new(), "{options}");
    assert_holds(&opened, &bytes, options);
    assert_as_sparse_as(&opened, &qemu::map("qcow2", &image), options);
}

#[test]
fn every_variant_that_qemu_makes_reads_the_same() {
    let size = 7 * MIB + 512 * 3;
    let variants = [
        "compat=0.10",
        "compat=0.10,cluster_size=512",
        "compat=1.1",
        "compat=1.1,lazy_refcounts=on",
        "cluster_size=512",
        "cluster_size=4k",
        "cluster_size=2M",
        "extended_l2=on,cluster_size=16k",
        "extended_l2=on,cluster_size=128k",
        "extended_l2=on,cluster_size=2M",
        "refcount_bits=1",
        "refcount_bits=64",
        "preallocation=metadata",
        "preallocation=falloc",
        "preallocation=full",
    ];
    for (seed, options) in variants.iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        convert(folder.path(), seed as u64, size, options, &[]);
    }
}

#[test]
fn compressed_images_read_the_same() {
    let variants = [
        "compression_type=zlib",
        "compression_type=zstd",
        "compression_type=zlib,compat=0.10",
        "compression_type=zlib,cluster_size=512",
        "compression_type=zstd,cluster_size=2M",
        "compression_type=zstd,extended_l2=on,cluster_size=32k",
        "compression_type=zlib,extended_l2=on,cluster_size=16k",
    ];
    for (seed, options) in variants.iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        convert(folder.path(), 50 + seed as u64, 5 * MIB, options, &["-c"]);
    }
}

#[test]
fn external_data_files_read_the_same() {
    for (seed, raw) in ["off", "on"].iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = content(70 + seed as u64, 6 * MIB);
        let source = write_raw(folder.path(), "source.raw", &bytes);
        let image = folder.path().join("image.qcow2");
        let data = folder.path().join("data.bin");
        let options = format!("data_file={},data_file_raw={raw}", text(&data));
        qemu::img(&["create", "-f", "qcow2", "-o", &options, text(&image), "6M"]);
        let arguments = [
            "convert",
            "-n",
            "-f",
            "raw",
            "-O",
            "qcow2",
            text(&source),
            text(&image),
        ];
        qemu::img(&arguments);
        let opened = disk::open(&image).unwrap();
        assert_holds(&opened, &bytes, &options);
        assert_eq!(
            opened.info().files,
            vec![std::fs::canonicalize(&data).unwrap()]
        );
        std::fs::remove_file(&data).unwrap();
        assert_eq!(disk::open(&image).unwrap_err().kind(), base::Kind::NotFound);
    }
}

#[test]
fn backing_chains_read_the_same() {
    for (seed, options) in ["cluster_size=64k", "extended_l2=on,cluster_size=64k"]
        .iter()
        .enumerate()
    {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        // Each level is larger than the one below it.
        let bytes = content(80 + seed as u64, 3 * MIB + 512);
        write_raw(folder, "base.raw", &bytes);
        let mut below = ("base.raw".to_owned(), "raw");
        let random = SeededRandom::new(seed as u64);
        for level in 0..4 {
            let name = folder.join(format!("level{level}.qcow2"));
            let size = format!("{}", 4 * MIB + level * MIB);
            let arguments = [
                "-f",
                "qcow2",
                "-o",
                options,
                "-F",
                below.1,
                "-b",
                &below.0,
                text(&name),
                &size,
            ];
            qemu::img(&[&["create"], &arguments[..]].concat());
            for _ in 0..6 {
                let at = random.below(4 * MIB / 512 - 300) * 512;
                let length = (1 + random.below(299)) * 512;
                let verb = if random.one_in(3) {
                    "write -z"
                } else {
                    "write -P 0x5a"
                };
                qemu::io("qcow2", &name, &[&format!("{verb} {at} {length}")]);
            }
            below = (format!("level{level}.qcow2"), "qcow2");
        }
        let top = folder.join("level3.qcow2");
        let flat = folder.join("flat.raw");
        qemu::img(&["convert", "-O", "raw", text(&top), text(&flat)]);
        let opened = disk::open(&top).unwrap();
        assert_holds(&opened, &std::fs::read(&flat).unwrap(), options);
        assert_as_sparse_as(&opened, &qemu::map("qcow2", &top), options);
        let parents: Vec<_> = opened
            .info()
            .parents
            .iter()
            .map(|parent| parent.format)
            .collect();
        assert_eq!(
            parents,
            [Format::Qcow2, Format::Qcow2, Format::Qcow2, Format::Raw]
        );
    }
}

#[test]
fn internal_snapshots_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image.qcow2");
    qemu::img(&["create", "-f", "qcow2", text(&image), "4M"]);
    qemu::io("qcow2", &image, &["write -P 1 0 1M"]);
    qemu::img(&["snapshot", "-c", "before", text(&image)]);
    qemu::io("qcow2", &image, &["write -P 2 512k 1M"]);
    let opened = disk::open(&image).unwrap();
    let mut expected = vec![0; 4 * MIB as usize];
    expected[..MIB as usize].fill(1);
    expected[512 * KIB as usize..1536 * KIB as usize].fill(2);
    assert_holds(&opened, &expected, "with a snapshot");
    assert!(opened.info().warnings[0].contains("snapshot"));
}

#[test]
fn an_image_that_was_not_closed_reads_with_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image.qcow2");
    qemu::img(&[
        "create",
        "-f",
        "qcow2",
        "-o",
        "lazy_refcounts=on",
        text(&image),
        "4M",
    ]);
    qemu::io_killed("qcow2", &image, &["write -P 7 1M 1M", "flush"]);
    let opened = disk::open(&image).unwrap();
    let mut byte = [0];
    opened.read_at(ByteOffset(MIB + 5), &mut byte).unwrap();
    assert_eq!(byte, [7]);
    assert!(
        opened.info().warnings[0].contains("not closed cleanly"),
        "{:?}",
        opened.info()
    );
}

#[test]
fn encrypted_images_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image.qcow2");
    qemu::img(&[
        "create",
        "-q",
        "--object",
        "secret,id=s,data=abc",
        "-f",
        "qcow2",
        "-o",
        "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
        text(&image),
        "1M",
    ]);
    let error = disk::open(&image).unwrap_err();
    assert_eq!(error.code(), "disk.qcow2.encrypted");
    assert!(error.hint_text().is_some());
}

#[test]
fn what_we_write_qemu_accepts_and_reads_the_same() {
    for seed in 0..4 {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("ours.qcow2");
        let size = 20 * MIB + 512 * seed;
        let mut model = content(90 + seed, size);
        let writer = disk::qcow2::create(&image, ByteCount(size)).unwrap();
        // In random order, as restores by several threads write.
        let random = SeededRandom::new(seed);
        let mut pieces: Vec<usize> = (0..model.len().div_ceil(37_000)).collect();
        for at in (1..pieces.len()).rev() {
            pieces.swap(at, random.below(at as u64 + 1) as usize);
        }
        for piece in pieces {
            let at = piece * 37_000;
            let bytes = &model[at..(at + 37_000).min(size as usize)];
            if is_zero(bytes) {
                let range = ByteRange::new(at as u64, bytes.len() as u64);
                writer.write_zeroes(range).unwrap();
            } else {
                writer.write_at(ByteOffset(at as u64), bytes).unwrap();
            }
        }
        writer.flush().unwrap();
        for _ in 0..10 {
            let at = random.below(size - 500_000);
            let length = random.below(500_000);
            writer.write_zeroes(ByteRange::new(at, length)).unwrap();
            model[at as usize..(at + length) as usize].fill(0);
        }
        writer.flush().unwrap();
        drop(writer);
        let raw = write_raw(folder.path(), "expected.raw", &model);
        qemu::img(&["check", "-f", "qcow2", text(&image)]);
        qemu::img(&[
            "compare",
            "-f",
            "raw",
            "-F",
            "qcow2",
            text(&raw),
            text(&image),
        ]);
        assert_holds(&disk::open(&image).unwrap(), &model, "ours");
        // And QEMU can go on writing it.
        qemu::io("qcow2", &image, &["write -P 3 1M 2M"]);
        qemu::img(&["check", "-f", "qcow2", text(&image)]);
    }
}

#[test]
fn a_huge_new_image_costs_nothing_and_is_sound() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("huge.qcow2");
    let size = 100 * 1024 * GIB;
    let writer = disk::qcow2::create(&image, ByteCount(size)).unwrap();
    // More L2 tables than are kept in memory.
    for at in 0..200 {
        writer
            .write_at(ByteOffset(at * 500 * GIB + at * 512), &[1 + at as u8; 512])
            .unwrap();
    }
    writer.flush().unwrap();
    qemu::img(&["check", "-f", "qcow2", text(&image)]);
    let opened = disk::open(&image).unwrap();
    assert!(
        opened.info().allocated < ByteCount(64 * MIB),
        "{:?}",
        opened.info().allocated
    );
    for at in 0..200 {
        let mut sector = [0; 512];
        opened
            .read_at(ByteOffset(at * 500 * GIB + at * 512), &mut sector)
            .unwrap();
        assert_eq!(sector, [1 + at as u8; 512]);
    }
    let extents = base::block::all_extents(&opened, ByteRange::new(0, size)).unwrap();
    assert_eq!(extents.len(), 400);
}

#[test]
fn a_stated_raw_format_is_not_guessed_again() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("inner.qcow2");
    qemu::img(&["create", "-f", "qcow2", text(&inner), "4M"]);
    let opener = disk::FolderOpener::beside(&inner).unwrap();
    let options = OpenOptions {
        format: Some(Format::Raw),
    };
    let opened = disk::open_with(&inner, &opener, options).unwrap();
    assert_eq!(opened.size().0, std::fs::metadata(&inner).unwrap().len());
    // An overlay that states the format of its base says the same.
    let overlay = folder.path().join("overlay.qcow2");
    let arguments = [
        "create",
        "-f",
        "qcow2",
        "-b",
        "inner.qcow2",
        "-F",
        "raw",
        text(&overlay),
    ];
    qemu::img(&arguments);
    assert_eq!(
        disk::open(&overlay).unwrap().info().parents[0].format,
        Format::Raw
    );
}

#[test]
fn an_image_that_a_machine_writes_is_opened_with_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image.qcow2");
    qemu::img(&["create", "-f", "qcow2", text(&image), "4M"]);
    let holder = qemu::hold("qcow2", &image);
    let warnings = disk::open(&image).unwrap().info().warnings.clone();
    assert!(
        warnings
            .iter()
            .any(|warning| warning.contains("another program")),
        "{warnings:?}"
    );
    drop(holder);
    assert_eq!(
        disk::open(&image).unwrap().info().warnings,
        Vec::<String>::new()
    );
}
