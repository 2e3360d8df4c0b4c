//! Packages taken apart without being installed: what a guest is made of.
//!
//! Knows: which packages another one needs, how to download and unpack them.
//! Refuses to know: what is made of the files.

use super::apt;
use crate::command::Run;
use crate::step::detail;
use base::cancel::Cancel;
use base::{Error, Kind, Result};
use std::path::{Path, PathBuf};
use std::time::Duration;

const DOWNLOAD_DEADLINE: Duration = Duration::from_secs(10 * 60);

/// The libraries that `package` needs, and those that they need.
pub fn libraries_of(package: &str, cancel: &Cancel) -> Result<Vec<String>> {
    let said = Run::new("apt-cache")
        .args([
            "depends",
            "--recurse",
            "--no-recommends",
            "--no-suggests",
            "--no-conflicts",
        ])
        .args(["--no-breaks", "--no-replaces", "--no-enhances", package])
        .capture(cancel)?;
    // Lines without indent are packages; those in angle brackets are virtual.
    let mut found: Vec<String> = said
        .text()
        .lines()
        .filter(|line| line.starts_with("lib") && !line.contains(':'))
        .map(str::to_owned)
        .collect();
    found.sort();
    found.dedup();
    Ok(found)
}

/// The package that `package` depends on first whose name starts with `prefix`: a metapackage such
/// as that of the kernel names its content so.
pub fn content_of(package: &str, prefix: &str, cancel: &Cancel) -> Result<String> {
    let said = Run::new("apt-cache")
        .args(["depends", package])
        .capture(cancel)?
        .text();
    said.lines()
        .filter_map(|line| {
            line.trim()
                .trim_start_matches('|')
                .strip_prefix("Depends: ")
        })
        .find(|name| name.starts_with(prefix))
        .map(str::to_owned)
        .ok_or_else(|| {
            Error::new(
                Kind::NotFound,
                "xtask.need.package",
                format!("no package that starts with {prefix} stands behind {package}"),
            )
            .hint("run `apt-get update` and try again")
        })
}

/// Downloads packages and unpacks them all into `folder` without installing anything. Asks for the
/// lists of packages anew when one is not known.
pub fn fetch_unpacked(names: &[String], folder: &Path, cancel: &Cancel) -> Result<()> {
    let files = folder.join(".packages");
    std::fs::create_dir_all(&files)
        .map_err(|error| Error::io(format!("making {}", files.display()), error))?;
    if let Err(error) = download(names, &files, cancel) {
        cancel.check()?;
        detail(format!(
            "asking for newer package lists ({})",
            first_line(error.message())
        ));
        apt::update(cancel)?;
        download(names, &files, cancel)?;
    }
    for package in packages_in(&files)? {
        Run::new("dpkg-deb")
            .arg("-x")
            .arg(&package)
            .arg(folder)
            .capture(cancel)?;
    }
    std::fs::remove_dir_all(&files)
        .map_err(|error| Error::io(format!("removing {}", files.display()), error))
}

fn download(names: &[String], into: &Path, cancel: &Cancel) -> Result<()> {
    Run::new("apt-get")
        .args(["-q", "-o", "APT::Sandbox::User=root", "download"])
        .args(names)
        .within(into)
        .deadline(DOWNLOAD_DEADLINE)
        .capture(cancel)
        .map(drop)
}

fn packages_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder)
        .map_err(|error| Error::io(format!("listing {}", folder.display()), error))?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .collect();
    found.sort();
    Ok(found)
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
