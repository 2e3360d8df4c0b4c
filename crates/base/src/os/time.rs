//! The machine's clock and its source of randomness.
//!
//! Knows: `clock_gettime` and `getrandom`. Refuses to know: whether the clock is right.

use crate::clock::{Clock, Timestamp};
use crate::random::Random;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsClock;

impl Clock for OsClock {
    fn now(&self) -> Timestamp {
        let micros = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
            Err(before) => {
                i64::try_from(before.duration().as_micros()).map_or(i64::MIN, i64::wrapping_neg)
            }
        };
        Timestamp(micros)
    }

    fn monotonic(&self) -> Duration {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

/// The kernel's randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsRandom;

impl Random for OsRandom {
    /// # Panics
    /// Where the kernel has no randomness to give: no key may be made of anything else.
    #[allow(clippy::panic)]
    fn fill(&self, bytes: &mut [u8]) {
        let mut at = 0;
        while at < bytes.len() {
            match rustix::rand::getrandom(&mut bytes[at..], rustix::rand::GetRandomFlags::empty()) {
                Ok(n) => at += n,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("the kernel gives no randomness: {error}"),
            }
        }
    }
}
