//! All worlds by name, each a pure function of a seed.
//!
//! Knows: which history and which effort a seed stands for, and how a seed is written in a file.
//! Refuses to know: what a world does.

use crate::engine;
use crate::history::{Command, Ground};
use crate::worlds::{self, Crashes, Part, Seen, Tally};
use base::random::SeededRandom;
use base::{Error, Result};

/// All worlds.
pub const WORLDS: [&str; 11] = [
    "crash",
    "crash-again",
    "kill",
    "sequences",
    "errors",
    "full",
    "damage",
    "phantoms",
    "interleave",
    "random-interleave",
    "tracker",
];

/// A seed with all that it needs to be run again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run {
    /// One of [`WORLDS`].
    pub world: String,
    /// A name of [`engine::named`].
    pub engine: String,
    /// The seed.
    pub seed: u64,
}

impl Run {
    /// Reads lines of `key = value`; `#` begins a remark.
    ///
    /// # Errors
    /// `Invalid` for anything else.
    pub fn parse(text: &str) -> Result<Self> {
        let mut run = Self {
            world: String::new(),
            engine: "store".to_owned(),
            seed: 0,
        };
        let bad = |line: &str| {
            let message = format!("\u{201c}{line}\u{201d} is not a line of a seed");
            Error::invalid("sim.seed.malformed", message)
                .hint("lines are: world = NAME, engine = NAME, seed = NUMBER")
        };
        for line in text
            .lines()
            .map(|line| line.split('#').next().unwrap_or("").trim())
        {
            if line.is_empty() {
                continue;
            }
            let (key, value) = line.split_once('=').ok_or_else(|| bad(line))?;
            match key.trim() {
                "world" => value.trim().clone_into(&mut run.world),
                "engine" => value.trim().clone_into(&mut run.engine),
                "seed" => run.seed = value.trim().parse().map_err(|_| bad(line))?,
                _ => return Err(bad(line)),
            }
        }
        run.check().map(|()| run)
    }

    /// An error unless world and engine exist.
    ///
    /// # Errors
    /// `Invalid`.
    pub fn check(&self) -> Result<()> {
        if !WORLDS.contains(&self.world.as_str()) {
            let message = format!("no world is called \u{201c}{}\u{201d}", self.world);
            return Err(Error::invalid("sim.world.unknown", message)
                .hint(format!("worlds are: {}", WORLDS.join(", "))));
        }
        self.ground().map(|_| ())
    }

    /// The ground of this seed.
    ///
    /// # Errors
    /// `Invalid` where no engine has this name.
    pub fn ground(&self) -> Result<Ground> {
        let engine = engine::named(&self.engine).ok_or_else(|| {
            let message = format!("no engine is called \u{201c}{}\u{201d}", self.engine);
            Error::invalid("sim.engine.unknown", message)
                .hint("engines are: store, store-changed, toy")
        })?;
        let pages = 20 + usize::try_from(self.seed % 4).unwrap_or(0) * 8;
        Ok(Ground::new(engine, self.seed, pages))
    }

    /// Runs the world of this seed.
    ///
    /// # Errors
    /// Those of [`Self::check`].
    pub fn run(&self) -> Result<Tally> {
        self.check()?;
        let ground = self.ground()?;
        let seed = self.seed;
        let before = [Command::Backup(0)];
        let commands = commands(seed);
        let scenes = worlds::scenes();
        let scene = &scenes[usize::try_from(seed).unwrap_or(0) % scenes.len()];
        Ok(match self.world.as_str() {
            "crash" => worlds::crashes(&ground, &Crashes::of(&before, &commands)),
            "crash-again" => {
                let plan = Crashes {
                    again: 150,
                    random: 1,
                    ..Crashes::of(&before, &commands)
                };
                worlds::crashes(&ground, &plan)
            }
            "kill" => {
                let plan = Crashes {
                    kills: true,
                    ..Crashes::of(&before, &commands)
                };
                worlds::crashes(&ground, &plan)
            }
            "sequences" => sequences(&ground),
            "errors" => worlds::errors(&ground, &before, &commands, Part::of(seed, 5)),
            "full" => worlds::full_disk(&ground, 512 * (1 + seed % 8)),
            "damage" => worlds::damages(&ground, 8),
            "phantoms" => worlds::phantoms(&ground, 30, 5 + seed % 20),
            "interleave" => {
                worlds::interleavings(&ground, scene, Part::of(seed / scenes.len() as u64, 4))
            }
            "tracker" => worlds::trackers(engine::Store::open(true), seed, 40),
            _ => worlds::random_interleavings(&ground, scene, 100),
        })
    }
}

/// Five commands that make sense one after another. Generation 0 is there already.
pub fn commands(seed: u64) -> Vec<Command> {
    if seed == 0 {
        return vec![
            Command::Backup(1),
            Command::Backup(2),
            Command::Delete(1),
            Command::Collect,
            Command::Collect,
        ];
    }
    let random = SeededRandom::new(seed);
    let mut there = vec![0];
    let mut next = 1;
    let mut commands = Vec::new();
    while commands.len() < 5 {
        match random.below(5) {
            0 | 1 => {
                commands.push(Command::Backup(next));
                there.push(next);
                next += 1;
            }
            2 if !there.is_empty() => {
                let which = usize::try_from(random.below(there.len() as u64)).unwrap_or(0);
                commands.push(Command::Delete(there.swap_remove(which)));
            }
            3 => commands.push(Command::Collect),
            4 if random.one_in(3) => commands.push(Command::Verify),
            _ => {}
        }
    }
    commands
}

/// All sequences of up to three commands on a repository with one point, crashed everywhere.
fn sequences(ground: &Ground) -> Tally {
    let mut seen = Seen::default();
    const KINDS: [Command; 4] = [
        Command::Backup(1),
        Command::Delete(0),
        Command::Collect,
        Command::Verify,
    ];
    let mut tally = Tally::default();
    let mut all: Vec<Vec<Command>> = vec![Vec::new()];
    for _ in 0..3 {
        all = all
            .iter()
            .flat_map(|start| {
                KINDS.iter().map(move |kind| {
                    let mut longer = start.clone();
                    longer.push(renamed(*kind, start));
                    longer
                })
            })
            .collect();
        // What was crashed as a part of a longer sequence need not be crashed alone.
        for commands in all
            .iter()
            .filter(|commands| commands.len() == 3 && sensible(commands))
        {
            let plan = Crashes {
                random: 0,
                ..Crashes::of(&[Command::Backup(0)], commands)
            };
            tally.add(worlds::crashes_unseen(ground, &plan, &mut seen));
            if tally.failure.is_some() {
                return tally;
            }
        }
    }
    tally
}

/// The second backup has another generation than the first, and so on.
fn renamed(kind: Command, start: &[Command]) -> Command {
    let same = |command: &&Command| {
        matches!(
            (command, kind),
            (Command::Backup(_), Command::Backup(_)) | (Command::Delete(_), Command::Delete(_))
        )
    };
    let before = start.iter().filter(same).count() as u64;
    match kind {
        Command::Backup(first) => Command::Backup(first + before),
        Command::Delete(first) => Command::Delete(first + before),
        other => other,
    }
}

/// Whether each delete finds its point.
fn sensible(commands: &[Command]) -> bool {
    commands
        .iter()
        .enumerate()
        .all(|(index, command)| match command {
            Command::Delete(generation) => {
                *generation == 0 || commands[..index].contains(&Command::Backup(*generation))
            }
            _ => true,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_read_and_nonsense_is_refused() {
        let run = Run::parse("# why\nworld = crash\nengine = toy # small\nseed = 12\n").unwrap();
        assert_eq!(
            run,
            Run {
                world: "crash".into(),
                engine: "toy".into(),
                seed: 12
            }
        );
        for bad in [
            "world = nowhere",
            "world = crash\nseed = x",
            "world",
            "worlds = crash",
            "",
        ] {
            assert!(Run::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(
            Run::parse("world = full\nengine = x").unwrap_err().code(),
            "sim.engine.unknown"
        );
    }

    #[test]
    fn commands_make_sense() {
        for seed in 0..200 {
            let commands = commands(seed);
            assert_eq!(commands.len(), 5);
            assert!(sensible(&commands), "{seed}: {commands:?}");
        }
    }
}
