//! The only build script of the house: `cargo xtask COMMAND`.
//!
//! Knows: which commands there are and which room does each.
//! Refuses to know: how any of them is done.

mod bench;
mod command;
mod content;
mod demo;
mod digest;
mod elf;
mod lab;
mod marked;
mod need;
mod step;
mod stop;
mod test;
mod tidy;
mod workspace;

use base::{Error, Result};
use std::process::ExitCode;

const HELP: &str = "\
cargo xtask COMMAND

  demo     a real virtual machine backed up, changed, backed up again, restored, compared
             --image FILE     the same with a disk image of yours; needs no hypervisor
             --keep           leave everything up at the end
             --program FILE   a built `backstay` instead of building it
  test     install what the tests need, then formatting, lints, house rules and every test
             --no-install     use what is there
             --only STEP      one step: install, fmt, clippy, tidy, tests, static, demo
  tidy     the house rules alone (floors, files, names, licences, format pages)
             --bless          write the hash of the described source into docs/formats
  bench    Backstay against zstd, cp and qemu-img on images made here, as a table of ratios
             --size MIB       size of the images (2048)
             --rounds N       how often each is measured (3)
             --program FILE   a built `backstay` instead of building it
  lab      a real guest under libvirt, by hand
             up | down        put it up and leave it; take it down
             run COMMAND      a shell command inside the guest
             restart          from inside
             check            prove that the lab works, then take it down
  help     this text

Everything is safe to run twice and cleans up after itself, also on Ctrl-C.
";

fn main() -> ExitCode {
    let cancel = match stop::on_signal() {
        Ok(cancel) => cancel,
        Err(error) => return complain(&error),
    };
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "help".to_owned());
    let rest: Vec<String> = arguments.collect();
    let outcome = match name.as_str() {
        "bench" => bench::run(&rest, &cancel),
        "demo" => demo::run(&rest, &cancel),
        "test" => test::run(&rest, &cancel),
        "tidy" => tidy::run(&rest, &cancel),
        "lab" => lab::door::run(&rest, &cancel),
        "help" | "--help" | "-h" => help(),
        other => Err(unknown(other)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error),
    }
}

fn help() -> Result<()> {
    print!("{HELP}");
    Ok(())
}

fn unknown(name: &str) -> Error {
    Error::invalid(
        "xtask.command.unknown",
        format!("there is no command \u{201c}{name}\u{201d}"),
    )
    .hint("type `cargo xtask help` for the list")
}

fn complain(error: &Error) -> ExitCode {
    eprintln!("error: {error}");
    if let Some(hint) = error.hint_text() {
        eprintln!("  what to do: {hint}");
    }
    eprintln!("  code: {}", error.code());
    ExitCode::from(error.kind().exit_code())
}
