//! `cargo xtask demo`: the whole of Backstay on this machine, with real parts.
//!
//! Knows: the two stories (a running virtual machine; a disk image of the user's own) and their
//! options.
//! Refuses to know: how either is told.

mod image;
mod machine;
pub mod program;
pub mod table;

use base::cancel::Cancel;
use base::{Error, Result};
use std::path::PathBuf;

/// What was asked for.
#[derive(Default, Debug, PartialEq, Eq)]
struct Options {
    /// A disk image instead of a virtual machine.
    image: Option<PathBuf>,
    /// A built program instead of building it.
    program: Option<PathBuf>,
    /// Leave everything up at the end.
    keep: bool,
}

/// `cargo xtask demo [--image FILE] [--program FILE] [--keep]`.
pub fn run(arguments: &[String], cancel: &Cancel) -> Result<()> {
    let options = parse(arguments)?;
    match &options.image {
        Some(image) => image::tell(image, options.program.as_deref(), cancel),
        None => machine::tell(options.program.as_deref(), options.keep, cancel),
    }
}

fn parse(arguments: &[String]) -> Result<Options> {
    let mut options = Options::default();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut file = || {
            let missing = || {
                Error::invalid(
                    "xtask.demo.option",
                    format!("{argument} wants the path of a file"),
                )
            };
            arguments.next().map(PathBuf::from).ok_or_else(missing)
        };
        match argument.as_str() {
            "--image" => options.image = Some(file()?),
            "--program" => options.program = Some(file()?),
            "--keep" => options.keep = true,
            other => {
                return Err(Error::invalid(
                    "xtask.demo.option",
                    format!("`cargo xtask demo` has no option \u{201c}{other}\u{201d}"),
                )
                .hint("type `cargo xtask help`"));
            }
        }
    }
    if options.keep && options.image.is_some() {
        return Err(Error::invalid(
            "xtask.demo.option",
            "--keep leaves a virtual machine up, and with --image there is none",
        ));
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_nonsense_is_refused() {
        let parse = |text: &str| {
            parse(
                &text
                    .split_whitespace()
                    .map(str::to_owned)
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(parse("").unwrap(), Options::default());
        assert_eq!(
            parse("--image a.raw").unwrap().image,
            Some(PathBuf::from("a.raw"))
        );
        for wrong in ["--image", "--fast", "--image a --keep"] {
            assert_eq!(
                parse(wrong).err().unwrap().code(),
                "xtask.demo.option",
                "{wrong}"
            );
        }
    }
}
