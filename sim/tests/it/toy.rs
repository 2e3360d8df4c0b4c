//! The simulator finds the mistakes that a toy store makes on purpose, and no others.

use super::right;
use sim::disk::{Broken, Call};
use sim::engine::{Toy, ToyCollect, ToySync};
use sim::history::{Command, Ground};
use sim::oracle::{Oracle, Questions};
use sim::worlds::{self, Crashes, Part, Tally};
use std::sync::Arc;

fn ground(toy: Toy) -> Ground {
    Ground::new(Arc::new(toy), 1, 12)
}

const HISTORY: [Command; 4] = [
    Command::Backup(1),
    Command::Backup(2),
    Command::Delete(1),
    Command::Collect,
];

fn crash(toy: Toy, seed: u64, broken: Vec<Broken>, questions: Questions) -> Tally {
    let plan = Crashes {
        broken,
        questions,
        random: 12,
        again: 20,
        ..Crashes::of(&[Command::Backup(0)], &HISTORY)
    };
    worlds::crashes(&Ground::new(Arc::new(toy), seed, 12), &plan)
}

#[test]
fn a_right_store_survives_every_crash() {
    let mut tally = Tally::default();
    for seed in 0..8 {
        tally.add(crash(Toy::right(), seed, Vec::new(), Questions::ALL));
    }
    right("crash", &tally, 2000);
}

/// Each missing sync is found, within so many states: twice what was measured.
#[test]
fn each_missing_sync_is_found() {
    let bugs = [
        (
            "chunks published without sync",
            Broken::below(Call::Sync, "tmp/chunk"),
            300,
        ),
        (
            "points published without sync",
            Broken::below(Call::Sync, "tmp/point"),
            300,
        ),
        (
            "chunks' folder not synced",
            Broken::below(Call::SyncFolder, "chunks"),
            600,
        ),
        (
            "points' folder not synced",
            Broken::below(Call::SyncFolder, "points"),
            300,
        ),
    ];
    for (name, broken, within) in bugs {
        let tally = crash(Toy::right(), 1, vec![broken], Questions::ALL);
        let failure = tally.failure.expect(name);
        println!("{name}: {} states, {failure}", tally.states);
        assert!(
            tally.states <= within,
            "{name}: found after {} states",
            tally.states
        );
    }
}

/// Why there are three questions: a chunk torn under its final name harms only the next backup.
#[test]
fn the_first_two_questions_miss_what_harms_the_next_backup() {
    let late = Toy {
        sync: ToySync::BeforePoint,
        ..Toy::right()
    };
    for seed in 0..5 {
        let two = Questions {
            listed: true,
            next: false,
            verify: false,
        };
        let missed = crash(late, seed, Vec::new(), two);
        assert!(
            missed.failure.is_none() && missed.states > 100,
            "{} states",
            missed.states
        );
        let found = crash(late, seed, Vec::new(), Questions::ALL);
        let failure = found.failure.expect("the next backup trusts a torn chunk");
        assert_eq!(failure.complaint.oracle, Oracle::Next);
    }
}

#[test]
fn errors_and_full_disks_make_no_false_green() {
    let ground = ground(Toy::right());
    right(
        "errors",
        &worlds::errors(&ground, &[Command::Backup(0)], &HISTORY, Part::ALL),
        500,
    );
    right("full", &worlds::full_disk(&ground, 512), 10);
    right("damage", &worlds::damages(&ground, 20), 500);
    right("phantoms", &worlds::phantoms(&ground, 50, 10), 50);
}

#[test]
fn the_naive_collect_is_found_and_the_locked_one_is_not() {
    let naive = ground(Toy {
        collect: ToyCollect::Naive,
        ..Toy::right()
    });
    let scenes = worlds::scenes();
    let psa = &scenes[0];
    let tally = worlds::interleavings(&naive, psa, Part::ALL);
    let failure = tally
        .failure
        .expect("the naive collect loses what a backup reuses");
    assert!(matches!(
        failure.complaint.oracle,
        Oracle::Promised | Oracle::Commands
    ));
    println!("naive: {} states, {failure}", tally.states);
    // The toy promises nothing to those who read while others collect.
    for scene in &scenes[..4] {
        let toy = ground(Toy::right());
        right(
            scene.name,
            &worlds::interleavings(&toy, scene, Part::ALL),
            50,
        );
        right(
            scene.name,
            &worlds::random_interleavings(&toy, scene, 100),
            150,
        );
    }
    let random = worlds::random_interleavings(&naive, psa, 500);
    assert!(random.failure.is_some(), "{} states", random.states);
}

#[test]
fn one_seed_gives_one_log() {
    let run = |seed| {
        let ground = Ground::new(Arc::new(Toy::right()), seed, 12);
        let plan = Crashes {
            most: 200,
            ..Crashes::of(&[], &HISTORY)
        };
        let mut tally = worlds::crashes(&ground, &plan);
        tally.add(worlds::random_interleavings(
            &ground,
            &worlds::scenes()[1],
            20,
        ));
        tally.digest()
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}
