//! Format pages are tied to the source they describe.
//!
//! Knows: the mark `<!-- source-hash: PATH = HEX -->` in a page under `docs/formats`, and how the
//! hash of a file or folder of Rust source is made.
//! Refuses to know: whether the page is right. It makes somebody look when the source changed.

use super::Fault;
use base::{Error, Result};
use std::path::{Path, PathBuf};

const FOLDER: &str = "docs/formats";
const MARK: &str = "<!-- source-hash: ";
const MARK_END: &str = " -->";
/// Deepest nesting of folders that is followed.
const DEPTH_MAX: usize = 8;
/// Hexadecimal digits of the hash that are written: enough to notice a change.
const DIGITS: usize = 16;

/// Pages without a mark, and pages whose source changed since they were last looked at.
pub fn faults(root: &Path) -> Result<Vec<Fault>> {
    let mut faults = Vec::new();
    for page in pages(root)? {
        let text = read(&root.join(&page))?;
        let marks = marks(&text);
        if marks.is_empty() {
            faults.push(Fault::new(
                &page,
                0,
                format!("name the described source: `{MARK}crates/\u{2026} = 0{MARK_END}`"),
            ));
        }
        for mark in marks {
            match hash(root, mark.path) {
                Ok(now) if now == mark.hash => {}
                Ok(_) => faults.push(Fault::new(
                    &page,
                    mark.line,
                    format!(
                        "{} changed: read the page again, then `cargo xtask tidy --bless`",
                        mark.path
                    ),
                )),
                Err(error) => faults.push(Fault::new(&page, mark.line, error.to_string())),
            }
        }
    }
    Ok(faults)
}

/// Writes today's hashes into the pages; hands back the names of those that changed.
pub fn bless(root: &Path) -> Result<Vec<String>> {
    let mut changed = Vec::new();
    for page in pages(root)? {
        let path = root.join(&page);
        let text = read(&path)?;
        let mut blessed = text.clone();
        for mark in marks(&text) {
            let old = format!("{MARK}{} = {}{MARK_END}", mark.path, mark.hash);
            let new = format!("{MARK}{} = {}{MARK_END}", mark.path, hash(root, mark.path)?);
            blessed = blessed.replace(&old, &new);
        }
        if blessed != text {
            std::fs::write(&path, blessed)
                .map_err(|error| Error::io(format!("writing {page}"), error))?;
            changed.push(page);
        }
    }
    Ok(changed)
}

struct Mark<'a> {
    line: usize,
    path: &'a str,
    hash: &'a str,
}

fn marks(text: &str) -> Vec<Mark<'_>> {
    let mark = |(index, line): (usize, &'_ str)| -> Option<(usize, usize, usize)> {
        let inside = line.strip_prefix(MARK)?.strip_suffix(MARK_END)?;
        let (path, hash) = inside.split_once(" = ")?;
        Some((index, path.len(), hash.len()))
    };
    text.lines()
        .enumerate()
        .filter_map(|(index, line)| {
            let (index, path, hash) = mark((index, line))?;
            let path_end = MARK.len() + path;
            let hash_at = path_end + " = ".len();
            Some(Mark {
                line: index + 1,
                path: &line[MARK.len()..path_end],
                hash: &line[hash_at..hash_at + hash],
            })
        })
        .collect()
}

fn pages(root: &Path) -> Result<Vec<String>> {
    let folder = root.join(FOLDER);
    let mut pages: Vec<String> = list(&folder)?
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .filter_map(|path| Some(format!("{FOLDER}/{}", path.file_name()?.to_string_lossy())))
        .collect();
    pages.sort();
    Ok(pages)
}

/// The hash of a Rust file, or of all Rust files below a folder but their tests.
fn hash(root: &Path, path: &str) -> Result<String> {
    let mut files = Vec::new();
    gather(&root.join(path), 0, &mut files)?;
    files.sort();
    if files.is_empty() {
        return Err(Error::invalid(
            "xtask.tidy.page-source",
            format!("there is no Rust source at {path}"),
        ));
    }
    let mut hasher = blake3::Hasher::new();
    for file in &files {
        let name = file
            .strip_prefix(root)
            .unwrap_or(file)
            .to_string_lossy()
            .into_owned();
        let text = read(file)?;
        // Lengths are hashed too, so that text cannot wander from one file to the next unseen.
        hasher.update(format!("{} {name} {}\n", name.len(), text.len()).as_bytes());
        hasher.update(text.as_bytes());
    }
    Ok(hasher.finalize().to_hex()[..DIGITS].to_owned())
}

fn gather(path: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<()> {
    if path.is_dir() && depth < DEPTH_MAX {
        for entry in list(path)? {
            gather(&entry, depth + 1, files)?;
        }
    } else if path.extension().is_some_and(|extension| extension == "rs")
        && path.file_name().is_none_or(|name| name != "tests.rs")
    {
        files.push(path.to_owned());
    }
    Ok(())
}

fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error| Error::io(format!("listing {}", folder.display()), error);
    match std::fs::read_dir(folder) {
        Ok(entries) => entries
            .map(|entry| entry.map(|entry| entry.path()).map_err(failed))
            .collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(error)),
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path)
        .map_err(|error| Error::io(format!("reading {}", path.display()), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_follows_its_source() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        std::fs::create_dir_all(root.join("crates/a/src")).unwrap();
        std::fs::create_dir_all(root.join(FOLDER)).unwrap();
        std::fs::write(root.join("crates/a/src/b.rs"), "one").unwrap();
        let page = root.join(FOLDER).join("a.md");
        std::fs::write(&page, "# A\n<!-- source-hash: crates/a/src = 0 -->\ntext\n").unwrap();

        assert_eq!(faults(root).unwrap().len(), 1);
        assert_eq!(bless(root).unwrap(), ["docs/formats/a.md"]);
        assert!(faults(root).unwrap().is_empty());
        assert!(bless(root).unwrap().is_empty());

        std::fs::write(root.join("crates/a/src/tests.rs"), "tests").unwrap();
        assert!(
            faults(root).unwrap().is_empty(),
            "tests do not describe the format"
        );
        std::fs::write(root.join("crates/a/src/b.rs"), "two").unwrap();
        let found = faults(root).unwrap();
        assert!(
            found[0]
                .to_string()
                .starts_with("docs/formats/a.md:2: crates/a/src changed")
        );
    }

    #[test]
    fn a_page_without_mark_or_with_a_lost_source_is_a_fault() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join(FOLDER);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("a.md"), "# A\n").unwrap();
        std::fs::write(
            folder.join("b.md"),
            "<!-- source-hash: crates/gone = 0 -->\n",
        )
        .unwrap();
        let text: Vec<_> = faults(root.path())
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(text.len(), 2, "{text:?}");
        assert!(text[0].contains("name the described source"), "{text:?}");
        assert!(
            text[1].contains("no Rust source at crates/gone"),
            "{text:?}"
        );
    }
}
