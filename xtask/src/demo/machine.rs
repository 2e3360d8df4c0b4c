//! The story of a running virtual machine.
//!
//! Knows: the order of things: full backup, change, incremental backup, restore of both points,
//! boot of the restored machine, proof.
//! Refuses to know: how any step is done.

use super::program::{Figures, Point, Site};
use super::table::{self, Row};
use crate::digest;
use crate::lab::agent::Agent;
use crate::lab::export::Watch;
use crate::lab::guest::Guest;
use crate::lab::{Lab, PREFIX};
use crate::step::{Steps, detail, said};
use crate::{need, workspace};
use base::cancel::Cancel;
use base::digest::Digest;
use base::{Error, Kind, Result};
use std::path::{Path, PathBuf};
use std::time::Duration;

const GUEST: &str = "demo";
const JOB: &str = "demo";
const REPOSITORY: &str = "vault";
/// What is written inside the guest between the two backups: 64 MiB in one new file, and a small
/// change in an old one.
const CHANGE: &str = "mkdir -p /demo/new && head -c 67108864 /dev/urandom > /demo/new/invoice.bin \
                      && echo 'changed on day two' >> /demo/web-0.log && sync";
const PROOF: &str = "cd /demo && sha256sum new/invoice.bin web-0.log photo-00.jpg table-0.db";

/// A point with what is known of its backup.
struct Chapter {
    title: &'static str,
    figures: Figures,
    point: Point,
    exported: Digest,
    restored: Option<(Digest, Duration)>,
}

/// Tells it. `program` is a built `backstay`; without it one is built.
pub fn tell(program: Option<&Path>, keep: bool, cancel: &Cancel) -> Result<()> {
    let mut steps = Steps::new(12);
    steps.run("what this machine lacks", || {
        need::install(&[need::BUILD, need::IMAGES, need::HYPERVISOR], cancel)
    })?;
    let program = steps.run("the program `backstay`", || {
        workspace::program(program, cancel)
    })?;
    if !need::is_root() {
        // What is built is built as this user; only the hypervisor wants the administrator.
        let program = program.to_string_lossy();
        let mut words = vec!["demo", "--program", &program];
        words.extend(keep.then_some("--keep"));
        return need::again_as_root(&words, cancel);
    }
    let lab = steps.run("hypervisor", || Lab::up(cancel))?;
    let guest = steps.run("a guest: Debian's kernel, ext4 root, guest agent", || {
        let guest = Guest::make(&lab, GUEST, cancel)?;
        guest.start(cancel)?;
        Ok(guest)
    })?;
    let site = steps.run("backstay up, a repository and a job", || {
        let site = Site::up(&program, &lab.scratch("site")?, lab.mark(), cancel)?;
        site.create_repository(REPOSITORY, &repository(&lab)?, cancel)?;
        site.create_machine_job(JOB, guest.name(), REPOSITORY, cancel)?;
        Ok(site)
    })?;
    let chapters = back_up_twice_and_restore(&mut steps, &lab, &guest, &site, cancel)?;

    println!("\n{}", summary(&chapters));
    println!("everything took {}", steps.elapsed());
    expect(
        chapters.iter().all(equal),
        "a restored disk differs from what the hypervisor exported",
    )?;
    what_next(&lab, &site, keep);
    if keep {
        site.stay_up();
        lab.stay_up();
        return Ok(());
    }
    drop(site);
    lab.down()
}

/// The story itself, on a guest that runs.
fn back_up_twice_and_restore(
    steps: &mut Steps,
    lab: &Lab,
    guest: &Guest<'_>,
    site: &Site,
    cancel: &Cancel,
) -> Result<[Chapter; 2]> {
    let mut full = steps.run("full backup of the running guest", || {
        back_up("full", lab, guest, site, cancel)
    })?;
    let proof = steps.run("writing files inside the guest", || {
        guest.agent().run(CHANGE, cancel)?;
        let proof = guest.agent().run(PROOF, cancel)?;
        let files = proof.lines().count();
        detail(format!(
            "64 MiB in one file, some bytes in another; {files} digests noted"
        ));
        Ok(proof)
    })?;
    let mut incremental = steps.run("incremental backup", || {
        back_up("incremental", lab, guest, site, cancel)
    })?;
    let restored = steps.run("restoring both points as new machines", || {
        restore(&mut full, lab, site, cancel)?;
        restore(&mut incremental, lab, site, cancel)
    })?;
    steps.run(
        "booting the restored machine and looking for the files",
        || {
            lab.virsh().call(&["start", &restored], cancel)?;
            let agent = Agent::of(lab.virsh(), &restored);
            detail(format!(
                "{restored} answers after {}",
                said(agent.wait(cancel)?)
            ));
            let found = agent.run(PROOF, cancel)?;
            expect(
                found == proof,
                "the files in the restored machine differ from those backed up",
            )?;
            detail(format!(
                "all {} files have the digests noted before",
                found.lines().count()
            ));
            Ok(())
        },
    )?;
    steps.run("verifying every stored byte", || {
        site.verify(REPOSITORY, cancel)
    })?;
    steps.run(
        "the same disk by `backstay client`, without server or database",
        || {
            let file = lab.scratch("exports")?.join("client.raw");
            site.extract(&repository(lab)?, &incremental.point, &file, cancel)?;
            let digest = digest::of_raw(&file, cancel)?;
            let _ = std::fs::remove_file(&file);
            expect(
                digest == incremental.exported,
                "what the client extracted differs from what the hypervisor exported",
            )
        },
    )?;
    Ok([full, incremental])
}

fn repository(lab: &Lab) -> Result<PathBuf> {
    Ok(lab.scratch("repository")?.join(REPOSITORY))
}

/// Runs the job while an independent client copies the same export.
fn back_up(
    title: &'static str,
    lab: &Lab,
    guest: &Guest<'_>,
    site: &Site,
    cancel: &Cancel,
) -> Result<Chapter> {
    let file = lab.scratch("exports")?.join(format!("{title}.raw"));
    let watch = Watch::begin(lab.virsh(), guest.name(), site.mark(), &file, cancel)?;
    let mut figures = site.run_job(JOB, cancel)?;
    let taken = watch.end()?;
    // The program stood still for the comparison; that is not its time.
    figures.time = figures.time.saturating_sub(taken.held);
    let exported = digest::of_raw(&taken.file, cancel)?;
    let _ = std::fs::remove_file(&taken.file);
    let point = site.points(guest.name(), cancel)?.pop().ok_or_else(|| {
        Error::new(
            Kind::Bug,
            "xtask.demo.point",
            "the run ended well and made no point",
        )
    })?;
    Ok(Chapter {
        title,
        figures,
        point,
        exported,
        restored: None,
    })
}

/// Restores a point as a new machine and digests its disk before it ever runs.
fn restore(chapter: &mut Chapter, lab: &Lab, site: &Site, cancel: &Cancel) -> Result<String> {
    let name = format!("{PREFIX}restored-{}", chapter.title);
    let folder = lab.scratch(&format!("restored-{}", chapter.title))?;
    let time = site.restore_machine(&chapter.point, &name, &folder, cancel)?;
    let disk = first_disk(lab, &name, cancel)?;
    let digest = digest::of_image(&disk, &lab.scratch("exports")?, cancel)?;
    chapter.restored = Some((digest, time));
    Ok(name)
}

/// The file of a machine's first disk, as the hypervisor says it.
fn first_disk(lab: &Lab, machine: &str, cancel: &Cancel) -> Result<PathBuf> {
    let list = lab
        .virsh()
        .call(&["domblklist", machine, "--details"], cancel)?;
    let disk = list.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["file", "disk", _, path] => Some(PathBuf::from(path)),
            _ => None,
        }
    });
    disk.ok_or_else(|| {
        Error::new(
            Kind::NotFound,
            "xtask.demo.disk",
            format!("{machine} has no disk in a file"),
        )
    })
}

fn equal(chapter: &Chapter) -> bool {
    chapter
        .restored
        .as_ref()
        .is_some_and(|(digest, _)| *digest == chapter.exported)
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
                    table::bytes(figures.changed),
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
        "changed",
        "transferred",
        "stored",
        "seconds",
        "restore s",
        "digests equal",
    ];
    let mut text = table::lay_out(&headings, &rows);
    text.push_str(
        "\n  digests equal: BLAKE3 over all bytes of the restored disk, read by qemu-img before the\n  \
         machine ever ran, and of the export that the hypervisor opened for that checkpoint, copied\n  \
         by nbdcopy while Backstay was held still.\n",
    );
    text
}

fn what_next(lab: &Lab, site: &Site, keep: bool) {
    if keep {
        println!("\nEverything is still up. Try:");
        for words in ["session list", "point list", "repository list"] {
            println!("  {} {words}", site.prompt());
        }
        println!(
            "  {}",
            site.client_prompt(&lab.folder().join("run/repository").join(REPOSITORY))
        );
        println!("  virsh -c qemu:///system list --all");
        println!(
            "  cargo xtask lab down     # removes all of it ({})",
            lab.folder().display()
        );
    } else {
        println!("\nWhat to type next:");
        println!(
            "  cargo xtask demo --keep          # the same, and everything stays up to play with"
        );
        println!(
            "  cargo xtask demo --image FILE    # with a disk image of your own, no hypervisor"
        );
        println!("  {} --help", site.program().display());
    }
}

fn expect(so: bool, otherwise: &str) -> Result<()> {
    if so {
        Ok(())
    } else {
        Err(Error::new(Kind::Corrupt, "xtask.demo.differs", otherwise))
    }
}
