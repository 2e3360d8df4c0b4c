//! Which sessions changed, for those who follow one.
//!
//! Knows: a revision a session, and how to wait for the next. Refuses to know: what changed; that
//! is read from the database.

use base::id::SessionId;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Revisions of the sessions that are at work or were lately.
#[derive(Default)]
pub struct Live {
    revisions: Mutex<HashMap<SessionId, watch::Sender<u64>>>,
}

impl Live {
    /// Says that a session changed.
    pub fn changed(&self, session: SessionId) {
        self.sender(session).send_modify(|revision| *revision += 1);
    }

    /// Waits until the revision is beyond `seen`, at most `limit`; the revision then.
    pub async fn wait(&self, session: SessionId, seen: u64, limit: Duration) -> u64 {
        let mut receiver = self.sender(session).subscribe();
        let newer = receiver.wait_for(|revision| *revision > seen);
        if let Ok(Ok(revision)) = tokio::time::timeout(limit, newer).await {
            return *revision;
        }
        *receiver.borrow()
    }

    /// Forgets a session that ended long ago.
    pub fn forget(&self, session: SessionId) {
        self.revisions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&session);
    }

    fn sender(&self, session: SessionId) -> watch::Sender<u64> {
        let mut revisions = self
            .revisions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // From 1, so that a follower that has seen nothing gets an answer at once.
        revisions
            .entry(session)
            .or_insert_with(|| watch::Sender::new(1))
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_follower_wakes_on_change_and_not_before() {
        let live = std::sync::Arc::new(Live::default());
        let session = SessionId::new(1, [0; 10]);
        assert_eq!(live.wait(session, 0, Duration::from_secs(5)).await, 1);
        assert_eq!(live.wait(session, 1, Duration::from_millis(10)).await, 1);
        let follower = tokio::spawn({
            let live = live.clone();
            async move { live.wait(session, 1, Duration::from_secs(60)).await }
        });
        tokio::task::yield_now().await;
        live.changed(session);
        assert_eq!(follower.await.unwrap(), 2);
    }
}
