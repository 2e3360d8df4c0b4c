//! What a lab guest is made of: kernel, initramfs and root disk, built once and kept.
//!
//! Knows: which Debian packages the parts come from, in which order they are built, and that a
//! change of the recipe makes them anew.
//! Refuses to know: libvirt. A guest is put together elsewhere.
//!
//! Nothing is installed for this: packages are downloaded and unpacked into a folder. The kernel
//! is Debian's cloud kernel, the user land is busybox and the QEMU guest agent with the libraries
//! it needs, on an ext4 file system that the kernel mounts as its root.

mod cpio;
mod demo_files;
mod initramfs;
mod root;

use super::{make_folder, remove_folder};
use crate::need::unpack;
use crate::step::{detail, said};
use base::cancel::Cancel;
use base::{Error, Kind, Result};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Size of the root disk as the guest sees it.
pub const DISK_BYTES: u64 = 4 << 30;

/// Raised when the way of building changes without any of the texts below changing.
const RECIPE: &str = "1";

/// The finished parts.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Debian's kernel.
    pub kernel: PathBuf,
    /// Finds the root disk and goes there.
    pub initramfs: PathBuf,
    /// A qcow2 image to copy for each guest.
    pub root_disk: PathBuf,
}

impl Parts {
    /// The parts in the lab's folder; built when they are not there yet.
    pub fn get(lab: &Path, cancel: &Cancel) -> Result<Self> {
        let kept = lab.join("parts");
        let folder = kept.join(recipe_digest());
        let parts = Self::within(&folder);
        if folder.is_dir() {
            return Ok(parts);
        }
        let started = Instant::now();
        // Older recipes are of no use any more, half-built ones neither.
        remove_folder(&kept)?;
        let draft = kept.join("draft");
        make_folder(&draft)?;
        Self::build(&draft, cancel)?;
        std::fs::rename(&draft, &folder)
            .map_err(|error| Error::io(format!("naming {}", folder.display()), error))?;
        detail(format!(
            "built the guest's parts in {}",
            said(started.elapsed())
        ));
        Ok(parts)
    }

    fn within(folder: &Path) -> Self {
        Self {
            kernel: folder.join("vmlinuz"),
            initramfs: folder.join("initramfs.cpio"),
            root_disk: folder.join("root.qcow2"),
        }
    }

    fn build(folder: &Path, cancel: &Cancel) -> Result<()> {
        let parts = Self::within(folder);
        let packages = folder.join("packages");
        fetch(&packages, cancel)?;
        let kernel = find(&packages, &|name| name.starts_with("vmlinuz-"))?;
        std::fs::copy(&kernel, &parts.kernel)
            .map_err(|error| Error::io("copying the kernel", error))?;
        let busybox = find(&packages, &|name| name == "busybox")?;
        initramfs::build(&packages, &busybox, &parts.initramfs, cancel)?;
        detail("making the root file system");
        let tree = folder.join("tree");
        root::lay_out(&packages, &busybox, &tree, cancel)?;
        demo_files::write(&tree.join("demo"), cancel)?;
        root::make_disk(&tree, &parts.root_disk, DISK_BYTES, cancel)?;
        remove_folder(&tree)?;
        remove_folder(&packages)
    }
}

fn recipe_digest() -> String {
    let mut hasher = blake3::Hasher::new();
    let size = DISK_BYTES.to_string();
    for text in [RECIPE, &size]
        .iter()
        .chain(initramfs::RECIPE)
        .chain(root::RECIPE)
    {
        hasher.update(format!("{} {text}", text.len()).as_bytes());
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

fn fetch(folder: &Path, cancel: &Cancel) -> Result<()> {
    let meta = "linux-image-cloud-amd64";
    let kernel = unpack::content_of(meta, "linux-image-", cancel)?;
    detail(format!(
        "fetching {kernel}, busybox and the guest agent (nothing is installed)"
    ));
    let mut names = vec![
        kernel,
        "busybox-static".to_owned(),
        "qemu-guest-agent".to_owned(),
    ];
    names.extend(unpack::libraries_of("qemu-guest-agent", cancel)?);
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
