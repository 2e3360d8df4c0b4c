//! What a person sees while something long runs.
//!
//! Knows: a numbered heading, how long the step took, how it ended.
//! Refuses to know: what the steps do.

use base::Result;
use std::time::{Duration, Instant};

/// Prints the progress of a list of steps whose number is known beforehand.
pub struct Steps {
    total: usize,
    done: usize,
    started: Instant,
}

impl Steps {
    /// No step done yet, of `total`.
    pub fn new(total: usize) -> Self {
        Self {
            total,
            done: 0,
            started: Instant::now(),
        }
    }

    /// Prints the heading, does the work, prints the time. The error is handed on, not printed.
    pub fn run<T>(&mut self, what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.done += 1;
        println!("\n[{}/{}] {what}", self.done, self.total);
        let started = Instant::now();
        let outcome = work();
        let word = if outcome.is_ok() { "done" } else { "FAILED" };
        println!(
            "[{}/{}] {what}: {word} in {}",
            self.done,
            self.total,
            said(started.elapsed())
        );
        outcome
    }

    /// Time since the first step, for the last line.
    pub fn elapsed(&self) -> String {
        said(self.started.elapsed())
    }
}

/// One line of detail under a step.
pub fn detail(text: impl AsRef<str>) {
    println!("      {}", text.as_ref());
}

/// A length of time as people say it: tenths of a second below a minute, minutes above.
pub fn said(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{} min {:02} s", time.as_secs() / 60, time.as_secs() % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_said_in_the_unit_people_expect() {
        assert_eq!(said(Duration::from_millis(1_250)), "1.2 s");
        assert_eq!(said(Duration::from_secs(61)), "1 min 01 s");
    }
}
