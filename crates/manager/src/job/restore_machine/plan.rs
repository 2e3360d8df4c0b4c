//! Where the disks of a restored machine go: a pure function of the point and the order.
//!
//! Knows: names, folders, formats. Refuses to know: whether the paths are free.

use base::digest::Digest;
use base::size::ByteCount;
use base::{Error, Kind, Result};
use protocol::words::agent::ImageTarget;
use protocol::words::point::{Point, PointDisk};
use protocol::words::session::{RestoreMachine, RestoreTarget};

/// The name under which a point keeps a machine's NVRAM.
pub const NVRAM: &str = "nvram.fd";
/// Where disks of new machines go unless a folder is named.
const FOLDER: &str = "/var/lib/libvirt/images";

/// A restore.
#[derive(Debug, PartialEq, Eq)]
pub struct RestorePlan {
    /// The disks.
    pub disks: Vec<DiskPlan>,
    /// Where the NVRAM goes, if there is one and the machine is new.
    pub nvram: Option<String>,
}

/// One disk.
#[derive(Debug, PartialEq, Eq)]
pub struct DiskPlan {
    /// Its name.
    pub name: String,
    /// Its size.
    pub size: ByteCount,
    /// The digest it must have.
    pub root: Digest,
    /// Where it goes.
    pub target: ImageTarget,
}

/// Plans a restore.
///
/// # Errors
/// `Unsupported` where a disk must go back to its place but the point does not know that place.
pub fn plan(point: &Point, order: &RestoreMachine) -> Result<RestorePlan> {
    let folder = order
        .folder
        .as_deref()
        .unwrap_or(FOLDER)
        .trim_end_matches('/');
    let place = |disk: &PointDisk| match &order.target {
        RestoreTarget::New { name, .. } => {
            let format = new_format(disk);
            Ok(ImageTarget {
                path: format!(
                    "{folder}/{}-{}.{format}",
                    file_name(name),
                    file_name(&disk.name)
                ),
                format: format.to_owned(),
                overwrite: false,
            })
        }
        RestoreTarget::Original => original(disk),
    };
    let disks: Result<Vec<DiskPlan>> = point
        .disks
        .iter()
        .map(|disk| {
            let target = place(disk)?;
            Ok(DiskPlan {
                name: disk.name.clone(),
                size: disk.size,
                root: disk.root,
                target,
            })
        })
        .collect();
    let has_nvram = point.files.iter().any(|file| file.path == NVRAM);
    let nvram = match &order.target {
        RestoreTarget::New { name, .. } if has_nvram => {
            Some(format!("{folder}/{}-nvram.fd", file_name(name)))
        }
        _ => None,
    };
    Ok(RestorePlan {
        disks: disks?,
        nvram,
    })
}

/// New disks are qcow2, whose changes can be tracked, unless the disk was raw.
fn new_format(disk: &PointDisk) -> &'static str {
    match disk.attributes.get("format").map(String::as_str) {
        Some("raw") => "raw",
        _ => "qcow2",
    }
}

fn original(disk: &PointDisk) -> Result<ImageTarget> {
    let attribute = |name: &str| disk.attributes.get(name).filter(|value| !value.is_empty());
    match (attribute("path"), attribute("format").map(String::as_str)) {
        (Some(path), Some(format @ ("raw" | "qcow2"))) if path.starts_with('/') => {
            Ok(ImageTarget {
                path: path.clone(),
                format: format.to_owned(),
                overwrite: true,
            })
        }
        (path, format) => Err(Error::new(
            Kind::Unsupported,
            "restore.place-unknown",
            format!(
                "disk {} was at {} in format {}; Backstay cannot write it back there",
                disk.name,
                path.map_or("an unknown place", |path| path),
                format.unwrap_or("unknown"),
            ),
        )
        .hint("restore as a new machine, or the disk alone to a file")),
    }
}

/// A part of a file name that a machine's or disk's name gives: nothing that leads elsewhere.
fn file_name(name: &str) -> String {
    let safe = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    let text: String = name
        .chars()
        .map(|c| if safe(c) { c } else { '_' })
        .take(100)
        .collect();
    if text.starts_with('.') {
        format!("_{text}")
    } else {
        text
    }
}
