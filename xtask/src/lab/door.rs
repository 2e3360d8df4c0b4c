//! `cargo xtask lab`: the lab by hand, for whoever develops against a real hypervisor.
//!
//! Knows: the words up, down, run, freeze, restart and check.
//! Refuses to know: how the lab does them.

use super::Lab;
use super::export::Watch;
use super::guest::Guest;
use crate::command::Run;
use crate::marked::Mark;
use crate::step::{Steps, detail, said};
use crate::{digest, need};
use base::cancel::Cancel;
use base::{Error, Kind, Result};

const GUEST: &str = "guest";

/// `cargo xtask lab up | down | run COMMAND | restart | check`.
pub fn run(arguments: &[String], cancel: &Cancel) -> Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if !need::is_root() {
        let words: Vec<&str> = ["lab"].into_iter().chain(words).collect();
        return need::again_as_root(&words, cancel);
    }
    match words.as_slice() {
        ["up"] => up(cancel),
        ["down"] => Lab::enter(cancel)?.down(),
        ["run", command] => {
            let lab = Lab::enter(cancel)?;
            println!(
                "{}",
                Guest::known(&lab, GUEST)?.agent().run(command, cancel)?
            );
            Ok(())
        }
        ["restart"] => Guest::known(&Lab::enter(cancel)?, GUEST)?.restart(cancel),
        ["check"] => check(cancel),
        _ => Err(Error::invalid(
            "xtask.lab.option",
            "the lab's words: up, down, run, restart, check",
        )
        .hint("type `cargo xtask help`")),
    }
}

fn up(cancel: &Cancel) -> Result<()> {
    need::install(&[need::IMAGES, need::HYPERVISOR], cancel)?;
    let lab = Lab::up(cancel)?;
    let guest = Guest::make(&lab, GUEST, cancel)?;
    guest.start(cancel)?;
    println!("{} is up in {}", guest.name(), lab.folder().display());
    lab.stay_up();
    Ok(())
}

/// Proves that the lab can do what demonstrations and tests need of it.
fn check(cancel: &Cancel) -> Result<()> {
    let mut steps = Steps::new(7);
    steps.run("what the lab needs", || {
        need::install(&[need::IMAGES, need::HYPERVISOR], cancel)
    })?;
    let lab = steps.run("hypervisor", || Lab::up(cancel))?;
    let guest = steps.run("a guest with Debian's kernel on an ext4 root", || {
        let guest = Guest::make(&lab, GUEST, cancel)?;
        guest.start(cancel)?;
        detail(
            guest
                .agent()
                .run("uname -rv; mount | grep ' / '; df -h / | tail -1", cancel)?,
        );
        Ok(guest)
    })?;
    let agent = guest.agent();
    let digest = steps.run("writing inside the guest", || {
        agent.run("head -c 1000000 /dev/urandom > /demo/new && sync", cancel)?;
        agent.run("sha256sum /demo/new", cancel)
    })?;
    steps.run("freeze and thaw", || {
        let frozen = agent.freeze(cancel)?;
        let is_frozen = agent.is_frozen(cancel)?;
        let thawed = agent.thaw(cancel)?;
        expect(
            frozen >= 1 && is_frozen && thawed >= 1,
            "the file systems did not freeze and thaw",
        )
    })?;
    steps.run("a backup's export, copied from outside", || {
        export(&lab, &guest, cancel)
    })?;
    steps.run("restart; the file is still there", || {
        guest.restart(cancel)?;
        let again = agent.run("sha256sum /demo/new", cancel)?;
        expect(again == digest, "the file changed over a restart")
    })?;
    lab.down()?;
    println!("\nthe lab works, and is taken down again");
    Ok(())
}

/// A backup is noticed as it begins, and its export reads the same twice while the guest writes.
fn export(lab: &Lab, guest: &Guest<'_>, cancel: &Cancel) -> Result<()> {
    let folder = lab.open_scratch("export")?;
    let nobody = Mark::of(&folder);
    let watch = Watch::begin(
        lab.virsh(),
        guest.name(),
        &nobody,
        &folder.join("taken.raw"),
        cancel,
    )?;
    let socket = folder.join("backup.sock");
    let description = folder.join("backup.xml");
    let xml = format!(
        "<domainbackup mode='pull'>\n<server transport='unix' socket='{}'/>\n<disks>\n\
         <disk name='vda' backup='yes' type='file' exportname='vda'><scratch file='{}'/></disk>\n\
         </disks>\n</domainbackup>\n",
        socket.display(),
        folder.join("vda.scratch").display()
    );
    std::fs::write(&description, xml).map_err(|error| Error::io("describing a backup", error))?;
    lab.virsh().call(
        &["backup-begin", guest.name(), &description.to_string_lossy()],
        cancel,
    )?;
    let taken = watch.end()?;
    guest
        .agent()
        .run("echo later > /demo/later && sync", cancel)?;
    let again = folder.join("again.raw");
    Run::new("nbdcopy")
        .arg(format!("nbd+unix:///vda?socket={}", socket.display()))
        .arg(&again)
        .capture(cancel)?;
    lab.virsh().call(&["domjobabort", guest.name()], cancel)?;
    let [one, two] = [
        digest::of_raw(&taken.file, cancel)?,
        digest::of_raw(&again, cancel)?,
    ];
    detail(format!(
        "BLAKE3 {} twice, the first in {}",
        one.short(),
        said(taken.held)
    ));
    expect(one == two, "the export changed while it was open")
}

fn expect(so: bool, otherwise: &str) -> Result<()> {
    if so {
        Ok(())
    } else {
        Err(Error::new(Kind::Invalid, "xtask.lab.check", otherwise))
    }
}
