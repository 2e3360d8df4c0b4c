//! The files on a benchmark disk.
//!
//! Knows: which kinds of files a server has and in which proportion. Refuses to know: disks.
//!
//! The user land is taken from this machine's `/usr`, chosen by the digest of each path so that
//! neighbours on the disk are no neighbours in the folder. Figures of two machines therefore differ;
//! only ratios on one machine are compared.

use crate::command::Run;
use crate::content::{MIB, Numbers, PAGE, file, log, noise, table};
use crate::lab::make_folder;
use base::cancel::Cancel;
use base::{Error, Result};
use std::path::{Path, PathBuf};

/// Parts of a disk in thousandths of its size.
const USERLAND: u64 = 280;
const COPIES: u64 = 50;
const ARCHIVE: u64 = 40;
const NOISE: u64 = 100;
const LOGS: u64 = 80;
const TABLES: u64 = 120;

/// Largest file of the user land that is taken.
const FILE_BYTES_MAX: u64 = 16 << 20;
const DEPTH_MAX: usize = 12;
const SHARES: u64 = 8;

/// Lays out a machine's files below `tree`. `own` tells machines apart: their data differs, and of
/// the user land a fifth.
pub fn lay_out(tree: &Path, disk_mib: u64, own: u64, cancel: &Cancel) -> Result<()> {
    let bytes = |thousandths: u64| disk_mib * (1 << 20) / 1_000 * thousandths;
    let userland = tree.join("usr");
    take_userland(&userland, bytes(USERLAND), own, cancel)?;
    let copies = tree.join("opt");
    copy_some(&userland, &copies, bytes(COPIES), cancel)?;
    let archive = tree.join("backup");
    make_folder(&archive)?;
    archive_some(&userland, &archive.join("usr.tar"), bytes(ARCHIVE), cancel)?;
    let data = tree.join("srv");
    make_folder(&data)?;
    let mut numbers = Numbers(own.wrapping_mul(0x9e37) ^ 0x5eed);
    for share in 0..SHARES {
        cancel.check()?;
        let part = |thousandths| usize::try_from(bytes(thousandths) / SHARES).unwrap_or(MIB);
        file(&data.join(format!("photo-{share}")), |out| {
            noise(out, &mut numbers, part(NOISE))
        })?;
        file(&data.join(format!("log-{share}")), |out| {
            log(out, &mut numbers, part(LOGS))
        })?;
        let pages = part(TABLES) / PAGE;
        file(&data.join(format!("table-{share}")), |out| {
            table(out, &mut numbers, pages)
        })?;
    }
    Ok(())
}

/// Copies files of this machine until the budget is spent; of every five one depends on `own`.
fn take_userland(to: &Path, budget: u64, own: u64, cancel: &Cancel) -> Result<()> {
    let mut files = Vec::new();
    for folder in ["/usr/lib", "/usr/bin", "/usr/share"] {
        gather(Path::new(folder), 0, &mut files);
    }
    let mut keyed: Vec<(blake3::Hash, PathBuf, u64)> = files
        .into_iter()
        .map(|(path, size)| {
            (
                blake3::hash(path.as_os_str().as_encoded_bytes()),
                path,
                size,
            )
        })
        .filter(|(key, ..)| {
            // A fifth of the files belongs to this machine or to the other, not to both.
            let [kind, whose, ..] = key.as_bytes();
            kind % 5 != 0 || u64::from(whose % 2) == own % 2
        })
        .collect();
    keyed.sort_by(|one, two| one.0.as_bytes().cmp(two.0.as_bytes()));
    let mut spent = 0;
    for (key, path, size) in keyed {
        if spent >= budget {
            break;
        }
        cancel.check()?;
        let folder = to.join(&key.to_hex()[..2]);
        make_folder(&folder)?;
        // A file that cannot be read or vanishes is left out.
        if std::fs::copy(&path, folder.join(&key.to_hex()[..16])).is_ok() {
            spent += size;
        }
    }
    Ok(())
}

fn gather(folder: &Path, depth: usize, files: &mut Vec<(PathBuf, u64)>) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let Ok(about) = entry.metadata() else {
            continue;
        };
        if about.is_dir() && depth < DEPTH_MAX {
            gather(&entry.path(), depth + 1, files);
        } else if about.is_file() && (1..=FILE_BYTES_MAX).contains(&about.len()) {
            files.push((entry.path(), about.len()));
        }
    }
}

/// Copies the last files of the user land until the budget is spent.
fn copy_some(userland: &Path, to: &Path, budget: u64, cancel: &Cancel) -> Result<()> {
    make_folder(to)?;
    let mut files = Vec::new();
    gather(userland, 0, &mut files);
    files.sort();
    let mut spent = 0;
    for (path, size) in files.iter().rev() {
        if spent >= budget {
            break;
        }
        cancel.check()?;
        let name = path.file_name().unwrap_or_default();
        std::fs::copy(path, to.join(name))
            .map_err(|error| Error::io(format!("copying {}", path.display()), error))?;
        spent += size;
    }
    Ok(())
}

/// Packs the first files of the user land into one archive: the same content, shifted.
fn archive_some(userland: &Path, archive: &Path, budget: u64, cancel: &Cancel) -> Result<()> {
    let mut files = Vec::new();
    gather(userland, 0, &mut files);
    files.sort();
    let mut spent = 0;
    let chosen: Vec<String> = files
        .iter()
        .take_while(|(_, size)| {
            spent += size;
            spent <= budget
        })
        .filter_map(|(path, _)| path.strip_prefix(userland).ok())
        .map(|path| path.to_string_lossy().into_owned())
        .collect();
    let list = archive.with_extension("list");
    std::fs::write(&list, chosen.join("\n"))
        .map_err(|error| Error::io("writing a list of files", error))?;
    Run::new("tar")
        .args([
            "--create",
            "--sort=name",
            "--mtime=@1700000000",
            "--owner=0",
            "--group=0",
        ])
        .arg("--directory")
        .arg(userland)
        .arg("--file")
        .arg(archive)
        .arg("--files-from")
        .arg(&list)
        .capture(cancel)?;
    std::fs::remove_file(&list).map_err(|error| Error::io("removing a list of files", error))
}
