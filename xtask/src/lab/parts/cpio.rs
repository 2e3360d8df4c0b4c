//! Archives as the kernel unpacks them into its first file system.
//!
//! Knows: the `newc` format (Linux, Documentation/driver-api/early-userspace/buffer-format.rst):
//! a header of 110 ASCII characters, name and content each padded to 4 bytes, a trailer.
//! Refuses to know: what is packed.

use base::{Error, Result};
use std::io::Write;

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

/// An archive that is being written.
pub struct Archive<W> {
    out: W,
    next_inode: u32,
}

impl<W: Write> Archive<W> {
    /// An empty archive.
    pub fn new(out: W) -> Self {
        Self { out, next_inode: 1 }
    }

    /// A folder; its parents come first.
    pub fn folder(&mut self, name: &str) -> Result<()> {
        self.entry(name, FOLDER, &[])
    }

    /// A file that may be run.
    pub fn program(&mut self, name: &str, content: &[u8]) -> Result<()> {
        self.entry(name, PROGRAM, content)
    }

    /// Writes the trailer and hands the output back.
    pub fn finish(mut self) -> Result<W> {
        self.next_inode = 0;
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.out)
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        let too_long = |_| Error::invalid("xtask.cpio.size", format!("{name} is too long"));
        let size = u32::try_from(content.len()).map_err(too_long)?;
        let name_size = u32::try_from(name.len() + 1).map_err(too_long)?;
        let mut header = b"070701".to_vec();
        // inode, mode, uid, gid, links, mtime, size, device (2), device of the node (2), length of
        // the name with its final zero, checksum (unused)
        let fields = [
            self.next_inode,
            mode,
            0,
            0,
            1,
            0,
            size,
            0,
            0,
            0,
            0,
            name_size,
            0,
        ];
        for field in fields {
            header.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        header.extend_from_slice(name.as_bytes());
        header.push(0);
        pad(&mut header);
        self.put(&header)?;
        self.put(content)?;
        self.put(&[0; 3][..padding(content.len())])?;
        self.next_inode += 1;
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out
            .write_all(bytes)
            .map_err(|error| Error::io("writing the initramfs", error))
    }
}

fn padding(length: usize) -> usize {
    (4 - length % 4) % 4
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len() + padding(bytes.len()), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_laid_out_as_the_kernel_reads_it() {
        let mut archive = Archive::new(Vec::new());
        archive.folder("bin").unwrap();
        archive.program("init", b"hello").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        // folder: 110 + 4 = 114 -> 116; file: 110 + 5 = 115 -> 116, content 5 -> 8
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(&bytes[110..114], b"bin\0");
        let file = &bytes[116..];
        assert_eq!(&file[6..14], b"00000002");
        assert_eq!(&file[14..22], b"000081ED");
        assert_eq!(&file[54..62], b"00000005");
        assert_eq!(&file[94..102], b"00000005");
        assert_eq!(&file[110..115], b"init\0");
        assert_eq!(&file[116..124], b"hello\0\0\0");
        assert_eq!(&file[124 + 110..124 + 121], b"TRAILER!!!\0");
    }
}
