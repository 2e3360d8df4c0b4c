//! The guest's root file system: busybox, the guest agent, and what ties them together.
//!
//! Knows: which files a minimal guest needs, how the agent's libraries are found, and how an ext4
//! file system is made without mounting it.
//! Refuses to know: the demonstration's own files; `demo_files` writes those.

use super::find;
use crate::command::Run;
use crate::lab::make_folder;
use base::cancel::Cancel;
use base::{Error, Kind, Result};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

const LIBRARIES: &str = "lib/x86_64-linux-gnu";
/// The dynamic loader, by which unpacked programs run with unpacked libraries.
pub const LOADER: &str = "ld-linux-x86-64.so.2";

/// What busybox's init starts. The agent is started again if it ends.
const INITTAB: &str = "\
::sysinit:/etc/rc
::respawn:/sbin/agent
::ctrlaltdel:/bin/busybox reboot
::shutdown:/bin/busybox sync
::shutdown:/bin/busybox umount -a -r
";

const RC: &str = r#"#!/bin/sh
hostname backstay-lab
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
ip link set lo up
echo "backstay-lab: up" >/dev/console
"#;

const AGENT: &str = r#"#!/bin/sh
for port in /sys/class/virtio-ports/*; do
    if [ "$(cat "$port/name")" = org.qemu.guest_agent.0 ]; then
        exec /usr/sbin/qemu-ga -m virtio-serial -p "/dev/${port##*/}" -t /run
    fi
done
sleep 1
"#;

/// The agent's shutdown command calls `shutdown -P +0`, `-H +0` or `-r +0`.
const SHUTDOWN: &str = r#"#!/bin/sh
case " $* " in
    *" -r "*) exec reboot ;;
    *" -H "*) exec halt ;;
    *) exec poweroff ;;
esac
"#;

/// What the root file system depends on besides packages.
pub const RECIPE: &[&str] = &[INITTAB, RC, AGENT, SHUTDOWN];

/// Lays the files out below `tree`.
pub fn lay_out(packages: &Path, busybox: &Path, tree: &Path, cancel: &Cancel) -> Result<()> {
    for folder in [
        "bin", "dev", "etc", "home", "lib64", "proc", "root", "run", "sbin", "sys",
    ]
    .into_iter()
    .chain([
        "tmp", "usr/bin", "usr/sbin", "var/log", "var/run", LIBRARIES,
    ]) {
        make_folder(&tree.join(folder))?;
    }
    copy(busybox, &tree.join("bin/busybox"))?;
    let applets = Run::new(busybox).arg("--list-full").capture(cancel)?.text();
    for applet in applets.lines() {
        link_applet(tree, applet)?;
    }
    write(&tree.join("etc/inittab"), INITTAB, 0o644)?;
    write(
        &tree.join("etc/passwd"),
        "root::0:0:root:/root:/bin/sh\n",
        0o644,
    )?;
    write(&tree.join("etc/group"), "root:x:0:\n", 0o644)?;
    write(&tree.join("etc/rc"), RC, 0o755)?;
    write(&tree.join("sbin/agent"), AGENT, 0o755)?;
    write(&tree.join("sbin/shutdown"), SHUTDOWN, 0o755)?;
    lay_out_agent(packages, tree, cancel)
}

/// An applet is reached by a link in its usual folder, unless a script of ours has its name.
fn link_applet(tree: &Path, applet: &str) -> Result<()> {
    let path = tree.join(applet);
    let plain = applet
        .split('/')
        .all(|part| !part.is_empty() && part != "..");
    let taken = ["bin/busybox", "sbin/shutdown"].contains(&applet);
    if !plain || taken || path.symlink_metadata().is_ok() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_folder(parent)?;
    }
    symlink("/bin/busybox", &path)
        .map_err(|error| Error::io(format!("linking {}", path.display()), error))
}

/// Copies the agent, the loader and the libraries that the loader says it needs.
fn lay_out_agent(packages: &Path, tree: &Path, cancel: &Cancel) -> Result<()> {
    let agent = find(packages, &|name| name == "qemu-ga")?;
    let loader = find(packages, &|name| name == LOADER)?;
    copy(&agent, &tree.join("usr/sbin/qemu-ga"))?;
    copy(&loader, &tree.join("lib64").join(LOADER))?;
    let search = search_path(packages);
    let said = Run::new(&loader)
        .args(["--inhibit-cache", "--library-path", &search, "--list"])
        .arg(&agent)
        .capture(cancel)?
        .text();
    for library in libraries(&said)? {
        let name = library.file_name().unwrap_or_default();
        copy(&library, &tree.join(LIBRARIES).join(name))?;
    }
    Ok(())
}

/// Paths in the loader's list: `libz.so.1 => /path/libz.so.1 (0x…)`. The kernel's own page and the
/// loader have no arrow.
fn libraries(list: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for line in list.lines() {
        let Some((name, place)) = line.trim().split_once(" => ") else {
            continue;
        };
        match place.split_once(" (") {
            Some((path, _)) if path.ends_with(LOADER) => {}
            Some((path, _)) => found.push(PathBuf::from(path)),
            None => {
                return Err(Error::new(
                    Kind::NotFound,
                    "xtask.lab.library",
                    format!("the guest agent needs {name}, which is in none of the packages"),
                ));
            }
        }
    }
    Ok(found)
}

/// Makes a raw disk with an ext4 file system of the tree, from byte `start` to the end.
pub fn make_file_system(
    tree: &Path,
    disk: &Path,
    bytes: u64,
    start: u64,
    cancel: &Cancel,
) -> Result<()> {
    let failed = |error| Error::io(format!("making {}", disk.display()), error);
    std::fs::File::create(disk)
        .and_then(|file| file.set_len(bytes))
        .map_err(failed)?;
    // The image is known to be zero: without saying so the guest's kernel would write the empty
    // inode tables in the background, and the first incremental backup would be full of them.
    // GRUB does not know the two features that are left out.
    Run::new("mkfs.ext4")
        .args(["-q", "-F", "-L", "backstay-lab", "-b", "4096"])
        .args(["-O", "^metadata_csum_seed,^orphan_file", "-E"])
        .arg(format!(
            "offset={start},assume_storage_prezeroed=1,root_owner=0:0"
        ))
        .arg("-d")
        .args([tree, disk])
        .arg(((bytes - start) / 4_096).to_string())
        .deadline(Duration::from_secs(300))
        .capture(cancel)
        .map(drop)
}

/// Where the loader finds the unpacked libraries.
pub fn search_path(packages: &Path) -> String {
    ["lib", "usr/lib"]
        .map(|lib| {
            packages
                .join(lib)
                .join("x86_64-linux-gnu")
                .to_string_lossy()
                .into_owned()
        })
        .join(":")
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let failed = |error| Error::io(format!("copying {}", from.display()), error);
    std::fs::copy(from, to).map_err(failed)?;
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o755)).map_err(failed)
}

fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    let failed = |error| Error::io(format!("writing {}", path.display()), error);
    std::fs::write(path, text).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_s_list_is_read() {
        let list = "\tlinux-vdso.so.1 (0x1)\n\tlibz.so.1 => /p/lib/libz.so.1 (0x2)\n\
                    \tld-linux-x86-64.so.2 => /p/ld-linux-x86-64.so.2 (0x3)\n";
        assert_eq!(
            libraries(list).unwrap(),
            [PathBuf::from("/p/lib/libz.so.1")]
        );
        let error = libraries("\tliburing.so.2 => not found\n").err().unwrap();
        assert!(error.message().contains("liburing"), "{error}");
    }
}
