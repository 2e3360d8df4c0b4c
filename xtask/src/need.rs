//! What the machine must have before tests and demonstrations can run.
//!
//! Knows: the list of Debian packages and why each is there, and when backports are wanted.
//! Refuses to know: how packages are installed; `apt` does that.

mod apt;
pub mod unpack;

use base::Result;
use base::cancel::Cancel;

pub use apt::again_as_root;

/// One Debian package that must be there.
pub struct Package {
    /// Its name.
    pub name: &'static str,
    /// Whether Debian 12 must take it from backports: its own QEMU 7.2 and libvirt 9.0 lack parts
    /// of the backup interface, and QEMU's packages must all be of one version.
    pub backports: bool,
    /// What it is for; shown while installing.
    pub reason: &'static str,
}

const fn stable(name: &'static str, reason: &'static str) -> Package {
    Package {
        name,
        backports: false,
        reason,
    }
}

const fn newer(name: &'static str, reason: &'static str) -> Package {
    Package {
        name,
        backports: true,
        reason,
    }
}

/// What compiling takes besides Rust: a linker and the C library's static half.
pub const BUILD: &[Package] = &[
    stable("gcc", "linker, and the C parts of zstd, SQLite and aws-lc"),
    stable("libc6-dev", "the C library for static linking"),
    stable("git", "the list of files that the house rules look at"),
];

/// What reads and checks disk images.
pub const IMAGES: &[Package] = &[
    newer(
        "qemu-utils",
        "qemu-img and qemu-nbd: independent readers and writers of image formats",
    ),
    stable("e2fsprogs", "makes and checks ext4 file systems"),
];

/// A hypervisor and what a guest is made of.
pub const HYPERVISOR: &[Package] = &[
    newer("qemu-system-x86", "runs guests, in software where it must"),
    newer("qemu-block-extra", "QEMU's block drivers for the network"),
    newer("libvirt-daemon-system", "the hypervisor's interface"),
    newer("libvirt-clients", "virsh, an independent client"),
    stable("libnbd-bin", "nbdcopy and nbdinfo, independent NBD clients"),
];

/// Tools that benchmarks compare with.
pub const YARDSTICKS: &[Package] = &[stable("zstd", "compresses, and nothing else")];

/// What only tests need.
pub const TESTS: &[Package] = &[
    stable("nbdkit", "an independent NBD server"),
    stable(
        "strace",
        "kills programs and fails system calls at chosen moments",
    ),
    stable("python3", "second readers of our formats"),
    stable("openssh-client", "reaching hosts over SSH"),
];

/// Whether this is the administrator.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Installs what is missing of these lists; says what and why. Quick when nothing is.
pub fn install(lists: &[&[Package]], cancel: &Cancel) -> Result<()> {
    let wanted: Vec<&Package> = lists.iter().flat_map(|list| list.iter()).collect();
    apt::install(&wanted, cancel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_is_named_once_and_says_why() {
        let mut names = std::collections::BTreeSet::new();
        for package in [BUILD, IMAGES, HYPERVISOR, YARDSTICKS, TESTS]
            .iter()
            .flat_map(|list| list.iter())
        {
            assert!(names.insert(package.name), "{} stands twice", package.name);
            assert!(package.reason.len() > 8, "{} has no reason", package.name);
        }
    }
}
