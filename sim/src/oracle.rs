//! The oracles: is what is left of a repository what was promised?
//!
//! Knows: three questions. Does every promised point restore bit for bit? Does every *listed* point?
//! And does a *new* backup, made on what was found, restore after a collect? The third finds what
//! the first two cannot: a block that is there by name and not by content harms only the next
//! backup, which trusts it. Refuses to know: what happened before.

use crate::disk::SimDisk;
use crate::engine::Process;
use crate::history::{Command, Expected, Ground, Standing, label};
use base::Error;
use std::fmt;

/// Which oracle cried.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Oracle {
    /// The repository does not open or list its points.
    Opens,
    /// A promised point is missing or wrong.
    Promised,
    /// A listed point does not restore.
    Listed,
    /// A deleted point is back.
    Deleted,
    /// A new backup, delete or collect does not work.
    Next,
    /// Verify sees damage where there is none, or none where there is.
    Verify,
    /// A command that had to succeed failed, or one that had to fail did not.
    Commands,
}

/// What is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Complaint {
    /// Who cries.
    pub oracle: Oracle,
    /// What about.
    pub what: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.oracle, self.what)
    }
}

impl Complaint {
    /// A complaint.
    pub fn new(oracle: Oracle, what: impl Into<String>) -> Self {
        Self {
            oracle,
            what: what.into(),
        }
    }

    fn error(oracle: Oracle, doing: &str, error: &Error) -> Self {
        Self::new(oracle, format!("{doing}: {error:?}"))
    }
}

/// Which oracles are asked. Tests of the oracles themselves ask fewer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Questions {
    /// Every listed point restores.
    pub listed: bool,
    /// A new backup, then collects, then everything again.
    pub next: bool,
    /// After that, verify finds nothing wrong.
    pub verify: bool,
}

impl Questions {
    /// All of them.
    pub const ALL: Self = Self {
        listed: true,
        next: true,
        verify: true,
    };
}

/// Judges what is on `disk`. `next` is the generation that the new backup stores under a new label.
///
/// # Errors
/// The first complaint.
pub fn judge(
    ground: &Ground,
    disk: &SimDisk,
    expected: &Expected,
    next: u64,
    questions: Questions,
) -> Result<(), Complaint> {
    let process = ground.process(disk);
    points_are_right(ground, &process, expected, questions)?;
    process.files.end();
    if !questions.next {
        return Ok(());
    }
    let after = next_label();
    let bytes = ground.disk(next);
    let process = ground.process(disk);
    disk.note("oracle: a new backup");
    ground
        .engine
        .backup(&process, &after, &bytes)
        .map_err(|error| Complaint::error(Oracle::Next, "a new backup", &error))?;
    process.files.end();
    // Twice: what one collect retires, the next one removes.
    for _ in 0..2 {
        let process = ground.process(disk);
        disk.note("oracle: collect");
        ground
            .run(&process, Command::Collect)
            .map_err(|error| Complaint::error(Oracle::Next, "a new collect", &error))?;
        process.files.end();
    }
    let process = ground.process(disk);
    points_are_right(ground, &process, expected, questions)?;
    new_point_is_right(ground, &process, &after, &bytes)?;
    if !questions.verify {
        return Ok(());
    }
    let wrong = ground
        .engine
        .verify(&process)
        .map_err(|error| Complaint::error(Oracle::Verify, "verify", &error))?;
    match wrong.first() {
        None => Ok(()),
        Some(first) => Err(Complaint::new(Oracle::Verify, format!("verify: {first}"))),
    }
}

fn next_label() -> String {
    "oracle".to_owned()
}

/// Every promised point is listed; every listed point restores to what its label says.
fn points_are_right(
    ground: &Ground,
    process: &Process,
    expected: &Expected,
    questions: Questions,
) -> Result<(), Complaint> {
    let listing = ground
        .engine
        .list(process)
        .map_err(|error| Complaint::error(Oracle::Opens, "listing", &error))?;
    if let (true, Some(first)) = (questions.listed, listing.damaged.first()) {
        return Err(Complaint::new(
            Oracle::Listed,
            format!("damaged without reason: {first}"),
        ));
    }
    for (generation, standing) in expected {
        let label = label(*generation);
        let id = listing.id_of(&label);
        match (standing, id) {
            (Standing::Promised, None) => {
                return Err(Complaint::new(
                    Oracle::Promised,
                    format!("{label} is missing"),
                ));
            }
            (Standing::Gone, Some(_)) => {
                return Err(Complaint::new(Oracle::Deleted, format!("{label} is back")));
            }
            (Standing::Possible, Some(_)) if !questions.listed => {}
            (Standing::Promised | Standing::Possible, Some(id)) => {
                let oracle = match standing {
                    Standing::Promised => Oracle::Promised,
                    _ => Oracle::Listed,
                };
                restores(
                    ground,
                    process,
                    id,
                    &ground.disk(*generation),
                    oracle,
                    &label,
                )?;
            }
            (Standing::Possible | Standing::Gone, None) => {}
        }
    }
    Ok(())
}

fn new_point_is_right(
    ground: &Ground,
    process: &Process,
    label: &str,
    bytes: &[u8],
) -> Result<(), Complaint> {
    let listing = ground
        .engine
        .list(process)
        .map_err(|error| Complaint::error(Oracle::Opens, "listing", &error))?;
    let Some(id) = listing.id_of(label) else {
        return Err(Complaint::new(Oracle::Next, "the new backup is not listed"));
    };
    restores(ground, process, id, bytes, Oracle::Next, label)
}

fn restores(
    ground: &Ground,
    process: &Process,
    id: &str,
    bytes: &[u8],
    oracle: Oracle,
    label: &str,
) -> Result<(), Complaint> {
    let found = ground
        .engine
        .restore(process, id)
        .map_err(|error| Complaint::error(oracle, &format!("restoring {label}"), &error))?;
    if found == bytes {
        return Ok(());
    }
    let at = found.iter().zip(bytes).position(|(a, b)| a != b);
    Err(Complaint::new(
        oracle,
        format!(
            "{label} restores {} bytes of {}, wrong from {at:?}",
            found.len(),
            bytes.len()
        ),
    ))
}

/// Points that a damaged repository cannot restore.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Loss {
    /// Promised points that are not listed any more.
    pub absent: usize,
    /// Listed points that do not restore.
    pub unreadable: usize,
}

/// Judges a repository whose bytes were damaged: it must open, and every point must restore bit for
/// bit or say that it cannot. Counts those that could not.
///
/// # Errors
/// The first complaint: wrong bytes, or a repository that does not open.
pub fn judge_damaged(
    ground: &Ground,
    disk: &SimDisk,
    expected: &Expected,
) -> Result<Loss, Complaint> {
    let process = ground.process(disk);
    let listing = ground
        .engine
        .list(&process)
        .map_err(|error| Complaint::error(Oracle::Opens, "listing", &error))?;
    let mut loss = Loss::default();
    for (generation, standing) in expected {
        let label = label(*generation);
        let Some(id) = listing.id_of(&label) else {
            loss.absent += usize::from(*standing == Standing::Promised);
            continue;
        };
        match ground.engine.restore(&process, id) {
            Err(_) => loss.unreadable += 1,
            Ok(found) if found == *ground.disk(*generation) => {}
            Ok(_) => {
                return Err(Complaint::new(
                    Oracle::Listed,
                    format!("{label}: wrong bytes"),
                ));
            }
        }
    }
    process.files.end();
    Ok(loss)
}
