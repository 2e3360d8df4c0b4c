//! Ending a stream from a thread that holds neither half.
//!
//! Knows: both halves may be blocked in threads of their own while somebody else learns that the
//! stream is no longer wanted. Refuses to know: why.

use super::state::Stream;
use base::Error;
use std::sync::Arc;

/// Fails a stream on both sides. Clones are equal; it may be kept longer than the stream.
#[derive(Clone)]
pub struct StreamBreaker(Arc<Stream>);

impl StreamBreaker {
    pub(super) const fn new(stream: Arc<Stream>) -> Self {
        Self(stream)
    }

    /// Fails the stream with a reason, unless it has failed or ended already. Threads that are
    /// blocked in either half return with the reason at once.
    pub fn fail(&self, why: &Error) {
        self.0.fail(why, true);
    }
}
