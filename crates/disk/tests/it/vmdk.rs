//! VMware disks made by QEMU, and by hand what QEMU can only read.

use crate::content::{assert_as_sparse_as, assert_holds, content, write_raw};
use crate::qemu::{self, text};
use base::size::MIB;
use disk::Format;
use std::path::{Path, PathBuf};

fn convert(folder: &Path, bytes: &[u8], options: &str) -> PathBuf {
    let raw = write_raw(folder, "source.raw", bytes);
    let image = folder.join("image.vmdk");
    let arguments = [
        "convert",
        "-f",
        "raw",
        "-O",
        "vmdk",
        "-o",
        options,
        text(&raw),
        text(&image),
    ];
    qemu::img(&arguments);
    image
}

#[test]
fn every_variant_that_qemu_makes_reads_the_same() {
    let subformats = [
        "monolithicSparse",
        "monolithicFlat",
        "twoGbMaxExtentSparse",
        "twoGbMaxExtentFlat",
        "streamOptimized",
    ];
    for (seed, subformat) in subformats.iter().enumerate() {
        for zeroed in [false, true] {
            let zeroed = zeroed && subformat.contains("Sparse");
            let folder = tempfile::tempdir().unwrap();
            let bytes = content(200 + seed as u64, 9 * MIB + 64 * 1024);
            let options = format!(
                "subformat={subformat}{}",
                if zeroed { ",zeroed_grain=on" } else { "" }
            );
            let image = convert(folder.path(), &bytes, &options);
            let opened = disk::open(&image).unwrap();
            assert_eq!(opened.info().format, Format::Vmdk);
            assert_eq!(opened.info().variant, *subformat);
            assert_holds(&opened, &bytes, &options);
            assert_as_sparse_as(&opened, &qemu::map("vmdk", &image), &options);
        }
    }
}

#[test]
fn disks_of_many_extents_read_the_same() {
    for subformat in ["twoGbMaxExtentSparse", "twoGbMaxExtentFlat"] {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image.vmdk");
        let options = format!("subformat={subformat}");
        qemu::img(&["create", "-f", "vmdk", "-o", &options, text(&image), "5G"]);
        // Across the border between two extents.
        let border = 2 * 1024 * MIB;
        qemu::io(
            "vmdk",
            &image,
            &[
                &format!("write -P 5 {} 1M", border - 512 * 1024),
                "write -P 6 5119M 1M",
            ],
        );
        let opened = disk::open(&image).unwrap();
        assert_eq!(opened.info().files.len(), 3);
        use base::block::BlockRead;
        use base::size::ByteOffset;
        let mut bytes = vec![0; 2 * MIB as usize];
        opened
            .read_at(ByteOffset(border - MIB), &mut bytes)
            .unwrap();
        let expected: Vec<u8> = (0..2 * MIB)
            .map(|n| {
                if (MIB / 2..MIB * 3 / 2).contains(&n) {
                    5
                } else {
                    0
                }
            })
            .collect();
        assert!(bytes == expected, "{subformat}");
        opened.read_at(ByteOffset(5118 * MIB), &mut bytes).unwrap();
        assert!(bytes[..MIB as usize].iter().all(|byte| *byte == 0));
        assert!(bytes[MIB as usize..].iter().all(|byte| *byte == 6));
        assert_as_sparse_as(&opened, &qemu::map("vmdk", &image), subformat);
    }
}

#[test]
fn delta_chains_read_the_same_and_notice_a_changed_parent() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let bytes = content(230, 6 * MIB);
    let base = convert(folder, &bytes, "subformat=monolithicSparse");
    for (child, parent) in [("one.vmdk", "image.vmdk"), ("two.vmdk", "one.vmdk")] {
        let child = folder.join(child);
        qemu::img(&[
            "create",
            "-f",
            "vmdk",
            "-F",
            "vmdk",
            "-b",
            parent,
            text(&child),
        ]);
        qemu::io(
            "vmdk",
            &child,
            &["write -P 7 1M 300k", "write -P 8 4100k 64k"],
        );
    }
    let top = folder.join("two.vmdk");
    let flat = folder.join("flat.raw");
    qemu::img(&["convert", "-O", "raw", text(&top), text(&flat)]);
    let opened = disk::open(&top).unwrap();
    assert_eq!(opened.info().parents.len(), 2);
    assert_holds(&opened, &std::fs::read(&flat).unwrap(), "delta");
    // Writing to the base gives it a new content id.
    qemu::io("vmdk", &base, &["write -P 9 0 64k"]);
    assert_eq!(
        disk::open(&top).unwrap_err().code(),
        "disk.vmdk.parent-changed"
    );
}

/// What exports from ESXi look like: the place of the directory stands in a footer only.
#[test]
fn a_stream_with_its_directory_in_the_footer_reads_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = content(240, 8 * MIB);
    let image = convert(folder.path(), &bytes, "subformat=streamOptimized");
    let mut file = std::fs::read(&image).unwrap();
    file.resize(file.len().next_multiple_of(512), 0);
    let mut footer_marker = [0; 512];
    footer_marker[0] = 1;
    footer_marker[12] = 3;
    let footer = file[..512].to_vec();
    file[56..64].fill(0xff);
    file.extend_from_slice(&footer_marker);
    file.extend_from_slice(&footer);
    file.extend_from_slice(&[0; 512]);
    std::fs::write(&image, &file).unwrap();
    assert_holds(&disk::open(&image).unwrap(), &bytes, "footer");
    // QEMU agrees that this is a stream.
    let raw = folder.path().join("source.raw");
    qemu::img(&[
        "compare",
        "-f",
        "raw",
        "-F",
        "vmdk",
        text(&raw),
        text(&image),
    ]);
    // Cut off, as broken downloads are.
    std::fs::write(&image, &file[..file.len() - 1024]).unwrap();
    assert_eq!(disk::open(&image).unwrap_err().kind(), base::Kind::Corrupt);
}

/// The snapshots of ESX before 6.5: QEMU reads them, nothing here writes them.
#[test]
fn cowd_extents_read_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let grain = 512_usize;
    let sectors = 20_000_u32;
    let bytes = content(250, u64::from(sectors) * 512);
    let mut file = vec![0_u8; 4096 * 5];
    file[..4].copy_from_slice(b"COWD");
    for (at, value) in [(4, 1), (8, 3), (12, sectors), (16, 1), (20, 4), (24, 5)] {
        file[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
    }
    for table in 0..5 {
        let at = file.len();
        let directory = 4 * 512 + table * 4;
        file[directory..directory + 4].copy_from_slice(&((at / 512) as u32).to_le_bytes());
        file.resize(at + 4096 * 4, 0);
        for entry in 0..4096 {
            let from = (table * 4096 + entry) * grain;
            let Some(data) = bytes.get(from..from + grain) else {
                continue;
            };
            if data.iter().any(|byte| *byte != 0) {
                let place = (file.len() / 512) as u32;
                file[at + entry * 4..at + entry * 4 + 4].copy_from_slice(&place.to_le_bytes());
                file.extend_from_slice(data);
            }
        }
    }
    std::fs::write(folder.path().join("cowd-delta.vmdk"), &file).unwrap();
    let descriptor = folder.path().join("cowd.vmdk");
    let text_of = format!(
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n\
         createType=\"vmfsSparse\"\nRW {sectors} VMFSSPARSE \"cowd-delta.vmdk\"\n"
    );
    std::fs::write(&descriptor, text_of).unwrap();
    assert_holds(&disk::open(&descriptor).unwrap(), &bytes, "cowd");
    let raw = write_raw(folder.path(), "source.raw", &bytes);
    qemu::img(&[
        "compare",
        "-f",
        "raw",
        "-F",
        "vmdk",
        text(&raw),
        text(&descriptor),
    ]);
}

#[test]
fn an_extent_that_climbs_out_of_the_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    std::fs::write(folder.path().join("secret"), [1; 4096]).unwrap();
    std::os::unix::fs::symlink("../secret", inner.join("link.vmdk")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", inner.join("zero.vmdk")).unwrap();
    for name in [
        "../secret",
        "../../../../../etc/shadow",
        "/etc/shadow",
        "link.vmdk",
        "zero.vmdk",
    ] {
        let descriptor = inner.join("d.vmdk");
        let line = format!("RW 8 FLAT \"{name}\" 0\n");
        std::fs::write(&descriptor, format!("# Disk DescriptorFile\n{line}")).unwrap();
        let error = disk::open(&descriptor).unwrap_err();
        assert_eq!(error.code(), "disk.opener.outside", "{name}: {error:?}");
        assert_eq!(error.kind(), base::Kind::Denied);
        assert!(error.hint_text().is_some());
    }
    // Folders below count only where somebody allows them.
    let above = folder.path().join("above.vmdk");
    std::fs::write(
        &above,
        "# Disk DescriptorFile\nRW 8 FLAT \"inner/d.vmdk\" 0\n",
    )
    .unwrap();
    assert_eq!(
        disk::open(&above).unwrap_err().code(),
        "disk.opener.outside"
    );
    // Allowed explicitly, it opens.
    let descriptor = inner.join("d.vmdk");
    std::fs::write(
        &descriptor,
        "# Disk DescriptorFile\nRW 8 FLAT \"../secret\" 0\n",
    )
    .unwrap();
    let opener = disk::FolderOpener::beside(&descriptor)
        .unwrap()
        .allow(folder.path())
        .unwrap();
    let opened = disk::open_with(&descriptor, &opener, disk::OpenOptions::default()).unwrap();
    assert_holds(&opened, &[1; 4096], "allowed");
}
