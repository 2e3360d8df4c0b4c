//! Streams that others are expected to begin.
//!
//! Knows: tokens, each good for one stream, and the thread that waits for it. Refuses to know: who
//! dials.

use super::engine;
use super::{BulkHalves, BulkOptions};
use crate::link::Link;
use crate::token::StreamToken;
use base::id::StreamId;
use base::{Error, Kind, Result};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

/// Streams that are expected at a time.
const EXPECTED_MAX: usize = 4096;
/// How long a peer may take to say which stream it comes for.
const ASK_DEADLINE: Duration = Duration::from_secs(10);

/// The streams that are expected here. Clones share it.
#[derive(Clone, Default)]
pub struct StreamRegister(Arc<Mutex<HashMap<StreamId, Waiting>>>);

struct Waiting {
    token: StreamToken,
    options: BulkOptions,
    hand_over: mpsc::SyncSender<BulkHalves>,
}

/// A stream that is expected. Dropping it takes the token back.
pub struct ExpectedStream {
    register: StreamRegister,
    id: StreamId,
    arrived: mpsc::Receiver<BulkHalves>,
}

impl StreamRegister {
    /// Nothing expected yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamId, Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Expects one stream with this token from now on.
    ///
    /// # Errors
    /// `Exists` (`protocol.stream.expected-already`); `Limit`.
    pub fn expect(&self, token: &StreamToken, options: BulkOptions) -> Result<ExpectedStream> {
        let (hand_over, arrived) = mpsc::sync_channel(1);
        let mut expected = self.lock();
        if expected.contains_key(&token.id) {
            return Err(Error::new(
                Kind::Exists,
                "protocol.stream.expected-already",
                format!("stream {} is expected already", token.id),
            ));
        }
        if expected.len() >= EXPECTED_MAX {
            return Err(Error::new(
                Kind::Limit,
                "protocol.stream.too-many",
                format!("more than {EXPECTED_MAX} data streams are expected"),
            ));
        }
        let id = token.id;
        expected.insert(
            id,
            Waiting {
                token: token.clone(),
                options,
                hand_over,
            },
        );
        drop(expected);
        Ok(ExpectedStream {
            register: self.clone(),
            id,
            arrived,
        })
    }

    /// Takes a link for bulk data that somebody has dialed, compares its token and hands the stream
    /// to the thread that waits for it. A wrong token leaves the expectation in place.
    ///
    /// # Errors
    /// `Denied` (`protocol.stream.denied`), also told to the peer; what goes wrong on the link.
    pub async fn admit(&self, link: Link) -> Result<()> {
        let options = BulkOptions {
            stall: ASK_DEADLINE,
            ..BulkOptions::default()
        };
        let asking = engine::ask(link, options).await?;
        let Some(waiting) = self.claim(asking.token()) else {
            // The same answer for an unknown stream and a wrong secret.
            let error = Error::new(
                Kind::Denied,
                "protocol.stream.denied",
                "no data stream with this token is expected here",
            )
            .hint("the order may have been cancelled meanwhile; run the job again");
            asking.refuse(&error).await;
            return Err(error);
        };
        let halves = asking.admit(waiting.options).await?;
        // Where the thread is gone the halves are dropped, which ends the stream.
        let _ = waiting.hand_over.send(halves);
        Ok(())
    }

    /// Takes the expectation out: a token is good once.
    fn claim(&self, presented: &StreamToken) -> Option<Waiting> {
        let mut expected = self.lock();
        let fits = expected.get(&presented.id)?.token.matches(presented);
        if fits {
            expected.remove(&presented.id)
        } else {
            None
        }
    }
}

impl ExpectedStream {
    /// Waits until the other side has begun the stream.
    ///
    /// # Errors
    /// `Timeout` (`protocol.stream.not-begun`).
    pub fn wait(self, patience: Duration) -> Result<BulkHalves> {
        self.arrived.recv_timeout(patience).map_err(|_| {
            Error::new(
                Kind::Timeout,
                "protocol.stream.not-begun",
                format!("the other agent did not begin stream {} in time", self.id),
            )
            .hint("look whether the two hosts can reach each other and no firewall is in between")
        })
    }
}

impl ExpectedStream {
    /// The stream, if the other side begins it within `patience`; ask again otherwise. For threads
    /// that look at something else between.
    pub fn begun_within(&self, patience: Duration) -> Option<BulkHalves> {
        self.arrived.recv_timeout(patience).ok()
    }
}

impl Drop for ExpectedStream {
    fn drop(&mut self) {
        self.register.lock().remove(&self.id);
    }
}
