//! Asking another process and waiting for its answer.
//!
//! Knows: that one may ask. Refuses to know: links; the real ones are in [`crate::link`], tests
//! bring their own.

use base::Result;

/// Another process that answers questions of one conversation.
pub trait Ask<Q, A>: Send + Sync {
    /// Asks and waits for the answer.
    fn ask(&self, question: &Q) -> Result<A>;
}
