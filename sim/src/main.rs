//! Runs one seed of one world, or all seeds of a range, and prints what happened.
//!
//! Knows: the command line. Refuses to know: worlds.

use clap::Parser;
use sim::catalogue::{Run, WORLDS};
use sim::worlds::Tally;
use std::process::ExitCode;
use std::time::Instant;

/// Replays a seed of the simulated world. The same seed does the same, always.
#[derive(Parser)]
#[command(name = "sim")]
struct Arguments {
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many seeds, from the first on.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Which world; all of them where not given.
    #[arg(long)]
    world: Option<String>,
    /// What is judged: store, store-changed or toy.
    #[arg(long, default_value = "store")]
    engine: String,
    /// Print the events of the last state even where nothing is wrong.
    #[arg(long)]
    log: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let worlds: Vec<String> = match &arguments.world {
        Some(world) => vec![world.clone()],
        None => WORLDS.iter().map(|world| (*world).to_owned()).collect(),
    };
    for seed in arguments.seed..arguments.seed.saturating_add(arguments.seeds) {
        for world in &worlds {
            let run = Run {
                world: world.clone(),
                engine: arguments.engine.clone(),
                seed,
            };
            let begin = Instant::now();
            match run.run() {
                Ok(tally) if show(&run, &tally, begin, arguments.log) => {}
                Ok(_) => return ExitCode::FAILURE,
                Err(error) => {
                    eprintln!("{error}");
                    if let Some(hint) = error.hint_text() {
                        eprintln!("{hint}");
                    }
                    return ExitCode::from(error.kind().exit_code());
                }
            }
        }
    }
    ExitCode::SUCCESS
}

/// Prints what a world found. True where nothing is wrong.
#[allow(clippy::cast_precision_loss)]
fn show(run: &Run, tally: &Tally, begin: Instant, log: bool) -> bool {
    let seconds = begin.elapsed().as_secs_f64();
    if let Some(failure) = &tally.failure {
        for event in &failure.events {
            println!("{event}");
        }
        println!(
            "world {} engine {} seed {} after {} states",
            run.world, run.engine, run.seed, tally.states
        );
        println!("{}", failure.state);
        println!("{}", failure.complaint);
        return false;
    }
    if let (true, Some(disk)) = (log, &tally.last) {
        for event in disk.events() {
            println!("{event}");
        }
    }
    println!(
        "world {} engine {} seed {}: {} states right, {} equal ones skipped, {:.0} states/s, log {}",
        run.world,
        run.engine,
        run.seed,
        tally.states,
        tally.equal,
        tally.states as f64 / seconds.max(1e-9),
        tally.digest().short(),
    );
    true
}
