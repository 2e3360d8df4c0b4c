//! Waiting for async work on a plain thread.
//!
//! Knows: how to hand a future to a runtime and sleep until it is done. Refuses to know: the work.
//!
//! Unlike `Handle::block_on` this never panics, wherever it is called; called on a runtime's own
//! worker thread it merely keeps that thread busy.

use base::{Error, Kind, Result};
use std::future::Future;
use std::sync::mpsc;
use tokio::runtime::Handle;

/// Runs `work` on the runtime and waits for its end.
///
/// # Errors
/// `Cancelled` (`protocol.runtime.gone`) where the runtime was shut down meanwhile.
pub(crate) fn wait<T: Send + 'static>(
    runtime: &Handle,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T> {
    let (done, result) = mpsc::sync_channel(1);
    runtime.spawn(async move {
        let _ = done.send(work.await);
    });
    result.recv().map_err(|_| {
        Error::new(Kind::Cancelled, "protocol.runtime.gone", "the program is shutting down")
    })
}
