//! What a run has done so far, in numbers.
//!
//! Knows: the four counters that every session shows, and how busy each stage was.
//! Refuses to know: rates and percentages; screens compute them.

use base::size::ByteCount;
use serde::{Deserialize, Serialize};

/// The counters of a disk, a task or a session. They add up.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Counters {
    /// Bytes of the disks that are covered: their size.
    pub processed: ByteCount,
    /// Of these, the bytes that this run is done with (progress: `done / processed`).
    pub done: ByteCount,
    /// Bytes read from the source.
    pub read: ByteCount,
    /// Bytes the change tracker marked; the disk's size where all was read.
    pub changed: ByteCount,
    /// What went from the source part to the target part. Between two agents: bytes of the stream.
    /// In one process: plain bytes of the blocks that the repository lacked, as a stream would
    /// carry them; of a window of which only changes were read at most the changed bytes.
    pub transferred: ByteCount,
    /// Bytes that were new to the repository, as stored: compressed and sealed, with metadata.
    pub stored: ByteCount,
    /// Of `stored`, the bytes of tree nodes and index.
    pub stored_metadata: ByteCount,
    /// How long each stage was busy.
    pub busy: BusyTimes,
}

/// Microseconds each stage of the data path was busy, over all its threads divided by their number.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct BusyTimes {
    /// Reading from the source.
    pub source: u64,
    /// Cutting, hashing, compressing and sealing.
    pub proxy: u64,
    /// Sending and receiving.
    pub network: u64,
    /// Writing to the target.
    pub target: u64,
}

/// The stage that holds the others up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Reading from the source.
    Source,
    /// Cutting, hashing, compressing and sealing.
    Proxy,
    /// Sending and receiving.
    Network,
    /// Writing to the target.
    Target,
}

impl BusyTimes {
    /// The busiest stage, if any was busy at all.
    pub fn bottleneck(&self) -> Option<Stage> {
        let stages = [
            (self.source, Stage::Source),
            (self.proxy, Stage::Proxy),
            (self.network, Stage::Network),
            (self.target, Stage::Target),
        ];
        stages
            .into_iter()
            .max_by_key(|(busy, _)| *busy)
            .filter(|(busy, _)| *busy > 0)
            .map(|s| s.1)
    }
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Proxy => "proxy",
            Self::Network => "network",
            Self::Target => "target",
        })
    }
}

impl std::ops::AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.processed += other.processed;
        self.done += other.done;
        self.read += other.read;
        self.changed += other.changed;
        self.transferred += other.transferred;
        self.stored += other.stored;
        self.stored_metadata += other.stored_metadata;
        self.busy.source += other.busy.source;
        self.busy.proxy += other.busy.proxy;
        self.busy.network += other.busy.network;
        self.busy.target += other.busy.target;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_stage_is_the_bottleneck() {
        assert_eq!(BusyTimes::default().bottleneck(), None);
        let busy = BusyTimes {
            source: 5,
            proxy: 9,
            network: 0,
            target: 3,
        };
        assert_eq!(busy.bottleneck(), Some(Stage::Proxy));
    }
}
