//! What a lab guest is made of: a disk that boots by itself, built once and kept.
//!
//! Knows: which Debian packages the parts come from, in which order they are built, and that a
//! change of the recipe makes them anew.
//! Refuses to know: libvirt. A guest is put together elsewhere.
//!
//! Nothing is installed for this: packages are downloaded and unpacked into a folder. GRUB loads
//! Debian's cloud kernel from an ext4 file system, the kernel mounts that as its root, and the user
//! land there is busybox and the QEMU guest agent with the libraries it needs. A restored machine
//! therefore boots from nothing but its own disk.

mod boot;
mod cpio;
mod demo_files;
mod initramfs;
mod root;

use super::{make_folder, remove_folder};
use crate::command::Run;
use crate::need::unpack;
use crate::step::{detail, said};
use base::cancel::Cancel;
use base::{Error, Kind, Result};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Size of the root disk as the guest sees it.
pub const DISK_BYTES: u64 = 4 << 30;

/// Raised when the way of building changes without any of the texts below changing.
const RECIPE: &str = "2";

/// The root disk of a guest, a qcow2 image to copy for each; built when it is not there yet.
pub fn root_disk(lab: &Path, cancel: &Cancel) -> Result<PathBuf> {
    let kept = lab.join("parts");
    let folder = kept.join(recipe_digest());
    let disk = folder.join("root.qcow2");
    if folder.is_dir() {
        return Ok(disk);
    }
    let started = Instant::now();
    // Older recipes are of no use any more, half-built ones neither.
    remove_folder(&kept)?;
    let draft = kept.join("draft");
    make_folder(&draft)?;
    build(&draft, cancel)?;
    std::fs::rename(&draft, &folder)
        .map_err(|error| Error::io(format!("naming {}", folder.display()), error))?;
    detail(format!(
        "built the guest's disk in {}",
        said(started.elapsed())
    ));
    Ok(disk)
}

fn build(folder: &Path, cancel: &Cancel) -> Result<()> {
    let packages = folder.join("packages");
    fetch(&packages, cancel)?;
    detail("making the root file system");
    let busybox = find(&packages, &|name| name == "busybox")?;
    let tree = folder.join("tree");
    root::lay_out(&packages, &busybox, &tree, cancel)?;
    let boot = tree.join("boot");
    make_folder(&boot)?;
    let kernel = find(&packages, &|name| name.starts_with("vmlinuz-"))?;
    std::fs::copy(&kernel, boot.join("vmlinuz"))
        .map_err(|error| Error::io("copying the kernel", error))?;
    initramfs::build(&packages, &busybox, &boot.join("initramfs.cpio"), cancel)?;
    demo_files::write(&tree.join("demo"), cancel)?;
    let raw = folder.join("root.raw");
    root::make_file_system(&tree, &raw, DISK_BYTES, boot::PARTITION_START, cancel)?;
    boot::make_bootable(&packages, &raw, DISK_BYTES, cancel)?;
    Run::new("qemu-img")
        .args(["convert", "-f", "raw", "-O", "qcow2"])
        .args([&raw, &folder.join("root.qcow2")])
        .deadline(Duration::from_secs(300))
        .capture(cancel)?;
    std::fs::remove_file(&raw)
        .map_err(|error| Error::io(format!("removing {}", raw.display()), error))?;
    remove_folder(&tree)?;
    remove_folder(&packages)
}

fn recipe_digest() -> String {
    let mut hasher = blake3::Hasher::new();
    let size = DISK_BYTES.to_string();
    for text in [RECIPE, &size]
        .iter()
        .chain(initramfs::RECIPE)
        .chain(root::RECIPE)
        .chain(boot::RECIPE)
    {
        hasher.update(format!("{} {text}", text.len()).as_bytes());
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

fn fetch(folder: &Path, cancel: &Cancel) -> Result<()> {
    let meta = "linux-image-cloud-amd64";
    let kernel = unpack::content_of(meta, "linux-image-", cancel)?;
    detail(format!(
        "fetching {kernel}, GRUB, busybox, guest agent (nothing is installed)"
    ));
    let mut names = vec![
        kernel,
        "busybox-static".to_owned(),
        "grub-pc-bin".to_owned(),
    ];
    for package in ["qemu-guest-agent", "grub-common"] {
        names.push(package.to_owned());
        names.extend(unpack::libraries_of(package, cancel)?);
    }
    names.sort();
    names.dedup();
    unpack::fetch_unpacked(&names, folder, cancel)
}

/// The first file, in order of path, whose name is wanted.
fn find(folder: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<PathBuf> {
    let mut found = Vec::new();
    gather(folder, wanted, 0, &mut found)?;
    found.sort();
    found.into_iter().next().ok_or_else(|| {
        Error::new(
            Kind::NotFound,
            "xtask.lab.part",
            format!(
                "a file that the guest needs is not in the packages under {}",
                folder.display()
            ),
        )
    })
}

/// Deepest folder that is looked into: kernel modules lie nine deep.
const DEPTH_MAX: usize = 16;

fn gather(
    folder: &Path,
    wanted: &dyn Fn(&str) -> bool,
    depth: usize,
    found: &mut Vec<PathBuf>,
) -> Result<()> {
    let failed = |error| Error::io(format!("listing {}", folder.display()), error);
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() && depth < DEPTH_MAX {
            gather(&entry.path(), wanted, depth + 1, found)?;
        } else if kind.is_file() && entry.file_name().to_str().is_some_and(wanted) {
            found.push(entry.path());
        }
    }
    Ok(())
}
