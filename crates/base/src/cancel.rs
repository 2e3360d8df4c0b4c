//! Asking long work to stop.
//!
//! Knows: one flag that many threads share. Refuses to know: who asked and why.

use crate::error::{Error, Kind, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that long work looks at between steps. Clones share it.
#[derive(Clone, Default, Debug)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Not asked yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks to stop. Cannot be taken back.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether somebody asked.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// An error of kind `Cancelled` if somebody asked.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() {
            Err(Error::new(
                Kind::Cancelled,
                "base.cancelled",
                "stopped on request",
            ))
        } else {
            Ok(())
        }
    }
}
