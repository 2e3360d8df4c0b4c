//! The story of a disk image of the user's own: no hypervisor.
//!
//! Knows: that the user's file is only ever read; all happens to a copy. Refuses to know: formats;
//! `qemu-img` and `qemu-io` stand for everybody else's programs.

use super::program::{Figures, Point, Site};
use super::table::{self, Row};
use crate::command::Run;
use crate::content::{Numbers, file, noise};
use crate::digest;
use crate::lab::make_folder;
use crate::marked::Mark;
use crate::step::{Steps, detail};
use crate::{need, workspace};
use base::cancel::Cancel;
use base::digest::Digest;
use base::{Error, Kind, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

const JOB: &str = "image";
const REPOSITORY: &str = "vault";
/// How much is changed between the two backups: places, and bytes in each.
const PLACES: u64 = 16;
const PLACE_BYTES: usize = 64 << 10;

/// A folder that goes away when dropped.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Chapter {
    title: &'static str,
    figures: Figures,
    source: Digest,
    point: Point,
    restored: Option<(Digest, Duration)>,
}

/// Tells it.
pub fn tell(image: &Path, program: Option<&Path>, cancel: &Cancel) -> Result<()> {
    let mut steps = Steps::new(8);
    steps.run("what this machine lacks", || {
        need::install(&[need::BUILD, need::IMAGES], cancel)
    })?;
    let program = steps.run("the program `backstay`", || {
        workspace::program(program, cancel)
    })?;
    let scratch = scratch(image)?;
    let copy = steps.run("a copy of the image; yours is only read", || {
        copy_image(image, &scratch.0, cancel)
    })?;
    let site = steps.run("backstay up, a repository and a job", || {
        let site = Site::up(
            &program,
            &scratch.0.join("site"),
            Mark::of(&scratch.0),
            cancel,
        )?;
        site.create_repository(REPOSITORY, &scratch.0.join(REPOSITORY), cancel)?;
        site.create_image_job(JOB, &copy.file, REPOSITORY, cancel)?;
        Ok(site)
    })?;
    let mut first = steps.run("full backup", || {
        back_up("full", &copy, &scratch.0, &site, cancel)
    })?;
    steps.run("changing 1 MiB in 16 places of the copy", || {
        change(&copy, &scratch.0, cancel)
    })?;
    let mut second = steps.run("second backup", || {
        back_up("second", &copy, &scratch.0, &site, cancel)
    })?;
    steps.run(
        "restoring both points and verifying every stored byte",
        || {
            restore(&mut first, &scratch.0, &site, cancel)?;
            restore(&mut second, &scratch.0, &site, cancel)?;
            site.verify(REPOSITORY, cancel)
        },
    )?;
    let chapters = [first, second];
    println!("\n{}", summary(&chapters));
    println!("everything took {}", steps.elapsed());
    println!(
        "\nWhat to type next:\n  {} --help",
        site.program().display()
    );
    if chapters.iter().all(equal) {
        return Ok(());
    }
    Err(Error::new(
        Kind::Corrupt,
        "xtask.demo.differs",
        "a restored disk differs from the image it was made of",
    ))
}

/// A folder beside the built programs: images may be larger than `/tmp`.
fn scratch(image: &Path) -> Result<Scratch> {
    if !image.is_file() {
        return Err(Error::new(
            Kind::NotFound,
            "xtask.demo.image",
            format!("there is no image file {}", image.display()),
        ));
    }
    let folder = workspace::root().join("target/demo");
    // What an earlier run that was killed left behind.
    Mark::of(&folder).end();
    let _ = std::fs::remove_dir_all(&folder);
    make_folder(&folder)?;
    Ok(Scratch(folder))
}

struct Copy {
    file: PathBuf,
    format: String,
    bytes: u64,
}

fn copy_image(image: &Path, scratch: &Path, cancel: &Cancel) -> Result<Copy> {
    let name = image.file_name().unwrap_or_default();
    let file = scratch.join(name);
    Run::new("cp")
        .args(["--sparse=always", "--reflink=auto"])
        .args([image, &file])
        .capture(cancel)?;
    let said = Run::new("qemu-img")
        .args(["info", "--output=json"])
        .arg(&file)
        .capture(cancel)?;
    let info: Value = serde_json::from_slice(&said.output).map_err(|error| {
        Error::corrupt(
            "xtask.demo.image",
            "qemu-img described the image in no JSON",
        )
        .caused_by(error)
    })?;
    let format = info["format"].as_str().unwrap_or("raw").to_owned();
    let bytes = info["virtual-size"].as_u64().unwrap_or(0);
    if info["backing-filename"].is_string() {
        return Err(Error::new(
            Kind::Unsupported,
            "xtask.demo.image",
            "the image builds on another one, which a copy would lose",
        )
        .hint("flatten it first: qemu-img convert -O qcow2 IMAGE FLAT.qcow2"));
    }
    if bytes < PLACES * PLACE_BYTES as u64 * 2 {
        return Err(
            Error::invalid("xtask.demo.image", "the image is too small for this story")
                .hint("take one of at least 2 MiB"),
        );
    }
    detail(format!(
        "{format}, {} as a guest sees it",
        table::bytes(bytes)
    ));
    Ok(Copy {
        file,
        format,
        bytes,
    })
}

/// Writes into the copy with QEMU's own tool, at places spread over the disk.
fn change(copy: &Copy, scratch: &Path, cancel: &Cancel) -> Result<()> {
    let mut numbers = Numbers(copy.bytes);
    let step = copy.bytes / PLACES;
    let mut run = Run::new("qemu-io").args(["-f", &copy.format]);
    for place in 0..PLACES {
        let offset = (place * step) & !4_095;
        let content = scratch.join(format!("change-{place}"));
        file(&content, |out| noise(out, &mut numbers, PLACE_BYTES))?;
        run = run.args([
            "-c",
            &format!("write -s {} {offset} {PLACE_BYTES}", content.display()),
        ]);
    }
    let said = run
        .arg("-c")
        .arg("flush")
        .arg(&copy.file)
        .hint("QEMU cannot write this kind of image; convert it to qcow2 and try with that")
        .capture(cancel)?;
    // qemu-io ends well even when a write failed; it says so in words.
    let wrote = said.text().matches("wrote ").count();
    if wrote as u64 == PLACES {
        return Ok(());
    }
    Err(Error::new(
        Kind::Unsupported,
        "xtask.demo.image",
        format!(
            "only {wrote} of {PLACES} places could be written: {}",
            said.complaint()
        ),
    )
    .hint("QEMU cannot write this kind of image; convert it to qcow2 and try with that"))
}

fn back_up(
    title: &'static str,
    copy: &Copy,
    scratch: &Path,
    site: &Site,
    cancel: &Cancel,
) -> Result<Chapter> {
    let figures = site.run_job(JOB, cancel)?;
    let source = digest::of_image(&copy.file, scratch, cancel)?;
    let point = site.points(JOB, cancel)?.pop().ok_or_else(|| {
        Error::new(
            Kind::Bug,
            "xtask.demo.point",
            "the run ended well and made no point",
        )
    })?;
    Ok(Chapter {
        title,
        figures,
        source,
        point,
        restored: None,
    })
}

fn restore(chapter: &mut Chapter, scratch: &Path, site: &Site, cancel: &Cancel) -> Result<()> {
    let file = scratch.join(format!("restored-{}.raw", chapter.title));
    let time = site.restore_disk(&chapter.point, &file, cancel)?;
    chapter.restored = Some((digest::of_raw(&file, cancel)?, time));
    let _ = std::fs::remove_file(&file);
    Ok(())
}

fn equal(chapter: &Chapter) -> bool {
    chapter
        .restored
        .as_ref()
        .is_some_and(|(digest, _)| *digest == chapter.source)
}

fn summary(chapters: &[Chapter]) -> String {
    let rows: Vec<Row> = chapters
        .iter()
        .map(|chapter| {
            let figures = &chapter.figures;
            let restored = chapter.restored.as_ref();
            Row {
                title: chapter.title.to_owned(),
                cells: vec![
                    figures.state.clone(),
                    table::bytes(figures.read),
                    table::bytes(figures.transferred),
                    table::bytes(figures.stored),
                    format!("{:.1}", figures.time.as_secs_f64()),
                    restored.map_or_else(String::new, |r| format!("{:.1}", r.1.as_secs_f64())),
                    if equal(chapter) {
                        "yes".to_owned()
                    } else {
                        "NO".to_owned()
                    },
                ],
            }
        })
        .collect();
    let headings = [
        "result",
        "read",
        "transferred",
        "stored",
        "seconds",
        "restore s",
        "digests equal",
    ];
    let mut text = table::lay_out(&headings, &rows);
    text.push_str(
        "\n  digests equal: BLAKE3 over all bytes of the restored disk and of the image at the time of\n  \
         the backup as qemu-img reads it. An image has no change tracker: the second backup reads all\n  \
         and stores what is new.\n",
    );
    text
}
