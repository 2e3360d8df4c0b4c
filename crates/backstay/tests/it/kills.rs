//! `kill -9` of every role at many moments, on the real programs.
//!
//! After each kill, within a minute: no session at work, no manager, no agent, no slot kept, no half
//! point, the server knows exactly the points that the repository has; and the next run succeeds
//! and restores what the image holds. Slots are not looked at one by one: a host has four, so a few
//! kept by dead sessions would stop all later rounds.
//!
//! `BACKSTAY_KILLS` sets how many rounds, `BACKSTAY_SEED` which.

use crate::command::wait_until;
use crate::images::{self, Dice, MIB};
use crate::site::{SETTLED, Site, is_final, kill};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Rounds in the ordinary run.
const USUAL: u64 = 30;
/// Roles to kill. `all` is what a power cut leaves of the processes.
const VICTIMS: [&str; 6] = ["manager", "agent", "mover", "server", "up", "all"];
/// What the session that is hit does.
const WORK: [&str; 6] = ["backup", "backup", "restore", "backup", "backup", "collect"];
/// Lines in the roles' logs that mark moments of a session.
const MARKS: [&str; 5] = [
    "listens on port",
    "opened the repository",
    ": started",
    "published the point",
    "asked to end",
];

/// When the victim is hit.
#[derive(Debug)]
enum Moment {
    /// So long after the session was started.
    After(Duration),
    /// So long after the roles have written this line so many times.
    Line(&'static str, usize, Duration),
    /// When a writer has written so much.
    Written(u64),
}

/// What the rounds share.
struct World {
    site: Site,
    repository: PathBuf,
    image: PathBuf,
    dice: Dice,
    /// How often each ended how.
    tally: BTreeMap<String, u32>,
}

fn from_environment(name: &str, usual: u64) -> u64 {
    let parse = |text: String| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number"))
    };
    std::env::var(name).map_or(usual, parse)
}

#[test]
fn killed_at_any_moment() {
    let rounds = from_environment("BACKSTAY_KILLS", USUAL);
    let seed = from_environment("BACKSTAY_SEED", 1);
    println!("BACKSTAY_KILLS={rounds} BACKSTAY_SEED={seed}");
    let site = Site::up();
    let repository = site.repository("main");
    let image = images::raw(&site.path("a.raw"), 256 * MIB, 40, seed);
    let path = format!("web={}", image.display());
    site.ok(&[
        "job",
        "create",
        "daily",
        "--repository",
        "main",
        "--image",
        &path,
        "--keep",
        "4",
    ]);
    site.back_up("daily");
    let mut world = World {
        site,
        repository,
        image,
        dice: Dice::new(seed),
        tally: BTreeMap::new(),
    };
    for round in 0..rounds {
        world.round(round);
    }
    println!("{:#?}", world.tally);
    world.end(rounds);
}

impl World {
    /// One session, one kill, and what must be so afterwards.
    fn round(&mut self, round: u64) {
        let begun = Instant::now();
        let victim = VICTIMS[usize::try_from(round).unwrap() % VICTIMS.len()];
        let work = WORK[usize::try_from(self.dice.below(WORK.len() as u64)).unwrap()];
        let moment = self.moment(work);
        println!("round {round}: {work}, {victim} at {moment:?}");
        images::scribble(&self.image, 6, MIB, self.dice.roll());
        let restored = self.site.path(&format!("restored-{round}.raw"));
        let said = self.site.log().len() as u64;
        let newest = self.site.points().remove(0);
        let session = self.begin(work, &newest, &restored);
        self.wait_for(&moment, said);
        let hit = self.strike(victim);
        self.site.settle();
        let state = self.site.json(&["session", "show", &session])["session"]["state"].clone();
        assert!(is_final(&state), "{state}");
        let key = format!("{victim} {}: {state}", if hit { "hit" } else { "missed" });
        *self.tally.entry(key).or_default() += 1;
        if work == "restore" {
            self.whole_or_gone(&state, &newest, &restored);
        }
        self.nothing_is_left();
        self.site.back_up("daily");
        if round.is_multiple_of(3) {
            self.newest_restores();
        }
        println!("  {state}, took {:?}", begun.elapsed());
    }

    fn moment(&mut self, work: &str) -> Moment {
        let dice = &mut self.dice;
        match dice.below(4) {
            0 => Moment::After(Duration::from_millis(dice.below(700))),
            1 if work == "backup" => Moment::Written(dice.below(4 * MIB)),
            _ => {
                let mark = MARKS[usize::try_from(dice.below(MARKS.len() as u64)).unwrap()];
                let times = usize::try_from(1 + dice.below(2)).unwrap();
                Moment::Line(mark, times, Duration::from_millis(dice.below(50)))
            }
        }
    }

    /// Starts a session of this kind; its id.
    fn begin(&self, work: &str, newest: &str, restored: &Path) -> String {
        let to = restored.to_str().unwrap();
        let words: &[&str] = match work {
            "backup" => &["job", "run", "daily"],
            "restore" => &["restore", "disk", newest, "disk0", "--to", to, "--no-wait"],
            _ => &["repository", "collect", "main", "--no-wait"],
        };
        self.site.json(words)["id"].as_str().unwrap().to_owned()
    }

    /// Waits for the moment, or until it is clear that it does not come.
    fn wait_for(&self, moment: &Moment, said: u64) {
        let begun = Instant::now();
        let is_now = || match moment {
            Moment::After(_) => true,
            Moment::Line(mark, times, _) => {
                self.site.log_from(said).matches(mark).count() >= *times
            }
            Moment::Written(bytes) => bytes_in(&self.repository.join("writers")) >= *bytes,
        };
        // The session may be over before.
        let over =
            || begun.elapsed() > Duration::from_secs(1) && self.site.of_role("manager").is_empty();
        while !is_now() && !over() {
            std::thread::sleep(Duration::from_millis(2));
        }
        if let Moment::After(delay) | Moment::Line(_, _, delay) = moment {
            std::thread::sleep(*delay);
        }
    }

    /// Kills; whether there was somebody to kill. Starts again what nobody else would.
    fn strike(&mut self, victim: &str) -> bool {
        let mut pids = Vec::new();
        for process in self.site.processes() {
            if process.role == victim || (victim == "all" && process.role != "up") {
                pids.push(process.pid);
            }
        }
        let supervisor = victim == "up" || victim == "all";
        if supervisor {
            // First, or it would start the others again.
            self.site.kill_up();
        }
        for pid in &pids {
            kill(*pid, Signal::KILL);
        }
        if supervisor {
            self.site.start();
        }
        !pids.is_empty()
    }

    /// What was restored is whole, or not there. It may be there after a session that failed: one
    /// that died when all was done, before it could say so.
    fn whole_or_gone(&self, state: &Value, point: &str, restored: &Path) {
        assert!(
            restored.exists() || state != "success",
            "success, but no file"
        );
        if restored.exists() {
            let again = self.site.restore(point, "disk0", "again.raw", "raw");
            images::assert_equal(&again, "raw", restored, "raw");
            std::fs::remove_file(restored).unwrap();
            std::fs::remove_file(again).unwrap();
        }
    }

    /// The repository is whole, and the server knows it as it is.
    fn nothing_is_left(&self) {
        self.site.ok(&["verify", "main"]);
        let client = self
            .site
            .client(&self.repository, None, &["points"])
            .expect(0);
        let mut there: Vec<&str> = client
            .out
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        let mut known = self.site.points();
        there.sort_unstable();
        known.sort_unstable();
        assert_eq!(
            known, there,
            "what the server knows, and what the repository has"
        );
        wait_until("no agent is on record", SETTLED, || {
            let records = std::fs::read_dir(self.site.state().join("mover/agents")).unwrap();
            match records.count() {
                0 => Ok(()),
                some => Err(format!("{some} records")),
            }
        });
    }

    fn newest_restores(&self) {
        let newest = self.site.points().remove(0);
        let restored = self.site.restore(&newest, "disk0", "restored.raw", "raw");
        images::assert_equal(&self.image, "raw", &restored, "raw");
        std::fs::remove_file(restored).unwrap();
    }

    /// All that dead writers and readers left is gone after a collection, and every byte is right.
    fn end(mut self, rounds: u64) {
        self.newest_restores();
        self.site.ok(&["repository", "collect", "main"]);
        self.site.ok(&["repository", "collect", "main"]);
        for folder in ["writers", "readers", "fenced"] {
            let left: Vec<_> = std::fs::read_dir(self.repository.join(folder))
                .unwrap()
                .collect();
            assert!(left.is_empty(), "{folder}: {left:?}");
        }
        self.site.ok(&["verify", "main", "--read-data"]);
        self.newest_restores();
        let hits: u32 = self
            .tally
            .iter()
            .filter(|(key, _)| key.contains(" hit"))
            .map(|(_, n)| n)
            .sum();
        assert!(
            u64::from(hits) * 3 >= rounds * 2,
            "too few kills hit: {:#?}",
            self.tally
        );
        self.site.end();
    }
}

/// Bytes in all files of a folder; what vanishes meanwhile counts as nothing.
fn bytes_in(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => bytes_in(&entry.path()),
        Ok(data) => data.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}
