//! Threads that live and end together.
//!
//! Knows: the first error of any thread, and that all stop because of it or because somebody asked
//! them to. Refuses to know: what the threads do.
//!
//! Threads run inside [`std::thread::scope`], so none can outlive the work it belongs to. Each
//! looks at [`Crew::check`] between two steps; a thread whose neighbour is gone sees a closed
//! channel and ends with [`neighbour_gone`], which never hides the reason why the neighbour went.

use base::cancel::Cancel;
use base::{Error, Kind, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

const NEIGHBOUR_GONE: &str = "mover.pipeline.neighbour-gone";

/// What a group of threads shares.
pub struct Crew {
    cancel: Cancel,
    stopping: AtomicBool,
    first_error: Mutex<Option<Error>>,
}

impl Crew {
    /// A crew that also stops when `cancel` says so.
    pub fn new(cancel: &Cancel) -> Self {
        Self {
            cancel: cancel.clone(),
            stopping: AtomicBool::new(false),
            first_error: Mutex::new(None),
        }
    }

    /// An error once the crew is to stop. Each thread asks between two steps.
    ///
    /// # Errors
    /// `Cancelled` on request; the code of [`neighbour_gone`] after another thread's error.
    pub fn check(&self) -> Result<()> {
        self.cancel.check()?;
        if self.stopping.load(Ordering::Acquire) {
            Err(neighbour_gone())
        } else {
            Ok(())
        }
    }

    /// Does a thread's whole work; an error, or a panic, stops the crew.
    pub fn work(&self, deed: impl FnOnce() -> Result<()>) {
        let result = catch_unwind(AssertUnwindSafe(deed)).unwrap_or_else(|_| {
            Err(Error::new(
                Kind::Bug,
                "mover.pipeline.panic",
                "a thread of the data path ended in an unforeseen way",
            )
            .hint("please report this with the log of the agent"))
        });
        if let Err(error) = result {
            self.fail(error);
        }
    }

    /// Stops the crew because of this error.
    pub fn fail(&self, error: Error) {
        let mut first = self
            .first_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let replaces = match first.as_ref() {
            None => true,
            Some(old) => old.code() == NEIGHBOUR_GONE && error.code() != NEIGHBOUR_GONE,
        };
        if replaces {
            *first = Some(error);
        }
        self.stopping.store(true, Ordering::Release);
    }

    /// Why the crew stops, as far as is known to a thread that stops with `error`: the first error
    /// of all, to be told to others. That error itself stays for [`Crew::finish`].
    pub fn reason_for(&self, error: &Error) -> Error {
        let first = self
            .first_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match first
            .as_ref()
            .filter(|first| first.code() != NEIGHBOUR_GONE)
        {
            Some(first) => copy(first),
            None => copy(error),
        }
    }

    /// The end, after all threads were joined.
    ///
    /// # Errors
    /// The first error of any thread.
    pub fn finish(self) -> Result<()> {
        match self
            .first_error
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
        {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

/// The same error once more, its causes in its sentence.
fn copy(error: &Error) -> Error {
    let copy = Error::new(error.kind(), error.code().to_owned(), error.to_string());
    match error.hint_text() {
        Some(hint) => copy.hint(hint),
        None => copy,
    }
}

/// A channel's other end is gone: its thread has failed, or the pipeline was built wrongly.
pub fn neighbour_gone() -> Error {
    Error::new(
        Kind::Bug,
        NEIGHBOUR_GONE,
        "a neighbouring thread of the data path ended early",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_wins_over_its_consequences_and_panics_are_errors() {
        let crew = Crew::new(&Cancel::new());
        crew.work(|| Err(neighbour_gone()));
        assert!(crew.check().is_err());
        crew.work(|| Err(Error::invalid("x.y.z", "the reason")));
        crew.work(|| panic!("later"));
        assert_eq!(crew.finish().unwrap_err().code(), "x.y.z");

        let crew = Crew::new(&Cancel::new());
        crew.work(|| panic!("first"));
        assert_eq!(crew.finish().unwrap_err().kind(), Kind::Bug);
    }

    #[test]
    fn a_request_to_stop_is_seen_by_all() {
        let cancel = Cancel::new();
        let crew = Crew::new(&cancel);
        assert!(crew.check().is_ok());
        cancel.cancel();
        assert_eq!(crew.check().unwrap_err().kind(), Kind::Cancelled);
    }
}
