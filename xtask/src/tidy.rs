//! The house rules as programs.
//!
//! Knows: the list of rules, which files they look at, and how faults are reported: all of them,
//! sorted, each with file, line and what to do.
//! Refuses to know: any single rule.

mod files;
mod floors;
mod functions;
mod licences;
mod pages;
mod placement;
mod source;

use crate::command::Run;
use crate::step::detail;
use crate::workspace;
use base::cancel::Cancel;
use base::{Error, Kind, Result};
use source::Source;
use std::fmt;
use std::path::Path;

/// One place where a rule is broken.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Fault {
    /// Path from the root of the repository, or the name of a package.
    place: String,
    /// Line, counted from 1; 0 when the fault is not in one line.
    line: usize,
    /// What is wrong and what to do.
    what: String,
}

impl Fault {
    fn new(place: impl Into<String>, line: usize, what: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            line,
            what: what.into(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.place, self.what),
            line => write!(f, "{}:{line}: {}", self.place, self.what),
        }
    }
}

/// `cargo xtask tidy [--bless]`.
pub fn run(arguments: &[String], cancel: &Cancel) -> Result<()> {
    match arguments {
        [] => check(cancel),
        [bless] if bless == "--bless" => {
            for page in pages::bless(workspace::root())? {
                detail(format!(
                    "{page}: hash written; does the page still say what the code does?"
                ));
            }
            check(cancel)
        }
        _ => Err(Error::invalid(
            "xtask.tidy.option",
            "the one option of tidy is --bless",
        )),
    }
}

/// Every rule over the whole repository; one error that counts the faults, after printing them.
pub fn check(cancel: &Cancel) -> Result<()> {
    let root = workspace::root();
    let sources = sources(root, cancel)?;
    let metadata = workspace::metadata(cancel)?;
    let mut faults = Vec::new();
    for source in &sources {
        faults.extend(files::faults(source));
        if source.is_rust() {
            faults.extend(functions::faults(source));
            faults.extend(placement::faults(source));
        }
    }
    faults.extend(floors::faults(&metadata));
    faults.extend(placement::manifest_faults(&metadata));
    faults.extend(licences::faults(&metadata));
    faults.extend(pages::faults(root)?);
    faults.sort();
    let long = sources
        .iter()
        .filter(|source| files::is_long(source))
        .count();
    detail(format!(
        "{} files looked at, {long} of them longer than the {} lines we aim for",
        sources.len(),
        files::LINES_AIM
    ));
    if faults.is_empty() {
        return Ok(());
    }
    for fault in &faults {
        println!("{fault}");
    }
    Err(Error::new(
        Kind::Invalid,
        "xtask.tidy.faults",
        format!("{} house rules are broken", faults.len()),
    )
    .hint("the rules and their reasons: CONTRIBUTING.md"))
}

/// How many tests are only started by other tests and therefore ignored by the harness.
pub fn inner_tests(cancel: &Cancel) -> Result<usize> {
    Ok(sources(workspace::root(), cancel)?
        .iter()
        .map(files::inner_tests)
        .sum())
}

/// Every text file that git tracks or would track.
fn sources(root: &Path, cancel: &Cancel) -> Result<Vec<Source>> {
    let said = Run::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
            "--deduplicate",
        ])
        .within(root)
        .hint("the house rules look at the files that git knows: run this in a clone")
        .capture(cancel)?;
    let mut sources = Vec::new();
    for path in said
        .output
        .split(|byte| *byte == 0)
        .filter(|path| !path.is_empty())
    {
        let path = String::from_utf8_lossy(path).into_owned();
        // A file that is staged and deleted, or that is no text, has no lines to judge.
        let Ok(bytes) = std::fs::read(root.join(&path)) else {
            continue;
        };
        if let Ok(text) = String::from_utf8(bytes) {
            sources.push(Source::new(path, text));
        }
    }
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_house_is_tidy() {
        if let Err(error) = check(&Cancel::new()) {
            panic!("{error}; the faults stand above");
        }
    }
}
