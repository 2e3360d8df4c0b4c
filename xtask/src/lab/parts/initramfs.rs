//! The first file system: finds the root disk and goes there.
//!
//! Knows: which kernel modules a virtio guest needs, in the order they must be loaded, and the
//! script that mounts the disk.
//! Refuses to know: what is on the disk.

use super::cpio::Archive;
use super::gather;
use crate::command::Run;
use base::cancel::Cancel;
use base::{Error, Kind, Result};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

/// Modules, each after those it needs. Some are built into some kernels.
const MODULES: &[&str] = &[
    "crc16",
    "mbcache",
    "jbd2",
    "ext4",
    "virtio_ring",
    "virtio",
    "virtio_blk",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "virtio_console",
];

const INIT: &str = r#"#!/bin/busybox sh
# Finds the root disk and goes there.
bb=/bin/busybox
$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs devtmpfs /dev
for module in @MODULES@; do
    [ -f "/modules/$module.ko" ] && $bb insmod "/modules/$module.ko"
done
tries=0
while [ ! -b /dev/vda1 ] && [ "$tries" -lt 100 ]; do
    $bb usleep 50000
    tries=$((tries + 1))
done
if ! $bb mount -t ext4 -o noatime /dev/vda1 /root; then
    echo "backstay-lab: the root disk cannot be mounted"
    $bb poweroff -f
fi
$bb mount --move /proc /root/proc
$bb mount --move /sys /root/sys
$bb mount --move /dev /root/dev
exec $bb switch_root /root /sbin/init
"#;

/// What the initramfs depends on besides packages.
pub const RECIPE: &[&str] = &[INIT];

/// Writes the archive.
pub fn build(packages: &Path, busybox: &Path, to: &Path, cancel: &Cancel) -> Result<()> {
    let file = std::fs::File::create(to)
        .map_err(|error| Error::io(format!("making {}", to.display()), error))?;
    let mut archive = Archive::new(BufWriter::new(file));
    for folder in ["bin", "dev", "modules", "proc", "root", "sys"] {
        archive.folder(folder)?;
    }
    archive.program("bin/busybox", &read(busybox)?)?;
    let mut present = Vec::new();
    for module in MODULES {
        if let Some(content) = module_content(packages, module, busybox, cancel)? {
            archive.program(&format!("modules/{module}.ko"), &content)?;
            present.push(*module);
        }
    }
    archive.program(
        "init",
        INIT.replace("@MODULES@", &present.join(" ")).as_bytes(),
    )?;
    let buffer = archive.finish()?;
    let file = buffer.into_inner().map_err(|error| {
        Error::io(
            "writing the initramfs",
            std::io::Error::other(error.to_string()),
        )
    })?;
    file.sync_all()
        .map_err(|error| Error::io("writing the initramfs", error))
}

/// The module, unpacked; `None` when it is built into the kernel; an error when it is neither.
fn module_content(
    packages: &Path,
    module: &str,
    busybox: &Path,
    cancel: &Cancel,
) -> Result<Option<Vec<u8>>> {
    let [plain, packed] = [format!("{module}.ko"), format!("{module}.ko.xz")];
    let mut found = Vec::new();
    gather(
        packages,
        &|name| name == plain || name == packed,
        0,
        &mut found,
    )?;
    match found.first() {
        Some(path) if path.extension().is_some_and(|extension| extension == "xz") => {
            let said = Run::new(busybox)
                .args(["unxz", "-c"])
                .arg(path)
                .capture(cancel)?;
            Ok(Some(said.output))
        }
        Some(path) => read(path).map(Some),
        None if is_built_in(packages, &plain)? => Ok(None),
        None => Err(Error::new(
            Kind::NotFound,
            "xtask.lab.module",
            format!("the kernel has no module {module} and does not have it built in either"),
        )),
    }
}

fn is_built_in(packages: &Path, file: &str) -> Result<bool> {
    let mut lists: Vec<PathBuf> = Vec::new();
    gather(packages, &|name| name == "modules.builtin", 0, &mut lists)?;
    let text = match lists.first() {
        Some(list) => read(list)?,
        None => Vec::new(),
    };
    let text = String::from_utf8_lossy(&text).into_owned();
    Ok(text
        .lines()
        .any(|line| line.rsplit('/').next() == Some(file)))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| Error::io(format!("reading {}", path.display()), error))
}
