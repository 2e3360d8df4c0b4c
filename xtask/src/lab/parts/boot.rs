//! What makes a disk boot by itself: GRUB in front of its first partition.
//!
//! Knows: how GRUB for BIOS is put on a disk without installing it. Its boot sector expects the rest
//! in the sectors right behind it, and that is where the rest is put (GRUB, `boot.S`:
//! `kernel_sector` is 1; `diskboot.S`: the list of blocks starts at 2).
//! Refuses to know: what is on the file system, but for the kernel's place.

use super::root::{LOADER, search_path};
use super::{find, gather};
use crate::command::Run;
use base::cancel::Cancel;
use base::{Error, Kind, Result};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Where the first partition starts; what lies before it belongs to the boot loader.
pub const PARTITION_START: u64 = 1 << 20;
const SECTOR: u64 = 512;
/// The part of the boot sector that is program; the table of partitions follows.
const PROGRAM_BYTES: usize = 440;

/// What the boot loader does: no menu, no waiting.
const CONFIGURATION: &str = "\
set root=(hd0,msdos1)
linux /boot/vmlinuz console=ttyS0 quiet panic=-1
initrd /boot/initramfs.cpio
boot
";
const MODULES: [&str; 5] = ["biosdisk", "part_msdos", "ext2", "linux", "boot"];

/// What the boot loader depends on besides packages.
pub const RECIPE: &[&str] = &[CONFIGURATION];

/// Writes the boot loader and a table with one partition, from [`PARTITION_START`] to `bytes`, into
/// the raw disk.
pub fn make_bootable(packages: &Path, disk: &Path, bytes: u64, cancel: &Cancel) -> Result<()> {
    let rest = core_image(packages, disk, cancel)?;
    if SECTOR + rest.len() as u64 > PARTITION_START {
        return Err(Error::new(
            Kind::Limit,
            "xtask.lab.boot-loader",
            "the boot loader does not fit in front of the first partition",
        ));
    }
    let mut images = Vec::new();
    gather(packages, &|name| name == "boot.img", 0, &mut images)?;
    let image = images
        .into_iter()
        .find(|path| path.to_string_lossy().contains("i386-pc"));
    let image = image.map_or_else(|| find(packages, &|name| name == "boot.img"), Ok)?;
    let program = std::fs::read(&image).map_err(|e| Error::io("reading the boot sector", e))?;
    let sector = boot_sector(&program, bytes);
    let failed = |error| Error::io(format!("making {} bootable", disk.display()), error);
    let file = File::options().write(true).open(disk).map_err(failed)?;
    file.write_all_at(&sector, 0).map_err(failed)?;
    file.write_all_at(&rest, SECTOR).map_err(failed)?;
    file.sync_all().map_err(failed)
}

/// GRUB's program with the modules and the configuration built in.
fn core_image(packages: &Path, disk: &Path, cancel: &Cancel) -> Result<Vec<u8>> {
    let failed = |error| Error::io("building the boot loader", error);
    let configuration = disk.with_extension("cfg");
    let image = disk.with_extension("core");
    std::fs::write(&configuration, CONFIGURATION).map_err(failed)?;
    Run::new(find(packages, &|name| name == LOADER)?)
        .args(["--inhibit-cache", "--library-path", &search_path(packages)])
        .arg(find(packages, &|name| name == "grub-mkimage")?)
        .args(["--format=i386-pc", "--prefix=/boot/grub", "--directory"])
        .arg(packages.join("usr/lib/grub/i386-pc"))
        .arg("--config")
        .arg(&configuration)
        .arg("--output")
        .arg(&image)
        .args(MODULES)
        .capture(cancel)?;
    let bytes = std::fs::read(&image).map_err(failed)?;
    std::fs::remove_file(&configuration).map_err(failed)?;
    std::fs::remove_file(&image).map_err(failed)?;
    Ok(bytes)
}

/// The program, then a table with one active Linux partition up to the end of the disk.
fn boot_sector(program: &[u8], bytes: u64) -> [u8; 512] {
    let sectors = |bytes: u64| {
        u32::try_from(bytes / SECTOR)
            .unwrap_or(u32::MAX)
            .to_le_bytes()
    };
    let mut sector = [0; 512];
    for (place, byte) in sector.iter_mut().zip(program.iter().take(PROGRAM_BYTES)) {
        *place = *byte;
    }
    sector[446] = 0x80;
    sector[450] = 0x83;
    sector[454..458].copy_from_slice(&sectors(PARTITION_START));
    sector[458..462].copy_from_slice(&sectors(bytes - PARTITION_START));
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_not_overwritten_by_the_program() {
        let sector = boot_sector(&[0xee; 512], 1 << 30);
        assert_eq!(sector[439], 0xee);
        assert_eq!(sector[440..446], [0; 6]);
        assert_eq!(sector[454..458], 2_048_u32.to_le_bytes());
        assert_eq!(sector[458..462], (2_097_152_u32 - 2_048).to_le_bytes());
        assert_eq!(sector[510..], [0x55, 0xaa]);
    }
}
