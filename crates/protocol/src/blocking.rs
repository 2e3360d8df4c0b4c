//! Waiting for async work on a plain thread.
//!
//! Knows: how to hand a future to a runtime and sleep until it is done. Refuses to know: the work.
//!
//! Meant for plain threads. Called on a worker of a runtime with several it works too, at the price
//! of one more thread; on a runtime with one thread it would wait for itself and is refused.

use base::{Error, Kind, Result};
use std::future::Future;
use std::sync::mpsc;
use tokio::runtime::{Handle, RuntimeFlavor};

/// Runs `work` on the runtime and waits for its end.
///
/// # Errors
/// `Cancelled` (`protocol.runtime.gone`) where the runtime was shut down meanwhile; `Bug`
/// (`protocol.runtime.single`) where it was called on a runtime of one thread.
pub(crate) fn wait<T: Send + 'static>(
    runtime: &Handle,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T> {
    let wait = || {
        let (done, result) = mpsc::sync_channel(1);
        runtime.spawn(async move {
            let _ = done.send(work.await);
        });
        result.recv().map_err(|_| {
            Error::new(
                Kind::Cancelled,
                "protocol.runtime.gone",
                "the program is shutting down",
            )
        })
    };
    match Handle::try_current().map(|here| here.runtime_flavor()) {
        Err(_) => wait(),
        // Hands this worker's other tasks to another thread first.
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(wait),
        Ok(_) => Err(Error::new(
            Kind::Bug,
            "protocol.runtime.single",
            "a thread that must not wait was asked to wait",
        )),
    }
}
