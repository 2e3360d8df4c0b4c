//! Recognising a format by its content; names are not asked.
//!
//! Knows: the signatures of the formats we read, and of those that people mistake for them.
//! Refuses to know: whether the rest of the image is sound.

use crate::image::Format;
use base::block::BlockRead;
use base::size::{ByteCount, ByteOffset};
use base::{Error, Kind, Result};

/// How much of the start is looked at: up to the `ustar` of a tar archive, and a few lines of text.
const HEAD_LENGTH: u64 = 1024;

/// Things that are no disk images as they are, and what to do about them.
const FOREIGN: [(usize, &[u8], &str, &str); 13] = [
    (0, b"QFI\xfb\0\0\0\x01", "a qcow (version 1) image", CONVERT),
    // Versions 2 and 3 have been recognised before; to take another for raw would be a point that
    // nobody can use.
    (0, b"QFI\xfb", "a qcow image of an unknown version", CONVERT),
    (0, b"QED\0", "a QED image", CONVERT),
    (
        0x40,
        &[0x7f, 0x10, 0xda, 0xbe],
        "a VirtualBox VDI image",
        CONVERT,
    ),
    (0, b"WithoutFreeSpace", "a Parallels image", CONVERT),
    (0, b"WithouFreSpacExt", "a Parallels image", CONVERT),
    (
        0,
        &[0x1f, 0x8b, 0x08],
        "compressed with gzip",
        "unpack it with gunzip",
    ),
    (
        0,
        &[0xfd, b'7', b'z', b'X', b'Z', 0],
        "compressed with xz",
        "unpack it with unxz",
    ),
    (
        0,
        &[0x28, 0xb5, 0x2f, 0xfd],
        "compressed with zstd",
        "unpack it with unzstd",
    ),
    (0, b"BZh", "compressed with bzip2", "unpack it with bunzip2"),
    (0, b"PK\x03\x04", "a zip archive", "unpack it with unzip"),
    (
        0,
        &[b'7', b'z', 0xbc, 0xaf, 0x27, 0x1c],
        "a 7-Zip archive",
        "unpack it",
    ),
    (
        257,
        b"ustar",
        "a tar archive (an OVA is one)",
        "unpack it with tar xf",
    ),
];
const CONVERT: &str = "convert it to qcow2 with qemu-img convert";

/// The format of an image.
///
/// Whatever has no signature and is a whole number of sectors is taken as raw. A raw image's
/// content belongs to the guest: where something you trust says that it is raw, do not ask.
///
/// # Errors
/// `Unsupported` with code `disk.probe.foreign` for what is known but not read here, and
/// `disk.probe.unknown` for what is not known at all.
pub fn probe(file: &dyn BlockRead) -> Result<Format> {
    let size = file.size().0;
    let mut head = vec![0; size.min(HEAD_LENGTH) as usize];
    file.read_at(ByteOffset::ZERO, &mut head)?;
    if let Some(format) = by_head(&head) {
        return Ok(format);
    }
    for (at, signature, what, hint) in FOREIGN {
        if head
            .get(at..)
            .is_some_and(|rest| rest.starts_with(signature))
        {
            return Err(Error::new(
                Kind::Unsupported,
                "disk.probe.foreign",
                format!("the file is {what}"),
            )
            .hint(hint));
        }
    }
    if size >= 512 {
        let mut tail = [0; 8];
        file.read_at(ByteOffset(size - 512), &mut tail)?;
        if &tail == b"conectix" {
            return Ok(Format::Vhd);
        }
    }
    if size == 0 || !size.is_multiple_of(512) {
        return Err(Error::new(
            Kind::Unsupported,
            "disk.probe.unknown",
            format!(
                "the file has no signature of a disk image, and its size ({}) is not a whole \
                 number of sectors either",
                ByteCount(size)
            ),
        )
        .hint("Backstay reads raw, qcow2, vmdk, vhdx and vhd images"));
    }
    Ok(Format::Raw)
}

fn by_head(head: &[u8]) -> Option<Format> {
    if head.starts_with(b"QFI\xfb\0\0\0\x02") || head.starts_with(b"QFI\xfb\0\0\0\x03") {
        return Some(Format::Qcow2);
    }
    if head.starts_with(b"vhdxfile") {
        return Some(Format::Vhdx);
    }
    if head.starts_with(b"conectix") {
        return Some(Format::Vhd);
    }
    let sesparse = [0xbe, 0xba, 0xfe, 0xca, 0, 0, 0, 0];
    if head.starts_with(b"KDMV") || head.starts_with(b"COWD") || head.starts_with(&sesparse) {
        return Some(Format::Vmdk);
    }
    is_vmdk_descriptor(head).then_some(Format::Vmdk)
}

/// A descriptor is text whose first lines are comments, blank, or the version; one of the comments
/// says what it is.
fn is_vmdk_descriptor(head: &[u8]) -> bool {
    head.split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .take_while(|line| line.is_empty() || line.starts_with(b"#"))
        .any(|line| line.eq_ignore_ascii_case(b"# disk descriptorfile"))
}
