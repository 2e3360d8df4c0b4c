//! The simulator judged by a toy whose mistakes are known, then the store judged by the simulator.

// All of this program is tests; helpers outside `#[test]` functions may fail them too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod seeds;
mod store;
mod toy;

use sim::worlds::Tally;

/// Fails with the end of the log where an oracle cried, or where too little was judged.
fn right(name: &str, tally: &Tally, least: u64) {
    if let Some(failure) = &tally.failure {
        let log: Vec<String> = failure.events.iter().map(ToString::to_string).collect();
        let end = log[log.len().saturating_sub(60)..].join("\n");
        panic!("{end}\n{name}, after {} states: {failure}", tally.states);
    }
    assert!(
        tally.states >= least,
        "{name} judged {} states only",
        tally.states
    );
}
