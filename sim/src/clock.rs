//! A clock that a test sets.
//!
//! Knows: a wall clock that may jump either way, and a monotonic one that may not.
//! Refuses to know: the machine's time.

use base::clock::{Clock, Timestamp};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// A clock that a test sets. Each look at it takes a microsecond, so that no two are equal.
#[derive(Debug)]
pub struct SimClock {
    wall: AtomicI64,
    monotonic: AtomicU64,
}

/// Midnight of the first of March 2026 in UTC.
const START_MICROS: i64 = 1_772_323_200_000_000;

impl Default for SimClock {
    fn default() -> Self {
        Self {
            wall: AtomicI64::new(START_MICROS),
            monotonic: AtomicU64::new(0),
        }
    }
}

impl SimClock {
    /// A clock at a fixed moment.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets time pass.
    pub fn advance(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.monotonic.fetch_add(micros, Ordering::Relaxed);
        self.jump(i64::try_from(micros).unwrap_or(i64::MAX));
    }

    /// Moves the wall clock alone, either way, as a wrong time server does.
    pub fn jump(&self, micros: i64) {
        let now = self.wall.load(Ordering::Relaxed);
        self.wall
            .store(now.saturating_add(micros), Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        self.advance(Duration::from_micros(1));
        Timestamp(self.wall.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        self.advance(Duration::from_micros(1));
        Duration::from_micros(self.monotonic.load(Ordering::Relaxed))
    }

    /// Returns at once; only this clock has moved on.
    fn sleep(&self, duration: Duration) {
        self.advance(duration);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_jumps_and_the_monotonic_clock_does_not() {
        let clock = SimClock::new();
        let (wall, mono) = (clock.now(), clock.monotonic());
        clock.jump(-3_600_000_000);
        assert!(clock.now() < wall);
        assert!(clock.monotonic() > mono);
        clock.sleep(Duration::from_secs(10));
        assert!(clock.monotonic() >= mono + Duration::from_secs(10));
    }
}
