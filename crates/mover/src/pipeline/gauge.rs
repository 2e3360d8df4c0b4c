//! Live numbers of a task.
//!
//! Knows: counters that threads add to and screens read at any moment, and how long each stage was
//! busy. Refuses to know: rates.

use base::size::ByteCount;
use protocol::words::counters::{BusyTimes, Counters, Stage};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

/// One number that only grows.
#[derive(Default, Debug)]
pub struct Tally(AtomicU64);

impl Tally {
    /// Adds.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Sets, where somebody else counts.
    pub fn set(&self, count: u64) {
        self.0.store(count, Ordering::Relaxed);
    }

    /// Now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long the threads of one stage were busy.
#[derive(Default, Debug)]
struct Busy {
    nanoseconds: Tally,
    threads: AtomicU32,
}

/// The live numbers of a task; see [`Counters`] for what each means.
#[derive(Default, Debug)]
pub struct Gauge {
    /// Bytes covered.
    pub processed: Tally,
    /// Bytes done with.
    pub done: Tally,
    /// Bytes read from the source.
    pub read: Tally,
    /// Bytes the tracker marked.
    pub changed: Tally,
    /// What went from the source part to the target part.
    pub transferred: Tally,
    /// Bytes stored.
    pub stored: Tally,
    /// Of these, metadata.
    pub stored_metadata: Tally,
    source: Busy,
    proxy: Busy,
    network: Busy,
    target: Busy,
}

impl Gauge {
    fn stage(&self, stage: Stage) -> &Busy {
        match stage {
            Stage::Source => &self.source,
            Stage::Proxy => &self.proxy,
            Stage::Network => &self.network,
            Stage::Target => &self.target,
        }
    }

    /// Says how many threads a stage has: its time is divided by them.
    pub fn set_threads(&self, stage: Stage, threads: usize) {
        let threads = u32::try_from(threads).unwrap_or(u32::MAX);
        self.stage(stage).threads.store(threads, Ordering::Relaxed);
    }

    /// Does something and books its time on a stage.
    pub fn busy<T>(&self, stage: Stage, deed: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = deed();
        self.book(stage, start.elapsed());
        result
    }

    /// Books time on a stage.
    pub fn book(&self, stage: Stage, time: std::time::Duration) {
        self.stage(stage)
            .nanoseconds
            .add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Sets how long a stage was busy, in microseconds, where another agent counts.
    pub fn set_busy(&self, stage: Stage, micros: u64) {
        self.set_threads(stage, 1);
        self.stage(stage)
            .nanoseconds
            .set(micros.saturating_mul(1000));
    }

    /// All numbers now.
    pub fn counters(&self) -> Counters {
        let micros = |stage: &Busy| {
            let threads = u64::from(stage.threads.load(Ordering::Relaxed).max(1));
            stage.nanoseconds.get() / 1000 / threads
        };
        Counters {
            processed: ByteCount(self.processed.get()),
            done: ByteCount(self.done.get()),
            read: ByteCount(self.read.get()),
            changed: ByteCount(self.changed.get()),
            transferred: ByteCount(self.transferred.get()),
            stored: ByteCount(self.stored.get()),
            stored_metadata: ByteCount(self.stored_metadata.get()),
            busy: BusyTimes {
                source: micros(&self.source),
                proxy: micros(&self.proxy),
                network: micros(&self.network),
                target: micros(&self.target),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn time_is_divided_by_the_threads_of_a_stage() {
        let gauge = Gauge::default();
        gauge.set_threads(Stage::Source, 4);
        gauge.book(Stage::Source, Duration::from_micros(400));
        gauge.book(Stage::Proxy, Duration::from_micros(7));
        gauge.read.add(5);
        let counters = gauge.counters();
        assert_eq!(counters.busy.source, 100);
        assert_eq!(counters.busy.proxy, 7);
        assert_eq!(counters.read, ByteCount(5));
        assert_eq!(counters.busy.bottleneck(), Some(Stage::Source));
    }
}
