//! Time as an argument.
//!
//! Knows: what the wall clock says and how long something took. Refuses to know: calendars, time
//! zones, and whether the wall clock is right. Nothing in Backstay decides on liveness by it.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A moment: microseconds since 1970 in UTC.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Milliseconds since 1970; 0 for anything before.
    pub fn unix_millis(self) -> u64 {
        u64::try_from(self.0 / 1000).unwrap_or(0)
    }

    /// Seconds since 1970.
    pub const fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// How long after `earlier`; zero if it was not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// The door to time.
pub trait Clock: Send + Sync {
    /// What the wall clock says. May jump either way.
    fn now(&self) -> Timestamp;

    /// Time since some fixed moment. Never goes back, may stand still while the machine sleeps.
    fn monotonic(&self) -> Duration;

    /// Waits.
    fn sleep(&self, duration: Duration);
}
