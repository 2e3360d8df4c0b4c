//! The disk fails one call, at every call.
//!
//! Knows: input/output errors before and after the deed, short reads and writes, a full disk, once
//! or from then on. Refuses to know: which commands should notice; what they *say* must be true.

use super::{Part, Prepared, Tally, prepare};
use crate::disk::{Call, Fault, Injection, Outcome};
use crate::history::{self, Command, Ground};
use crate::oracle::{Questions, judge};

const ROOM: [Call; 7] = [
    Call::Create,
    Call::Append,
    Call::MakeFolder,
    Call::Lock,
    Call::Sync,
    Call::Publish,
    Call::SyncFolder,
];

/// The menu: what goes wrong, at which calls, once or for ever.
fn menu() -> Vec<(Injection, &'static str)> {
    let at = |fault| Injection::at(0, fault);
    vec![
        (at(Fault::Io), "error"),
        (at(Fault::IoAfter), "lost answer"),
        (at(Fault::Short).of(&[Call::Read, Call::Append]), "short"),
        (at(Fault::Full).of(&ROOM), "full once"),
        (
            at(Fault::Full).of(&ROOM[..4]).lasting(),
            "full from then on",
        ),
        (at(Fault::Io).lasting(), "error from then on"),
        (at(Fault::Kill), "killed"),
    ]
}

/// Fails the calls of `commands` in turn, in each way.
pub fn errors(ground: &Ground, before: &[Command], commands: &[Command], part: Part) -> Tally {
    let prepared = match prepare(ground, before) {
        Ok(prepared) => prepared,
        Err(error) => return Tally::broken("preparing", &error),
    };
    let mut tally = Tally::default();
    for (injection, name) in menu() {
        let mut after = part.first;
        while one(
            ground, &prepared, commands, &injection, after, name, &mut tally,
        ) {
            after += part.stride;
        }
        if tally.failure.is_some() {
            break;
        }
    }
    tally
}

/// One call fails. False where there is no such call, or an oracle cried.
fn one(
    ground: &Ground,
    prepared: &Prepared,
    commands: &[Command],
    injection: &Injection,
    after: u64,
    name: &str,
    tally: &mut Tally,
) -> bool {
    let disk = prepared.disk.crash(Outcome::Everything);
    disk.inject(Injection {
        after,
        ..injection.clone()
    });
    let steps = history::run(ground, &disk, commands);
    if disk.faults_struck() == 0 {
        return false;
    }
    disk.heal();
    let expected = history::expected(&prepared.expected, &steps, disk.events_logged());
    let next = expected.keys().max().copied().unwrap_or(0);
    for outcome in [Outcome::Everything, Outcome::Nothing, Outcome::NamesOnly] {
        let found = disk.crash(outcome);
        let verdict = judge(ground, &found, &expected, next, Questions::ALL);
        let state = || format!("{name} at call {after}, {outcome:?}");
        if !tally.count(&found, state, verdict) {
            return false;
        }
    }
    true
}
