//! `cargo xtask lab`: the lab by hand, for whoever develops against a real hypervisor.
//!
//! Knows: the words up, down, run, freeze, restart and check.
//! Refuses to know: how the lab does them.

use super::Lab;
use super::guest::Guest;
use crate::need;
use crate::step::{Steps, detail};
use base::cancel::Cancel;
use base::{Error, Kind, Result};

const GUEST: &str = "guest";

/// `cargo xtask lab up | down | run COMMAND | restart | check`.
pub fn run(arguments: &[String], cancel: &Cancel) -> Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
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
pub fn check(cancel: &Cancel) -> Result<()> {
    let mut steps = Steps::new(6);
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
    steps.run("restart; the file is still there", || {
        guest.restart(cancel)?;
        let again = agent.run("sha256sum /demo/new", cancel)?;
        expect(again == digest, "the file changed over a restart")
    })?;
    lab.down()?;
    println!("\nthe lab works, and is taken down again");
    Ok(())
}

fn expect(so: bool, otherwise: &str) -> Result<()> {
    if so {
        Ok(())
    } else {
        Err(Error::new(Kind::Invalid, "xtask.lab.check", otherwise))
    }
}
