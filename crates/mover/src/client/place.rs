//! Which point and which file a person means.
//!
//! Knows: short forms of ids, and the names that files of a point have here. Refuses to know: what
//! is in them.
//!
//! | path | what |
//! |---|---|
//! | `point.json` | all that is known of the point |
//! | `disks/NAME.json` | a disk's descriptor: size, root, where it was |
//! | `disks/NAME.raw` | a disk |
//! | any other | a small file kept with the point: configuration, NVRAM |

use base::size::ByteCount;
use base::{Error, Kind, Result};
use protocol::words::point::{Point, PointDisk};

/// One file of a point.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Entry<'a> {
    /// The point's own description.
    Description,
    /// A disk's descriptor.
    Descriptor(&'a PointDisk),
    /// A disk.
    Disk(&'a PointDisk),
    /// A small file.
    File(&'a str),
}

/// A file of a point with its path and size.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed<'a> {
    /// Its path within the point.
    pub path: String,
    /// Its size.
    pub size: ByteCount,
    /// What it is.
    pub entry: Entry<'a>,
}

/// The point that a person means.
///
/// # Errors
/// `NotFound` (`mover.client.point`); `Invalid` where several fit.
pub fn point<'a>(points: &'a [Point], text: &str) -> Result<&'a Point> {
    if text == "latest" {
        return points
            .iter()
            .max_by_key(|point| point.created)
            .ok_or_else(|| none(text));
    }
    let digits: String = text
        .chars()
        .filter(|c| *c != '-')
        .collect::<String>()
        .to_lowercase();
    let fits = |point: &&Point| {
        let id = point.id.0.simple().to_string();
        digits.len() >= 4 && (id.ends_with(&digits) || id.starts_with(&digits))
    };
    let found: Vec<&Point> = points.iter().filter(fits).collect();
    match found[..] {
        [] => Err(none(text)),
        [point] => Ok(point),
        _ => Err(Error::invalid(
            "mover.client.point-ambiguous",
            format!("{} points fit \u{201c}{text}\u{201d}", found.len()),
        )
        .hint("give more digits; \u{201c}points\u{201d} lists them")),
    }
}

fn none(text: &str) -> Error {
    Error::new(
        Kind::NotFound,
        "mover.client.point",
        format!("no restore point is called \u{201c}{text}\u{201d}"),
    )
    .hint("\u{201c}points\u{201d} lists them; give an id, four or more of its first or last digits, or latest")
}

/// All files of a point.
pub fn files(point: &Point) -> Vec<Listed<'_>> {
    let description = super::show::description(point).len() as u64;
    let mut files = vec![Listed {
        path: "point.json".to_owned(),
        size: ByteCount(description),
        entry: Entry::Description,
    }];
    for file in &point.files {
        let entry = Entry::File(&file.path);
        files.push(Listed {
            path: file.path.clone(),
            size: file.size,
            entry,
        });
    }
    for disk in &point.disks {
        let descriptor = super::show::descriptor(disk).len() as u64;
        files.push(Listed {
            path: format!("disks/{}.json", disk.name),
            size: ByteCount(descriptor),
            entry: Entry::Descriptor(disk),
        });
        files.push(Listed {
            path: format!("disks/{}.raw", disk.name),
            size: disk.size,
            entry: Entry::Disk(disk),
        });
    }
    files
}

/// The point and the file in it that `POINT/PATH` names.
///
/// # Errors
/// `Invalid` (`mover.client.file-form`); `NotFound` (`mover.client.file`).
pub fn file<'a>(points: &'a [Point], text: &str) -> Result<(&'a Point, Listed<'a>)> {
    let (name, path) = text.split_once('/').ok_or_else(|| {
        Error::invalid(
            "mover.client.file-form",
            format!("\u{201c}{text}\u{201d} does not name a file of a point"),
        )
        .hint("write POINT/PATH, such as latest/disks/vda.raw")
    })?;
    let point = point(points, name)?;
    let listed = files(point)
        .into_iter()
        .find(|file| file.path == path)
        .ok_or_else(|| {
            Error::new(
                Kind::NotFound,
                "mover.client.file",
                format!("the point {} has no file \u{201c}{path}\u{201d}", point.id),
            )
            .hint("\u{201c}ls\u{201d} lists its files")
        })?;
    Ok((point, listed))
}

/// A path of a point as a path below a folder of this host: names from a repository are not
/// believed.
///
/// # Errors
/// `Invalid` (`mover.client.hostile-name`).
pub fn safe(path: &str) -> Result<&str> {
    let fine = path.split('/').all(|part| {
        !part.is_empty() && part != "." && part != ".." && !part.contains(['\0', '\\'])
    });
    if fine {
        return Ok(path);
    }
    Err(Error::invalid(
        "mover.client.hostile-name",
        format!(
            "\u{201c}{}\u{201d} is not a name to write a file by",
            path.escape_debug()
        ),
    ))
}
