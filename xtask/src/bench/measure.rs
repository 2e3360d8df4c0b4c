//! What one run costs.
//!
//! Knows: wall time, and processor time as the kernel counts it for processes that have ended.
//! Refuses to know: what was run.

use crate::command::Run;
use base::cancel::Cancel;
use base::{Error, Result};
use std::path::Path;
use std::time::{Duration, Instant};

/// The kernel's unit of processor time in `/proc/PID/stat` (`USER_HZ`, the same on every Linux of
/// this processor).
const TICKS_PER_SECOND: f64 = 100.0;

/// The cost of one run.
#[derive(Clone, Copy, Default, Debug)]
pub struct Cost {
    /// From start to end.
    pub wall: Duration,
    /// User and system time of all its processes.
    pub cpu: Duration,
    /// Bytes it left on the disk, where that is the point of it.
    pub stored: Option<u64>,
}

impl Cost {
    /// The same with the size of what was written.
    pub fn storing(mut self, path: &Path) -> Result<Self> {
        self.stored = Some(room(path)?);
        Ok(self)
    }
}

/// Runs a program to its end; an exit code other than 0 is an error.
pub fn run(run: Run, cancel: &Cancel) -> Result<Cost> {
    let before = children_time()?;
    let started = Instant::now();
    run.capture(cancel)?;
    let wall = started.elapsed();
    Ok(Cost {
        wall,
        cpu: children_time()?.saturating_sub(before),
        stored: None,
    })
}

/// Processor time of all processes of ours that have ended and been waited for.
fn children_time() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")
        .map_err(|error| Error::io("reading our own times", error))?;
    Ok(times(&stat).1)
}

/// Processor time of a process itself, and of its children that have been waited for.
pub fn times(stat: &str) -> (Duration, Duration) {
    // The name stands in brackets and may hold anything; fields are counted from behind it, where
    // the state is field 3 (proc(5)).
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .collect();
    let ticks = |field: usize| {
        let text = fields.get(field - 3).copied().unwrap_or_default();
        Duration::from_secs_f64(text.parse::<u32>().map_or(0.0, f64::from) / TICKS_PER_SECOND)
    };
    (ticks(14) + ticks(15), ticks(16) + ticks(17))
}

/// Bytes that a file, or everything in a folder, takes up on its disk.
pub fn room(path: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let failed = |error| Error::io(format!("sizing {}", path.display()), error);
    let about = std::fs::symlink_metadata(path).map_err(failed)?;
    if !about.is_dir() {
        return Ok(about.blocks() * 512);
    }
    let mut sum = 0;
    for entry in std::fs::read_dir(path).map_err(failed)? {
        sum += room(&entry.map_err(failed)?.path())?;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "1 (a ) b) S 1 1 1 0 -1 0 0 0 0 0 100 50 7 3 20 0 1 0 0 0 0";
        let (own, children) = times(stat);
        assert_eq!(own, Duration::from_millis(1_500));
        assert_eq!(children, Duration::from_millis(100));
        assert_eq!(times("nonsense"), (Duration::ZERO, Duration::ZERO));
    }

    #[test]
    fn work_costs_time() {
        let work = Run::new("sh").args(["-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"]);
        let cost = run(work, &Cancel::new()).unwrap();
        assert!(
            cost.cpu >= Duration::from_millis(10) && cost.wall > Duration::ZERO,
            "{cost:?}"
        );
    }
}
