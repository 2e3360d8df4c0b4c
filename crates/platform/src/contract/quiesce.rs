//! Freeze, begin, thaw: in this order, and the thaw always.
//!
//! Knows: how to begin a backup with the guest's file systems at rest, and never to leave them so.
//! Refuses to know: how a platform freezes a guest.

use super::backup::{Backup, BackupRequest};
use super::{Platform, failure};
use base::Result;
use serde::{Deserialize, Serialize};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How consistent a backup is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consistency {
    /// File systems were at rest.
    FileSystems {
        /// How many of them.
        frozen: u32,
    },
    /// As if the plug had been pulled: what a journaling file system recovers from.
    Crash {
        /// Why, as a person reads it; shown as a warning.
        reason: String,
    },
}

/// How often a thaw is tried before it is given up as failed.
const THAW_ATTEMPTS: u32 = 3;

/// Begins a backup with the guest frozen, and thaws at once.
///
/// No agent, or an agent that does not comply, makes the backup crash-consistent and says so. The
/// guest is thawed before this returns, also where beginning failed; and at the latest `limit` after
/// it was frozen by a second thread, should beginning hang (the backup is then crash-consistent too).
///
/// # Errors
/// Those of [`begin_backup`](super::Backups::begin_backup), and [`failure::thaw_failed`] where the guest may be frozen still:
/// then the backup was ended again.
pub fn begin_quiesced(
    platform: &dyn Platform,
    request: &BackupRequest,
    limit: Duration,
) -> Result<(Backup, Consistency)> {
    // A second backup is refused by the platform anyway, but perhaps only after half a minute: a guest
    // must not be frozen for that.
    if let Some(running) = platform.running_backup(&request.machine)? {
        return Err(failure::busy(&request.machine.0, &running.description));
    }
    let frozen = match platform.freeze(&request.machine, limit) {
        Ok(frozen) => frozen,
        Err(error) if error.code() == "platform.agent.thaw-failed" => return Err(error),
        Err(error) => {
            // The guest may be frozen all the same: its answer may have been lost on the way. Where
            // nothing answers to this either, the caller's clean-up thaws by name.
            let _ = platform.thaw(&request.machine);
            let backup = platform.begin_backup(request)?;
            return Ok((
                backup,
                Consistency::Crash {
                    reason: error.to_string(),
                },
            ));
        }
    };
    begin_frozen(platform, request, limit, frozen)
}

fn begin_frozen(
    platform: &dyn Platform,
    request: &BackupRequest,
    limit: Duration,
    frozen: u32,
) -> Result<(Backup, Consistency)> {
    let begun = Mutex::new(false);
    let wake = Condvar::new();
    let (backup, overdue) = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let guard = begun.lock().unwrap_or_else(PoisonError::into_inner);
            let (guard, timeout) = wake
                .wait_timeout_while(guard, limit, |begun| !*begun)
                .unwrap_or_else(PoisonError::into_inner);
            let overdue = timeout.timed_out() && !*guard;
            drop(guard);
            if overdue {
                // The result is looked at below, where the thaw is repeated.
                let _ = platform.thaw(&request.machine);
            }
            overdue
        });
        let backup = platform.begin_backup(request);
        *begun.lock().unwrap_or_else(PoisonError::into_inner) = true;
        wake.notify_all();
        (backup, watch.join().unwrap_or(true))
    });
    let thawed = thaw(platform, request);
    match (backup, thawed) {
        (Ok(backup), Ok(())) if overdue => {
            let reason = format!(
                "beginning the backup took longer than {} s; the guest was thawed before it was done",
                limit.as_secs()
            );
            Ok((backup, Consistency::Crash { reason }))
        }
        (Ok(backup), Ok(())) => Ok((backup, Consistency::FileSystems { frozen })),
        (Ok(_), Err(error)) => {
            // The failed thaw is the graver matter; what cannot be ended here is found by its token.
            let _ = platform.end_backup(
                &request.machine,
                &request.token,
                super::backup::Keep::Nothing,
            );
            Err(error)
        }
        (Err(error), Ok(())) => Err(error),
        (Err(error), Err(thaw)) => Err(thaw.context(format!("after a failed begin ({error})"))),
    }
}

fn thaw(platform: &dyn Platform, request: &BackupRequest) -> Result<()> {
    let mut attempt = 1;
    loop {
        match platform.thaw(&request.machine) {
            Ok(_) => return Ok(()),
            Err(error) if attempt >= THAW_ATTEMPTS => {
                return Err(
                    failure::thaw_failed(&request.machine.0, &error.to_string()).caused_by(error)
                );
            }
            Err(_) => attempt += 1,
        }
    }
}
