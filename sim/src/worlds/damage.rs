//! Bytes change behind the store's back.
//!
//! Knows: each file removed, emptied, cut short, zeroed in part, with a bit flipped or swapped with
//! another; and a disk that says it stored what it did not.
//! Refuses to know: what can be healed. Nothing may be silently wrong, and no single file may keep
//! the others from being restored.

use super::{Prepared, Tally, mix, prepare};
use crate::disk::{Call, Fault, Outcome, SimDisk};
use crate::history::{self, Command, Ground};
use crate::oracle::{Complaint, Oracle, Questions, judge, judge_damaged};
use base::files::Files;
use base::random::SeededRandom;

#[derive(Clone, Copy, Debug)]
enum Damage {
    Removed,
    Emptied,
    Halved,
    OneByteShort,
    Zeroed,
    SectorZeroed,
    BitFlipped,
    Grown,
}

const DAMAGES: [Damage; 8] = [
    Damage::Removed,
    Damage::Emptied,
    Damage::Halved,
    Damage::OneByteShort,
    Damage::Zeroed,
    Damage::SectorZeroed,
    Damage::BitFlipped,
    Damage::Grown,
];

/// Damages each file of a repository in each way; bits and sectors at `samples` random places.
pub fn damages(ground: &Ground, samples: u64) -> Tally {
    let commands = [
        Command::Backup(0),
        Command::Backup(1),
        Command::Backup(2),
        Command::Delete(1),
    ];
    let prepared = match prepare(ground, &commands) {
        Ok(prepared) => prepared,
        Err(error) => return Tally::broken("preparing", &error),
    };
    let mut tally = Tally::default();
    for (number, path) in prepared.disk.files().into_iter().enumerate() {
        for damage in DAMAGES {
            let times = match damage {
                Damage::BitFlipped | Damage::SectorZeroed => samples,
                _ => 1,
            };
            for sample in 0..times {
                let seed = mix(&[ground.seed, number as u64, damage as u64, sample]);
                let disk = prepared.disk.crash(Outcome::Everything);
                let verdict = one(ground, &prepared, &disk, &path, damage, seed);
                let state = || format!("{path} {damage:?}, sample {sample}");
                if !tally.count(&disk, state, verdict) {
                    return tally;
                }
            }
        }
    }
    tally
}

fn one(
    ground: &Ground,
    prepared: &Prepared,
    disk: &SimDisk,
    path: &str,
    damage: Damage,
    seed: u64,
) -> Result<(), Complaint> {
    disk.note(format!("damage: {path} {damage:?}"));
    inflict(disk, path, damage, seed);
    if ground.engine.can_do_without(path) {
        let next = prepared.expected.keys().max().copied().unwrap_or(0);
        // What verify says is not asked: copies may still be damaged.
        let questions = Questions {
            verify: false,
            ..Questions::ALL
        };
        return judge(ground, disk, &prepared.expected, next, questions);
    }
    let loss = judge_damaged(ground, disk, &prepared.expected)?;
    // A record that was removed whole looks like a deleted point: nobody can see that it is missing.
    let absent = loss.absent > 0 && !matches!(damage, Damage::Removed);
    if loss.unreadable > 0 || absent {
        let process = ground.process(disk);
        let seen = ground
            .engine
            .verify(&process)
            .map_or(true, |wrong| !wrong.is_empty());
        if !seen {
            return Err(Complaint::new(
                Oracle::Verify,
                "a point is lost and verify sees nothing",
            ));
        }
    }
    Ok(())
}

fn inflict(disk: &SimDisk, path: &str, damage: Damage, seed: u64) {
    let random = SeededRandom::new(seed);
    if matches!(damage, Damage::Removed) {
        if let Ok(path) = base::files::Path::new(path) {
            // The path was listed a moment ago; nothing else removes files here.
            let _ = disk.process().remove(&path);
        }
        return;
    }
    disk.damage(path, |bytes| {
        let length = bytes.len();
        let pick = |below: usize| usize::try_from(random.below(below as u64)).unwrap_or(0);
        match damage {
            Damage::Removed => {}
            Damage::Emptied => bytes.clear(),
            Damage::Halved => bytes.truncate(length / 2),
            Damage::OneByteShort => bytes.truncate(length.saturating_sub(1)),
            Damage::Zeroed => bytes.fill(0),
            Damage::SectorZeroed => {
                let at = pick(length.div_ceil(512)) * 512;
                let end = (at + 512).min(length);
                bytes[at.min(end)..end].fill(0);
            }
            Damage::BitFlipped => {
                let at = pick(length);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
            Damage::Grown => bytes.extend_from_slice(&[0xa5; 100]),
        }
    });
}

/// A disk that says yes to one append in `one_in` and forgets it, while backups run. After the next
/// start every point restores bit for bit or says that it cannot.
pub fn phantoms(ground: &Ground, rounds: u64, one_in: u64) -> Tally {
    let mut tally = Tally::default();
    for round in 0..rounds {
        let prepared = match prepare(ground, &[Command::Backup(0)]) {
            Ok(prepared) => prepared,
            Err(error) => return Tally::broken("preparing", &error),
        };
        let disk = prepared.disk.crash(Outcome::Everything);
        let seed = mix(&[ground.seed, round]);
        disk.inject_rate(&[Call::Append], one_in, Fault::Phantom, seed);
        let steps = history::run(ground, &disk, &[Command::Backup(1), Command::Backup(2)]);
        let expected = history::expected(&prepared.expected, &steps, disk.events_logged());
        let found = disk.crash(Outcome::Nothing);
        let verdict = judge_damaged(ground, &found, &expected).map(|_| ());
        if !tally.count(&found, || format!("phantom writes, round {round}"), verdict) {
            break;
        }
    }
    tally
}
