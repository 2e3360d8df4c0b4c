//! Several processes work on one repository at once, in every order that matters.
//!
//! Knows: scenes of two or three commands; all orders with one switch (and every order of what is
//! left), then random ones, in some of which a process is killed or loses its locks on the way.
//! Refuses to know: how the store keeps its processes apart.

use super::{Part, Prepared, Tally, mix, prepare};
use crate::disk::{Broken, Fault, Injection, Outcome, SimDisk};
use crate::history::{self, Command, Expected, Ground, Standing, Step};
use crate::oracle::{Complaint, Oracle, Questions, judge};
use crate::schedule::{self, Actor, Plan};
use base::random::SeededRandom;
use std::sync::{Mutex, PoisonError};

/// Commands that run at once.
#[derive(Clone, Debug)]
pub struct Scene {
    /// What it is called.
    pub name: &'static str,
    /// Run before.
    pub before: Vec<Command>,
    /// Run at once: each list by a process of its own, one command after another.
    pub actors: Vec<Vec<Command>>,
    /// Promises that the disk breaks meanwhile.
    pub broken: Vec<Broken>,
}

/// The scenes that lose data in stores that are not careful.
pub fn scenes() -> Vec<Scene> {
    use Command::{Backup, Collect, Delete, Restore, Verify};
    let scene = |name, before: &[Command], actors: &[&[Command]]| Scene {
        name,
        before: before.to_vec(),
        actors: actors.iter().map(|commands| commands.to_vec()).collect(),
        broken: Vec::new(),
    };
    let two = [Backup(0), Backup(1)];
    let garbage = [Backup(0), Backup(1), Delete(1)];
    vec![
        // A new point reuses the blocks of one that is deleted and collected meanwhile.
        scene(
            "psa-2025-00019",
            &two,
            &[&[Backup(2)], &[Delete(1), Collect, Collect]],
        ),
        // Blocks that nobody uses any more, except the backup that has just found them.
        scene(
            "reuse-of-garbage",
            &garbage,
            &[&[Backup(1)], &[Collect, Collect]],
        ),
        scene(
            "two-collects",
            &garbage,
            &[&[Collect, Collect], &[Collect], &[Backup(2)]],
        ),
        scene(
            "two-backups",
            &garbage,
            &[&[Backup(1)], &[Backup(2)], &[Collect, Collect]],
        ),
        // A point is read while it is deleted and its blocks are collected.
        scene(
            "restore-of-deleted",
            &two,
            &[&[Restore(1)], &[Delete(1), Collect, Collect]],
        ),
        scene(
            "verify-beside-collect",
            &garbage,
            &[&[Verify], &[Collect, Collect]],
        ),
    ]
}

/// Every order of the actors, each with one switch, at each step of the part.
pub fn interleavings(ground: &Ground, scene: &Scene, part: Part) -> Tally {
    let prepared = match prepare(ground, &scene.before) {
        Ok(prepared) => prepared,
        Err(error) => return Tally::broken("preparing", &error),
    };
    let mut tally = Tally::default();
    for order in orders(scene.actors.len()) {
        let mut step = 0;
        loop {
            let mut last = 0;
            for to in 0..scene.actors.len() {
                let at = if step == 0 {
                    Vec::new()
                } else {
                    vec![(step, to)]
                };
                let plan = Plan::Switches {
                    order: order.clone(),
                    at,
                };
                last = one(ground, &prepared, scene, &plan, None, &mut tally);
                if tally.failure.is_some() {
                    return tally;
                }
                if step == 0 {
                    break;
                }
            }
            step += if step == 0 {
                1 + part.first
            } else {
                part.stride
            };
            if step > last {
                break;
            }
        }
    }
    tally
}

/// Random orders; in one of three a process is killed or loses its locks at a random call.
pub fn random_interleavings(ground: &Ground, scene: &Scene, rounds: u64) -> Tally {
    let prepared = match prepare(ground, &scene.before) {
        Ok(prepared) => prepared,
        Err(error) => return Tally::broken("preparing", &error),
    };
    let mut tally = Tally::default();
    let mut steps = 100;
    for round in 0..rounds {
        let random = SeededRandom::new(mix(&[ground.seed, round]));
        let plan = random_plan(&random, scene.actors.len(), steps);
        let who = prepared.disk.next_process() + random.below(scene.actors.len() as u64);
        let fault = match random.below(6) {
            0 => Some(Fault::Kill),
            1 => Some(Fault::LoseLocks),
            _ => None,
        };
        let injection = fault.map(|fault| Injection::at(random.below(150), fault).by(who));
        steps = one(ground, &prepared, scene, &plan, injection, &mut tally);
        if tally.failure.is_some() {
            break;
        }
    }
    tally
}

/// Half of the plans switch at random all the time, half at two or three places only.
fn random_plan(random: &SeededRandom, actors: usize, steps: u64) -> Plan {
    if random.one_in(2) {
        return Plan::Random {
            seed: random.next_u64(),
            one_in: 1 + random.below(40),
        };
    }
    let orders = orders(actors);
    let pick = |count: usize| usize::try_from(random.below(count as u64)).unwrap_or(0);
    let order = orders[pick(orders.len())].clone();
    let mut at: Vec<(u64, usize)> = (0..2 + pick(2))
        .map(|_| (1 + random.below(steps), pick(actors)))
        .collect();
    at.sort_unstable();
    at.dedup_by_key(|(step, _)| *step);
    Plan::Switches { order, at }
}

fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for shorter in orders(count - 1) {
        for place in 0..=shorter.len() {
            let mut order = shorter.clone();
            order.insert(place, count - 1);
            all.push(order);
        }
    }
    all
}

/// Runs a scene by a plan and judges it as it is, and as it is found after a power cut.
fn one(
    ground: &Ground,
    prepared: &Prepared,
    scene: &Scene,
    plan: &Plan,
    injection: Option<Injection>,
    tally: &mut Tally,
) -> u64 {
    let disk = prepared.disk.crash(Outcome::Everything);
    disk.note(format!("scene {}: {plan:?}, {injection:?}", scene.name));
    if let Some(injection) = &injection {
        disk.inject(injection.clone());
    }
    for broken in &scene.broken {
        disk.break_promise(broken.clone());
    }
    let steps = Mutex::new(Vec::new());
    let count = {
        let actors = scene
            .actors
            .iter()
            .map(|commands| actor(ground, &disk, commands, &steps));
        schedule::run(&disk, plan, actors.collect())
    };
    let mut steps = steps.into_inner().unwrap_or_else(PoisonError::into_inner);
    steps.sort_by_key(|step: &Step| step.end);
    let troubled = disk.faults_struck() > 0;
    disk.heal();
    let state = || format!("scene {}, {plan:?}, {injection:?}", scene.name);
    if let Err(complaint) = all_succeeded(ground, &steps, troubled) {
        tally.count(&disk, state, Err(complaint));
        return count;
    }
    let expected = expected_of(&prepared.expected, &steps, &disk);
    let next = expected.keys().max().copied().unwrap_or(0);
    for outcome in [Outcome::Everything, Outcome::Nothing] {
        let found = disk.crash(outcome);
        let verdict = judge(ground, &found, &expected, next, Questions::ALL);
        if !tally.count(&found, || format!("{}, {outcome:?}", state()), verdict) {
            break;
        }
    }
    count
}

fn actor<'a>(
    ground: &'a Ground,
    disk: &'a SimDisk,
    commands: &'a [Command],
    steps: &'a Mutex<Vec<Step>>,
) -> Actor<'a> {
    Box::new(move |files| {
        let process = ground.process_of(files);
        for command in commands {
            let begin = disk.events_logged();
            let failed = ground.run(&process, *command).err();
            let end = disk.events_logged();
            if let Some(error) = &failed {
                disk.note(format!("failed: {command}: {error:?}"));
            }
            let failed = failed.map(|error| error.code().to_owned());
            let step = Step {
                command: *command,
                begin,
                end,
                failed,
            };
            steps
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(step);
        }
        process.files.end();
    })
}

/// Nobody is refused because others work; only a collect may find that another one runs, and a
/// restore that its point is deleted. A process in trouble may fail, but never restore wrong bytes.
fn all_succeeded(ground: &Ground, steps: &[Step], troubled: bool) -> Result<(), Complaint> {
    let wrong = steps.iter().find(|step| {
        let Some(code) = step.failed.as_deref() else {
            return false;
        };
        let may_be_busy = step.command == Command::Collect || ground.engine.refuses_when_busy();
        let allowed = match step.command {
            Command::Restore(_) => {
                ["sim.point.not-listed", "store.point.not-found"].contains(&code)
            }
            _ => false,
        };
        let excused = (may_be_busy && code.ends_with(".busy")) || allowed || troubled;
        !excused || code == "sim.restore.wrong"
    });
    match wrong {
        Some(step) => Err(Complaint::new(
            Oracle::Commands,
            format!("{} beside others failed: {:?}", step.command, step.failed),
        )),
        None => Ok(()),
    }
}

/// As [`history::expected`], where backup and delete of one generation at once leave it open.
fn expected_of(before: &Expected, steps: &[Step], disk: &SimDisk) -> Expected {
    let mut expected = history::expected(before, steps, disk.events_logged());
    for (generation, standing) in &mut expected {
        let backup = steps
            .iter()
            .any(|step| step.command == Command::Backup(*generation));
        let delete = steps
            .iter()
            .any(|step| step.command == Command::Delete(*generation));
        if backup && delete {
            *standing = Standing::Possible;
        }
    }
    expected
}
