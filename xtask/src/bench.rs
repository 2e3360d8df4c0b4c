//! `cargo xtask bench`: Backstay beside plain tools, on the same machine, in turn.
//!
//! Knows: which operations are measured, that tools take turns within a round, and that only ratios
//! within one round are compared: the machine's neighbours change, the ratio hardly does.
//! Refuses to know: how images are made and how one run is measured.

mod backstay;
mod images;
mod measure;
mod report;
mod tree;

use crate::command::Run;
use crate::demo::program::Site;
use crate::marked::Mark;
use crate::step::{Steps, detail};
use crate::{need, workspace};
use base::cancel::Cancel;
use base::{Error, Kind, Result};
use images::Images;
use measure::Cost;
use report::Report;
use std::path::{Path, PathBuf};

/// What was asked for.
struct Options {
    size_mib: u64,
    rounds: usize,
    program: Option<PathBuf>,
}

/// `cargo xtask bench [--size MIB] [--rounds N] [--program FILE]`.
pub fn run(arguments: &[String], cancel: &Cancel) -> Result<()> {
    let options = parse(arguments)?;
    let mut steps = Steps::new(3 + options.rounds);
    steps.run("what this machine lacks", || {
        need::install(&[need::BUILD, need::IMAGES, need::YARDSTICKS], cancel)
    })?;
    let program = steps.run("the program `backstay`", || {
        workspace::program(options.program.as_deref(), cancel)
    })?;
    let folder = workspace::root().join("target/bench");
    let images = steps.run("images", || Images::get(&folder, options.size_mib, cancel))?;
    let mut report = Report::default();
    for round in 1..=options.rounds {
        steps.run(&format!("round {round}"), || {
            let scratch = fresh(&folder.join("run"))?;
            let outcome = one_round(&images, &program, &scratch, round == 1, &mut report, cancel);
            let _ = std::fs::remove_dir_all(&scratch);
            outcome
        })?;
    }
    println!("\n{}", report.text());
    println!("everything took {}", steps.elapsed());
    Ok(())
}

fn parse(arguments: &[String]) -> Result<Options> {
    let mut options = Options {
        size_mib: 2_048,
        rounds: 3,
        program: None,
    };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let value = arguments.next();
        let number = |from: u64, to: u64| {
            value
                .and_then(|text| text.parse::<u64>().ok())
                .filter(|n| (from..=to).contains(n))
        };
        let wrong = || {
            Error::invalid(
                "xtask.bench.option",
                format!("{argument} is no option, or lacks its value"),
            )
            .hint("type `cargo xtask help`")
        };
        match argument.as_str() {
            "--size" => options.size_mib = number(256, 1 << 20).ok_or_else(wrong)?,
            "--rounds" => {
                let rounds = number(1, 99).ok_or_else(wrong)?;
                options.rounds = usize::try_from(rounds).map_err(|_| wrong())?;
            }
            "--program" => options.program = Some(value.map(PathBuf::from).ok_or_else(wrong)?),
            _ => return Err(wrong()),
        }
    }
    Ok(options)
}

fn fresh(folder: &Path) -> Result<PathBuf> {
    // What an earlier run that was killed left behind.
    Mark::of(folder).end();
    let _ = std::fs::remove_dir_all(folder);
    crate::lab::make_folder(folder)?;
    Ok(folder.to_owned())
}

/// Every tool once, operation by operation. In the first round what was restored is compared.
fn one_round(
    images: &Images,
    program: &Path,
    scratch: &Path,
    compare: bool,
    report: &mut Report,
    cancel: &Cancel,
) -> Result<()> {
    report.begin_round();
    let [zst, qcow2, copy] = ["a.zst", "a.qcow2", "a.raw"].map(|name| scratch.join(name));
    let site = Site::up(program, &scratch.join("site"), Mark::of(scratch), cancel)?;
    let mut backstay = backstay::Bench::new(&site, scratch, images, cancel)?;

    images::warm(&images.first, cancel)?;
    report.note("full", "backstay", backstay.full(cancel)?);
    report.note("full", "zstd -1", zstd(&images.first, &zst, cancel)?);
    report.note(
        "full",
        "qemu-img -c",
        qemu_img(&images.first, &qcow2, true, cancel)?,
    );
    report.note("full", "cp", cp(&images.first, &copy, cancel)?);

    images::warm(&images.second, cancel)?;
    report.note("re-read", "backstay", backstay.re_read(cancel)?);
    report.note("re-read", "cp", cp(&images.second, &copy, cancel)?);
    let second_zst = scratch.join("b.zst");
    report.note(
        "re-read",
        "zstd -1",
        zstd(&images.second, &second_zst, cancel)?,
    );

    let restored = scratch.join("restored.raw");
    report.note("restore", "backstay", backstay.restore(&restored, cancel)?);
    if compare {
        equal(&restored, &images.second, cancel)?;
        detail("what was restored equals its source");
    }
    let _ = std::fs::remove_file(&restored);
    report.note("restore", "zstd -d", unzstd(&second_zst, &copy, cancel)?);
    report.note(
        "restore",
        "qemu-img",
        qemu_img(&qcow2, &copy, false, cancel)?,
    );

    images::warm(&images.other, cancel)?;
    report.note("second machine", "backstay", backstay.other(cancel)?);
    report.note(
        "second machine",
        "zstd -1",
        zstd(&images.other, &scratch.join("c.zst"), cancel)?,
    );
    Ok(())
}

fn zstd(image: &Path, to: &Path, cancel: &Cancel) -> Result<Cost> {
    let run = Run::new("zstd")
        .args(["-1", "-T2", "-q", "-f", "-o"])
        .args([to, image]);
    measure::run(run, cancel)?.storing(to)
}

fn unzstd(from: &Path, to: &Path, cancel: &Cancel) -> Result<Cost> {
    let run = Run::new("zstd")
        .args(["-d", "-q", "-f", "--sparse", "-o"])
        .args([to, from]);
    measure::run(run, cancel)
}

fn cp(image: &Path, to: &Path, cancel: &Cancel) -> Result<Cost> {
    let run = Run::new("cp")
        .args(["--sparse=always", "--reflink=never"])
        .args([image, to]);
    measure::run(run, cancel)?.storing(to)
}

fn qemu_img(from: &Path, to: &Path, compressed: bool, cancel: &Cancel) -> Result<Cost> {
    let mut run = Run::new("qemu-img").args(["convert", "-m", "4", "-W"]);
    run = if compressed {
        run.args([
            "-f",
            "raw",
            "-O",
            "qcow2",
            "-c",
            "-o",
            "compression_type=zstd",
        ])
    } else {
        run.args(["-f", "qcow2", "-O", "raw"])
    };
    let cost = measure::run(run.args([from, to]), cancel)?;
    if compressed {
        cost.storing(to)
    } else {
        Ok(cost)
    }
}

fn equal(one: &Path, two: &Path, cancel: &Cancel) -> Result<()> {
    let said = Run::new("cmp").args([one, two]).try_capture(cancel)?;
    if said.status.success() {
        return Ok(());
    }
    Err(Error::new(
        Kind::Corrupt,
        "xtask.bench.differs",
        format!("what was restored differs from its source: {}", said.text()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_have_bounds() {
        let parse = |text: &str| {
            parse(
                &text
                    .split_whitespace()
                    .map(str::to_owned)
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(parse("--size 512 --rounds 5").unwrap().rounds, 5);
        for wrong in ["--size", "--size 1", "--rounds 0", "--rounds x", "--fast 1"] {
            assert_eq!(
                parse(wrong).err().unwrap().code(),
                "xtask.bench.option",
                "{wrong}"
            );
        }
    }
}
