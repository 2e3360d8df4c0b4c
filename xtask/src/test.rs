//! `cargo xtask test`: everything the main line must pass.
//!
//! Knows: the steps, their order, and how the whole is judged: all steps run, so that one report
//! names every fault, and nothing that was skipped counts as passed.
//! Refuses to know: what any single test does.

use crate::command::Run;
use crate::step::{Steps, detail};
use crate::{demo, elf, need, tidy, workspace};
use base::cancel::Cancel;
use base::{Error, Kind, Result};
use std::io::IsTerminal;
use std::path::Path;

type Work = fn(&Cancel) -> Result<()>;

const STEPS: &[(&str, &str, Work)] = &[
    ("install", "install what is missing", install),
    ("fmt", "formatting", formatting),
    ("clippy", "lints", lints),
    ("tidy", "house rules", tidy::check),
    ("tests", "tests", every_test),
    ("static", "one static program", one_static_program),
    (
        "demo",
        "the whole, with a real guest and real files",
        the_whole,
    ),
];

/// Runs the steps. Errors when an option is unknown or a step failed.
pub fn run(arguments: &[String], cancel: &Cancel) -> Result<()> {
    let chosen = choose(arguments)?;
    let mut steps = Steps::new(chosen.len());
    let mut failed = Vec::new();
    for (name, what, work) in &chosen {
        cancel.check()?;
        if let Err(error) = steps.run(what, || work(cancel)) {
            cancel.check()?;
            eprintln!("error: {error}");
            if let Some(hint) = error.hint_text() {
                eprintln!("  what to do: {hint}");
            }
            failed.push(*name);
            if *name == "install" {
                // Whatever follows would fail for want of the same packages.
                break;
            }
        }
    }
    println!();
    if failed.is_empty() {
        println!("all {} steps passed in {}", chosen.len(), steps.elapsed());
        return Ok(());
    }
    Err(Error::new(
        Kind::Invalid,
        "xtask.test.failed",
        format!(
            "after {}, these steps failed: {}",
            steps.elapsed(),
            failed.join(", ")
        ),
    )
    .hint("repeat one with `cargo xtask test --only STEP`"))
}

fn choose(arguments: &[String]) -> Result<Vec<(&'static str, &'static str, Work)>> {
    let mut chosen: Vec<_> = STEPS.to_vec();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--no-install" => chosen.retain(|(name, ..)| *name != "install"),
            "--only" => {
                let wanted = arguments.next().map_or("", String::as_str);
                chosen.retain(|(name, ..)| *name == wanted);
                if chosen.is_empty() {
                    return Err(Error::invalid(
                        "xtask.test.step",
                        format!("there is no step \u{201c}{wanted}\u{201d}"),
                    )
                    .hint("steps: install, fmt, clippy, tidy, tests, static, demo"));
                }
            }
            other => {
                return Err(Error::invalid(
                    "xtask.test.option",
                    format!("`cargo xtask test` has no option \u{201c}{other}\u{201d}"),
                )
                .hint("type `cargo xtask help`"));
            }
        }
    }
    Ok(chosen)
}

fn install(cancel: &Cancel) -> Result<()> {
    need::install(
        &[
            need::BUILD,
            need::IMAGES,
            need::HYPERVISOR,
            need::YARDSTICKS,
            need::TESTS,
        ],
        cancel,
    )?;
    for (tool, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        let there = Run::cargo()
            .args([tool, "--version"])
            .try_capture(cancel)?
            .status
            .success();
        if !there {
            detail(format!("{component}: a part of the Rust toolchain"));
            Run::new("rustup")
                .args(["component", "add", component])
                .within(workspace::root())
                .hint("install the component of your Rust toolchain by hand")
                .show(cancel)?;
        }
    }
    Ok(())
}

fn formatting(cancel: &Cancel) -> Result<()> {
    Run::cargo()
        .args(["fmt", "--all", "--check"])
        .hint("`cargo fmt --all` puts it right")
        .show(cancel)
}

fn lints(cancel: &Cancel) -> Result<()> {
    Run::cargo()
        .args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--quiet",
        ])
        .args(["--", "-D", "warnings"])
        .hint("the lints and why they are there: CONTRIBUTING.md")
        .show(cancel)
}

/// What the summary lines of the test programs add up to.
#[derive(Default, Debug, PartialEq, Eq)]
struct Count {
    programs: u64,
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Count {
    /// Adds a line such as `test result: ok. 5 passed; 0 failed; 1 ignored; …`; others are nothing.
    fn add(&mut self, line: &str) {
        let Some(rest) = line.trim_start().strip_prefix("test result: ") else {
            return;
        };
        self.programs += 1;
        for part in rest.split([';', '.']) {
            let mut words = part.split_whitespace();
            let (Some(Ok(number)), Some(word)) =
                (words.next().map(str::parse::<u64>), words.next())
            else {
                continue;
            };
            match word {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

fn every_test(cancel: &Cancel) -> Result<()> {
    let color = if std::io::stdout().is_terminal() {
        "always"
    } else {
        "never"
    };
    let mut count = Count::default();
    let status = Run::cargo()
        .args([
            "test",
            "--workspace",
            "--locked",
            "--no-fail-fast",
            "--color",
            color,
        ])
        .env("RUST_BACKTRACE", "1")
        .lines(cancel, |line| {
            println!("{line}");
            count.add(&without_color(line));
        })?;
    detail(format!(
        "{} tests passed and {} failed in {} programs",
        count.passed, count.failed, count.programs
    ));
    if !status.success() || count.failed > 0 {
        return Err(Error::new(Kind::Invalid, "xtask.test.red", "tests failed")
            .hint("their names stand above"));
    }
    let inner = tidy::inner_tests(cancel)? as u64;
    if count.ignored > inner {
        return Err(Error::new(
            Kind::Invalid,
            "xtask.test.ignored",
            format!("{} tests were left out", count.ignored - inner),
        )
        .hint("a test that cannot run must fail or not exist: see docs/testing.md"));
    }
    Ok(())
}

/// The line without the escape sequences that colour it.
fn without_color(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            for inside in characters.by_ref() {
                if inside.is_ascii_alphabetic() {
                    break;
                }
            }
        } else {
            plain.push(character);
        }
    }
    plain
}

/// Both stories of the demonstration with the program as it is built for development. They fail
/// unless every restored byte equals its source.
fn the_whole(cancel: &Cancel) -> Result<()> {
    let program = workspace::build_program(false, cancel)?
        .to_string_lossy()
        .into_owned();
    let words = |words: &[&str]| {
        words
            .iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    demo::run(&words(&["--program", &program]), cancel)?;
    let image = workspace::root().join("target/test-image.qcow2");
    make_image(&image, cancel)?;
    let told = demo::run(
        &words(&["--program", &program, "--image", &image.to_string_lossy()]),
        cancel,
    );
    let _ = std::fs::remove_file(&image);
    told
}

/// A disk image with some content: this very program.
fn make_image(image: &Path, cancel: &Cancel) -> Result<()> {
    let raw = image.with_extension("raw");
    let program = std::env::current_exe().map_err(|error| Error::io("finding ourselves", error))?;
    std::fs::copy(&program, &raw)
        .and_then(|length| {
            let length = (length.next_multiple_of(512)).max(16 << 20);
            std::fs::File::options()
                .write(true)
                .open(&raw)?
                .set_len(length)
        })
        .map_err(|error| Error::io("making a disk image", error))?;
    let converted = Run::new("qemu-img")
        .args(["convert", "-f", "raw", "-O", "qcow2"])
        .args([&raw, image])
        .capture(cancel);
    let _ = std::fs::remove_file(&raw);
    converted.map(drop)
}

fn one_static_program(cancel: &Cancel) -> Result<()> {
    let program = workspace::build_program(false, cancel)?;
    elf::check_static(&program)?;
    detail(format!(
        "{} asks for no library and no loader",
        program.display()
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_add_up() {
        let mut count = Count::default();
        count.add("test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out");
        count.add("  test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured");
        count.add("test store::tests::result: ok");
        assert_eq!(
            count,
            Count {
                programs: 2,
                passed: 7,
                failed: 3,
                ignored: 1
            }
        );
    }

    #[test]
    fn colour_is_taken_off() {
        let line = "test result: \u{1b}[32mok\u{1b}(B\u{1b}[m. 5 passed; 0 failed; 0 ignored";
        let mut count = Count::default();
        count.add(&without_color(line));
        assert_eq!(count.passed, 5);
    }

    #[test]
    fn options_choose_steps_and_nonsense_is_refused() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(choose(&[]).unwrap().len(), STEPS.len());
        assert_eq!(
            choose(&words("--no-install")).unwrap().len(),
            STEPS.len() - 1
        );
        assert_eq!(choose(&words("--only tidy")).unwrap()[0].0, "tidy");
        assert_eq!(
            choose(&words("--only nothing")).err().unwrap().code(),
            "xtask.test.step"
        );
        assert_eq!(
            choose(&words("--fast")).err().unwrap().code(),
            "xtask.test.option"
        );
    }
}
