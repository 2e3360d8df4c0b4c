//! Where things lie in this repository.
//!
//! Knows: the root, the folder of built programs, and what `cargo metadata` tells about members
//! and dependencies.
//! Refuses to know: which of it is allowed; `tidy` judges that.

use crate::command::Run;
use crate::step::detail;
use base::cancel::Cancel;
use base::{Error, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The platform everything is built for, as `.cargo/config.toml` says.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The root of the repository.
pub fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// What cargo knows of the workspace, resolved for [`TARGET`].
pub fn metadata(cancel: &Cancel) -> Result<Value> {
    let said = Run::cargo()
        .args([
            "metadata",
            "--format-version=1",
            "--locked",
            "--filter-platform",
            TARGET,
        ])
        .hint("if Cargo.lock is out of date, run `cargo check` and commit the change")
        .capture(cancel)?;
    serde_json::from_slice(&said.output).map_err(|error| {
        Error::corrupt("xtask.metadata.malformed", "cargo metadata wrote no JSON").caused_by(error)
    })
}

/// The program that was given, by its full path, or else a newly built one as people ship it.
pub fn program(given: Option<&Path>, cancel: &Cancel) -> Result<PathBuf> {
    match given {
        Some(program) => {
            detail(format!("as it is: {}", program.display()));
            std::fs::canonicalize(program)
                .map_err(|error| Error::io(format!("looking for {}", program.display()), error))
        }
        None => {
            detail("building it in release mode; the first time takes some minutes");
            build_program(true, cancel)
        }
    }
}

/// Builds the `backstay` program and hands back its path.
///
/// `release` is the profile people ship; without it the quicker one of development is used.
pub fn build_program(release: bool, cancel: &Cancel) -> Result<PathBuf> {
    let profile: &[&str] = if release { &["--release"] } else { &[] };
    let mut found = None;
    let status = Run::cargo()
        .args([
            "build",
            "--locked",
            "--package",
            "backstay",
            "--message-format=json-render-diagnostics",
        ])
        .args(profile)
        .lines(cancel, |line| {
            let Ok(message) = serde_json::from_str::<Value>(line) else {
                return;
            };
            if message["target"]["name"] == "backstay"
                && let Some(path) = message["executable"].as_str()
            {
                found = Some(PathBuf::from(path));
            }
        })?;
    match found {
        Some(path) if status.success() => Ok(path),
        _ => Err(Error::new(
            base::Kind::Io,
            "xtask.build.failed",
            "the program `backstay` could not be built",
        )
        .hint("the compiler's messages stand above")),
    }
}
