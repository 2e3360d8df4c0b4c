//! Known attacks and accidents, each with the error it must give.

use super::{Mutant, fixture, image_of};
use crate::qemu::{self, text};
use base::Kind;
use base::block::BlockRead;
use base::memory::MemoryDisk;
use base::size::ByteOffset;
use disk::Format;

fn qcow2_code(at: u64, bytes: &[u8]) -> String {
    let fixture = fixture(Format::Qcow2, "qcow2", "compat=1.1", false);
    let image = image_of(&fixture, Mutant::of(&fixture.bytes).with(at, bytes));
    match image.and_then(|image| image.read_at(ByteOffset::ZERO, &mut [0; 600])) {
        Ok(()) => "fine".to_owned(),
        Err(error) => error.code().to_owned(),
    }
}

#[test]
fn qcow2_headers_that_cannot_be_are_refused() {
    let cases: [(u64, &[u8], &str); 20] = [
        (0, b"X", "disk.qcow2.magic"),
        (4, &9_u32.to_be_bytes(), "disk.qcow2.version-unsupported"),
        (20, &8_u32.to_be_bytes(), "disk.qcow2.cluster-size"),
        (20, &22_u32.to_be_bytes(), "disk.qcow2.cluster-size"),
        (20, &u32::MAX.to_be_bytes(), "disk.qcow2.cluster-size"),
        (24, &u64::MAX.to_be_bytes(), "disk.size.too-large"),
        (24, &(1_u64 << 50).to_be_bytes(), "disk.qcow2.l1-too-small"),
        (32, &1_u32.to_be_bytes(), "disk.qcow2.encrypted"),
        (32, &2_u32.to_be_bytes(), "disk.qcow2.encrypted"),
        (36, &u32::MAX.to_be_bytes(), "disk.qcow2.l1-too-large"),
        (36, &0_u32.to_be_bytes(), "disk.qcow2.l1-too-small"),
        (40, &5_u64.to_be_bytes(), "disk.qcow2.l1-unaligned"),
        (
            40,
            &(u64::MAX << 16).to_be_bytes(),
            "disk.qcow2.table-outside",
        ),
        (40, &(1_u64 << 40).to_be_bytes(), "disk.qcow2.table-outside"),
        (96, &7_u32.to_be_bytes(), "disk.qcow2.refcount-bits"),
        (100, &u32::MAX.to_be_bytes(), "disk.qcow2.header-length"),
        (72, &(1_u64 << 2).to_be_bytes(), "disk.qcow2.data-file"),
        (
            72,
            &(1_u64 << 9).to_be_bytes(),
            "disk.qcow2.feature-unsupported",
        ),
        (116, &u32::MAX.to_be_bytes(), "disk.qcow2.header-short"),
        // Counts are not needed for reading, wherever they are.
        (48, &u64::MAX.to_be_bytes(), "fine"),
    ];
    for (at, bytes, code) in cases {
        assert_eq!(qcow2_code(at, bytes), code, "{at} {bytes:?}");
    }
    let mut backing = 104_u64.to_be_bytes().to_vec();
    backing.extend(5000_u32.to_be_bytes());
    assert_eq!(qcow2_code(8, &backing), "disk.qcow2.backing-name");
}

#[test]
fn qcow2_entries_that_cannot_be_are_errors_when_read() {
    let fixture = fixture(Format::Qcow2, "qcow2", "compat=1.1", false);
    let sound = Mutant::of(&fixture.bytes);
    let number = |at| u64::from_be_bytes(sound.get(at, 8).try_into().unwrap());
    let l1 = number(40);
    let l2 = number(l1) & 0x00ff_ffff_ffff_fe00;
    let copied = 1_u64 << 63;
    let cases = [
        (l1, copied | 512, "disk.qcow2.l2-unaligned"),
        (l1, copied | 1 << 50, "disk.qcow2.table-outside"),
        (l2, copied | 512, "disk.qcow2.data-unaligned"),
        (l2, copied | 1 << 50, "disk.qcow2.data-outside"),
        (l2, 1 << 62 | 1 << 50, "disk.qcow2.compressed"),
        (l2, 1 << 62, "disk.inflate.broken"),
    ];
    for (at, entry, code) in cases {
        assert_eq!(
            qcow2_code(at, &entry.to_be_bytes()),
            code,
            "{at:#x} {entry:#x}"
        );
    }
}

fn overlay(folder: &std::path::Path, name: &str, backing: &str) {
    let image = folder.join(name);
    let arguments = ["create", "-u", "-f", "qcow2", "-b", backing, "-F", "qcow2"];
    qemu::img(&[&arguments[..], &[text(&image), "1M"]].concat());
}

#[test]
fn backing_images_in_circles_or_too_deep_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    overlay(folder, "self", "self");
    overlay(folder, "a", "b");
    overlay(folder, "b", "./x/../a");
    for name in ["self", "a", "b"] {
        let error = disk::open(&folder.join(name)).unwrap_err();
        assert_eq!(error.code(), "disk.chain.loop", "{name}");
    }
    // Symbolic links give one file many names: the depth ends it.
    overlay(folder, "deep0", "deep1");
    for level in 1..140 {
        let link = folder.join(format!("deep{level}"));
        let target = format!("image{level}");
        overlay(folder, &target, &format!("deep{}", level + 1));
        std::os::unix::fs::symlink(&target, &link).unwrap();
    }
    assert_eq!(
        disk::open(&folder.join("deep0")).unwrap_err().code(),
        "disk.chain.too-deep"
    );
}

#[test]
fn backing_images_elsewhere_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        ("/etc/shadow", "disk.opener.outside"),
        ("../../../etc/shadow", "disk.opener.outside"),
        ("file:/etc/shadow", "disk.opener.outside"),
        ("nbd://10.0.0.1/disk", "disk.qcow2.reference-unsupported"),
        (
            "json:{\"driver\":\"file\"}",
            "disk.qcow2.reference-unsupported",
        ),
        ("missing", "base.io.not-found"),
    ];
    for (name, code) in cases {
        overlay(folder.path(), "top", name);
        let error = disk::open(&folder.path().join("top")).unwrap_err();
        assert_eq!(error.code(), code, "{name}");
    }
}

#[test]
fn what_is_no_disk_image_is_said_clearly() {
    let probe = |bytes: &[u8]| disk::probe(&MemoryDisk::from(bytes.to_vec()));
    let foreign: [&[u8]; 4] = [b"\x1f\x8b\x08", b"\xfd7zXZ\0", b"PK\x03\x04", b"QED\0"];
    for start in foreign {
        let mut bytes = start.to_vec();
        bytes.resize(1024, 0);
        let error = probe(&bytes).unwrap_err();
        assert_eq!(
            (error.code(), error.kind()),
            ("disk.probe.foreign", Kind::Unsupported)
        );
        assert!(error.hint_text().is_some());
    }
    for bytes in [&b""[..], b"hello", &[0; 513]] {
        assert_eq!(probe(bytes).unwrap_err().code(), "disk.probe.unknown");
    }
    assert_eq!(probe(&[0; 1024]).unwrap(), Format::Raw);
    assert_eq!(
        probe(b"#\n# Disk DescriptorFile\r\nversion=1\n").unwrap(),
        Format::Vmdk
    );
}
