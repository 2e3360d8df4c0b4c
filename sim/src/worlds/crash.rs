//! The machine stops, at every call, with every kind of outcome.
//!
//! Knows: how to run a history once and look at each moment of it as it would be found after a
//! crash; and, one storey deeper, crashes of the recovery from a crash.
//! Refuses to know: what a right repository is; the oracles know.

use super::{Tally, mix, prepare};
use crate::disk::{Broken, Moment, Outcome, SimDisk};
use crate::history::{self, Command, Expected, Ground, Standing, Step};
use crate::oracle::{Complaint, Oracle, Questions, judge};
use base::digest::Digest;
use std::collections::BTreeSet;

/// What to crash, and how thoroughly.
#[derive(Clone, Debug)]
pub struct Crashes {
    /// Run before, and all durable.
    pub before: Vec<Command>,
    /// Run and crashed at each call.
    pub commands: Vec<Command>,
    /// Promises that the disk breaks while they run.
    pub broken: Vec<Broken>,
    /// Random outcomes of each moment, besides the regular ones.
    pub random: u64,
    /// How often a state is crashed again while it recovers: one state in so many; 0 for never.
    pub again: u64,
    /// Whether, instead, at each call all processes are killed, others go on, and the machine stops
    /// then: what the dead had not synced is lost only now.
    pub kills: bool,
    /// What to ask.
    pub questions: Questions,
    /// Stops after so many states.
    pub most: u64,
}

impl Crashes {
    /// All outcomes and all questions.
    pub fn of(before: &[Command], commands: &[Command]) -> Self {
        Self {
            before: before.to_vec(),
            commands: commands.to_vec(),
            broken: Vec::new(),
            random: 3,
            again: 0,
            kills: false,
            questions: Questions::ALL,
            most: u64::MAX,
        }
    }
}

/// Most single changes of names that are lost alone at one moment.
const ALL_BUT_MAX: usize = 6;

/// Crashes a history everywhere.
pub fn crashes(ground: &Ground, plan: &Crashes) -> Tally {
    crashes_unseen(ground, plan, &mut Seen::default())
}

/// The same, without the states that `seen` has already; it gets those judged now.
pub fn crashes_unseen(ground: &Ground, plan: &Crashes, seen: &mut Seen) -> Tally {
    match prepare(ground, &plan.before) {
        Ok(prepared) => {
            let mut explorer = Explorer {
                ground,
                plan,
                tally: Tally::default(),
                seen,
            };
            let disk = prepared.disk.crash(Outcome::Everything);
            for broken in &plan.broken {
                disk.break_promise(broken.clone());
            }
            explorer.history(
                &disk,
                &prepared.expected,
                &plan.commands,
                "",
                plan.again > 0,
            );
            explorer.tally
        }
        Err(error) => Tally::broken("preparing", &error),
    }
}

/// The digest of a disk, and what is expected of each generation on it.
type State = (Digest, Vec<(u64, u8)>);

/// States that were judged.
#[derive(Default)]
pub struct Seen(BTreeSet<State>);

struct Explorer<'a> {
    ground: &'a Ground,
    plan: &'a Crashes,
    tally: Tally,
    /// Disks judged already, with what was expected of them.
    seen: &'a mut Seen,
}

impl Explorer<'_> {
    /// Runs commands and judges each moment with each outcome. False when all must stop.
    fn history(
        &mut self,
        disk: &SimDisk,
        before: &Expected,
        commands: &[Command],
        name: &str,
        deeper: bool,
    ) -> bool {
        disk.record();
        let steps = history::run(self.ground, disk, commands);
        let moments = disk.moments();
        if let Some(complaint) = refused(&steps) {
            return self
                .tally
                .count(disk, || format!("{name}running"), Err(complaint));
        }
        for (index, moment) in moments.iter().enumerate() {
            let expected = history::expected(before, &steps, moment.events);
            if self.plan.kills {
                if !self.killed(moment, &expected, index as u64) {
                    return false;
                }
                continue;
            }
            for outcome in self.outcomes(moment, index as u64) {
                let name = format!("{name}crash at change {index}, {outcome:?}");
                if !self.judge(moment, outcome, &expected, &name, deeper) {
                    return false;
                }
            }
        }
        true
    }

    /// Processes are killed here, others work on, then the power goes.
    fn killed(&mut self, moment: &Moment, expected: &Expected, index: u64) -> bool {
        let disk = moment.killed();
        let next = expected.keys().max().copied().unwrap_or(0) + 1;
        let commands = [Command::Backup(next), Command::Collect, Command::Collect];
        let steps = history::run(self.ground, &disk, &commands);
        let expected = history::expected(expected, &steps, disk.events_logged());
        if let Some(complaint) = refused(&steps) {
            let name = || format!("killed at change {index}, then");
            return self.tally.count(&disk, name, Err(complaint));
        }
        let seed = mix(&[self.ground.seed, index]);
        for outcome in [Outcome::Nothing, Outcome::NamesOnly, Outcome::Random(seed)] {
            if self.tally.states >= self.plan.most {
                return false;
            }
            let found = disk.crash(outcome);
            let verdict = judge(self.ground, &found, &expected, next, self.plan.questions);
            let name = || format!("killed at change {index}, worked on, then {outcome:?}");
            if !self.tally.count(&found, name, verdict) {
                return false;
            }
        }
        true
    }

    fn outcomes(&self, moment: &Moment, index: u64) -> Vec<Outcome> {
        let mut outcomes = vec![Outcome::Everything, Outcome::Nothing, Outcome::NamesOnly];
        let pending = moment.pending_changes();
        let stride = pending.div_ceil(ALL_BUT_MAX).max(1);
        outcomes.extend((0..pending).step_by(stride).map(Outcome::AllBut));
        let seeds = (0..self.plan.random).map(|n| mix(&[self.ground.seed, index, n]));
        outcomes.extend(seeds.map(Outcome::Random));
        outcomes
    }

    fn judge(
        &mut self,
        moment: &Moment,
        outcome: Outcome,
        expected: &Expected,
        name: &str,
        deeper: bool,
    ) -> bool {
        if self.tally.states >= self.plan.most {
            return false;
        }
        let disk = moment.crash(outcome);
        let standing = |(generation, standing): (&u64, &Standing)| (*generation, *standing as u8);
        let key = (
            disk.content_digest(),
            expected.iter().map(standing).collect(),
        );
        if !self.seen.0.insert(key) {
            self.tally.equal += 1;
            return true;
        }
        let next = expected.keys().max().copied().unwrap_or(0);
        let again = deeper && self.tally.states.is_multiple_of(self.plan.again.max(1));
        let verdict = judge(self.ground, &disk, expected, next, self.plan.questions);
        let goes_on = self.tally.count(&disk, || name.to_owned(), verdict);
        if goes_on && again {
            let found = moment.crash(outcome);
            let commands = [
                Command::Collect,
                Command::Backup(next + 1),
                Command::Collect,
            ];
            return self.history(
                &found,
                expected,
                &commands,
                &format!("{name}; then "),
                false,
            );
        }
        goes_on
    }
}

/// On a disk without faults commands succeed.
fn refused(steps: &[Step]) -> Option<Complaint> {
    let failed = steps.iter().find(|step| step.failed.is_some())?;
    let what = format!("{} failed: {:?}", failed.command, failed.failed);
    Some(Complaint::new(Oracle::Commands, what))
}
