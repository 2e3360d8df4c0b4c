//! Disk images for benchmarks: a machine, the same machine a day later, another machine.
//!
//! Knows: how they are made without mounting anything (`mkfs.ext4 -d`, `debugfs`), and what changes
//! in a day.
//! Refuses to know: what is measured with them.

use super::tree;
use crate::command::Run;
use crate::content::{MIB, Numbers, PAGE, file, log, noise, page};
use crate::lab::make_folder;
use crate::step::detail;
use base::cancel::Cancel;
use base::{Error, Result};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Raised when images are made in another way.
const RECIPE: u32 = 1;
/// Where the partition of the first machine starts.
const FIRST_START: u64 = 1 << 20;
/// Where that of the other one starts: on a page, but on no larger border.
const OTHER_START: u64 = 34_824 * 512;
const BLOCK: u64 = 4_096;
const DEADLINE: Duration = Duration::from_secs(1_800);
/// Of a hundred pages of each table, so many change in place in a day.
const PAGES_CHANGED_PERCENT: u64 = 11;

/// The three images, raw and sparse.
pub struct Images {
    /// A machine.
    pub first: PathBuf,
    /// The same a day later.
    pub second: PathBuf,
    /// Another machine with most of the same user land, elsewhere on the disk.
    pub other: PathBuf,
}

impl Images {
    /// The images of this size; made when they are not there yet.
    pub fn get(folder: &Path, size_mib: u64, cancel: &Cancel) -> Result<Self> {
        let kept = folder.join(format!("images-{size_mib}-{RECIPE}"));
        let images = Self::within(&kept);
        if kept.is_dir() {
            detail("kept from an earlier run");
            return Ok(images);
        }
        let draft = folder.join("draft");
        let _ = std::fs::remove_dir_all(&draft);
        make_folder(&draft)?;
        let new = Self::within(&draft);
        for (image, start, own) in [(&new.first, FIRST_START, 0), (&new.other, OTHER_START, 1)] {
            let tree = draft.join("tree");
            tree::lay_out(&tree, size_mib, own, cancel)?;
            make_disk(&tree, image, size_mib << 20, start, cancel)?;
            std::fs::remove_dir_all(&tree)
                .map_err(|error| Error::io("removing a tree of files", error))?;
        }
        Run::new("cp")
            .args(["--sparse=always", "--reflink=auto"])
            .args([&new.first, &new.second])
            .capture(cancel)?;
        a_day(&new.second, size_mib, &draft, cancel)?;
        std::fs::rename(&draft, &kept).map_err(|error| Error::io("naming the images", error))?;
        Ok(images)
    }

    fn within(folder: &Path) -> Self {
        let [first, second, other] =
            ["first.raw", "second.raw", "other.raw"].map(|name| folder.join(name));
        Self {
            first,
            second,
            other,
        }
    }
}

/// Reads an image once, so that every tool finds it in memory.
pub fn warm(image: &Path, cancel: &Cancel) -> Result<()> {
    Run::new("cp")
        .arg(image)
        .arg("/dev/null")
        .capture(cancel)
        .map(drop)
}

/// A disk with one ext4 partition that holds the tree.
fn make_disk(tree: &Path, image: &Path, bytes: u64, start: u64, cancel: &Cancel) -> Result<()> {
    let failed = |error| Error::io(format!("making {}", image.display()), error);
    let disk = File::create(image).map_err(failed)?;
    disk.set_len(bytes).map_err(failed)?;
    disk.write_all_at(&boot_record(start, bytes - start), 0)
        .map_err(failed)?;
    drop(disk);
    Run::new("mkfs.ext4")
        .args([
            "-q",
            "-F",
            "-b",
            "4096",
            "-O",
            "^metadata_csum,^metadata_csum_seed",
            "-E",
        ])
        .arg(format!("offset={start},assume_storage_prezeroed=1"))
        .arg("-d")
        .args([tree, image])
        .arg(((bytes - start) / BLOCK).to_string())
        .deadline(DEADLINE)
        .capture(cancel)
        .map(drop)
}

/// A master boot record with one Linux partition.
fn boot_record(start: u64, length: u64) -> [u8; 512] {
    let sectors = |bytes: u64| u32::try_from(bytes / 512).unwrap_or(u32::MAX).to_le_bytes();
    let mut record = [0; 512];
    record[450] = 0x83;
    record[454..458].copy_from_slice(&sectors(start));
    record[458..462].copy_from_slice(&sectors(length));
    record[510..].copy_from_slice(&[0x55, 0xaa]);
    record
}

/// What happens to the first machine in a day: packages are replaced, files come and go, logs
/// grow, and pages of tables change in place.
fn a_day(image: &Path, size_mib: u64, scratch: &Path, cancel: &Cancel) -> Result<()> {
    let mut numbers = Numbers(0xda7);
    let new = scratch.join("new");
    make_folder(&new)?;
    let megabytes = |thousandths: u64| {
        usize::try_from(size_mib * thousandths / 1_000)
            .unwrap_or(1)
            .max(1)
            * MIB
    };
    let mut script = String::from("cd /srv\n");
    file(&new.join("upload"), |out| {
        noise(out, &mut numbers, megabytes(10))
    })?;
    script.push_str(&format!("write {} upload\n", new.join("upload").display()));
    for index in 0..4 {
        // A log that was rotated away, and a new one.
        let path = new.join(format!("log-new-{index}"));
        file(&path, |out| log(out, &mut numbers, megabytes(3)))?;
        script.push_str(&format!(
            "rm log-{index}\nwrite {} log-new-{index}\n",
            path.display()
        ));
    }
    let [upgraded, folder] = [new.join("package"), PathBuf::from("/usr")];
    for share in 0..8 {
        let path = upgraded.with_extension(share.to_string());
        file(&path, |out| noise(out, &mut numbers, megabytes(1)))?;
        let name = format!("package-{share}");
        script.push_str(&format!(
            "cd {}\nwrite {} {name}\n",
            folder.display(),
            path.display()
        ));
    }
    let commands = new.join("script");
    std::fs::write(&commands, script).map_err(|error| Error::io("writing a script", error))?;
    debugfs(image, &["-w", "-f", &commands.to_string_lossy()], cancel)?;
    change_tables(image, &mut numbers, cancel)?;
    std::fs::remove_dir_all(&new).map_err(|error| Error::io("removing new files", error))
}

fn change_tables(image: &Path, numbers: &mut Numbers, cancel: &Cancel) -> Result<()> {
    let disk = File::options().write(true).open(image);
    let disk = disk.map_err(|error| Error::io(format!("opening {}", image.display()), error))?;
    let per_page = PAGE / 4_096;
    for share in 0..8 {
        let blocks = debugfs(
            image,
            &["-R", &format!("blocks /srv/table-{share}")],
            cancel,
        )?;
        let blocks: Vec<u64> = blocks
            .split_whitespace()
            .filter_map(|b| b.parse().ok())
            .collect();
        for (number, places) in blocks.chunks_exact(per_page).enumerate() {
            if numbers.next() % 100 >= PAGES_CHANGED_PERCENT {
                continue;
            }
            let content = page(numbers, number);
            for (place, piece) in places.iter().zip(content.chunks(4_096)) {
                disk.write_all_at(piece, FIRST_START + place * BLOCK)
                    .map_err(|error| Error::io("changing a table", error))?;
            }
        }
    }
    disk.sync_all()
        .map_err(|error| Error::io("changing a table", error))
}

fn debugfs(image: &Path, arguments: &[&str], cancel: &Cancel) -> Result<String> {
    let said = Run::new("debugfs")
        .args(arguments)
        .arg(format!("{}?offset={FIRST_START}", image.display()))
        .deadline(DEADLINE)
        .capture(cancel)?;
    let complaint = said.complaint();
    // It ends well whatever happened; the first line of what it complains of is its version.
    match complaint.lines().nth(1) {
        Some(problem) => Err(Error::new(
            base::Kind::Io,
            "xtask.bench.debugfs",
            format!("debugfs could not change {}: {problem}", image.display()),
        )),
        None => Ok(said.text()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_made_and_a_day_changes_a_few_hundredths() {
        let folder = tempfile::tempdir().unwrap();
        let cancel = Cancel::new();
        let images = Images::get(folder.path(), 160, &cancel).unwrap();
        let [first, second, other] =
            [&images.first, &images.second, &images.other].map(|path| std::fs::read(path).unwrap());
        assert_eq!(first.len(), 160 << 20);
        let changed = first
            .chunks(4_096)
            .zip(second.chunks(4_096))
            .filter(|(a, b)| a != b)
            .count();
        let hundredths = changed * 100 / (first.len() / 4_096);
        assert!(
            (1..=15).contains(&hundredths),
            "{hundredths} hundredths changed"
        );
        assert!(other[..512] != first[..512]);
        for (path, start) in [(&images.second, FIRST_START), (&images.other, OTHER_START)] {
            let file_system = folder.path().join("file-system");
            std::fs::write(&file_system, {
                let disk = std::fs::read(path).unwrap();
                disk[usize::try_from(start).unwrap()..].to_vec()
            })
            .unwrap();
            Run::new("e2fsck")
                .args(["-f", "-n"])
                .arg(&file_system)
                .capture(&cancel)
                .unwrap();
        }
    }
}
