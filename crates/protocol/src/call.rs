//! Asking the other end of a link.
//!
//! Knows: many calls at a time over one link, each with its answers, deadline and cancellation.
//! Refuses to know: what is asked; any serde types will do as request `Q` and answer `A`.
//!
//! A call has any number of events and then one last answer or an error. [`Client::call`] wants
//! only the last answer; [`Client::watch`] wants all of them as they come. A slow reader of events
//! slows its own call's sender, never the other calls of the link.

mod blocking;

pub use blocking::{BlockingClient, BlockingWatch};

use crate::error_word::ErrorWord;
use crate::frame::{Frame, FrameKind};
use crate::link::{Link, LinkFacts, LinkReceiver, LinkSender, unexpected};
use crate::message;
use base::{Error, Kind, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

/// Calls at a time on one link.
pub const CALLS_PER_LINK_MAX: usize = 1024;
/// Events of one call on their way at a time.
pub const EVENTS_IN_FLIGHT_MAX: u32 = 16;
/// How long [`Client::call`] waits for its answer.
pub const CALL_DEADLINE: Duration = Duration::from_secs(60);

/// Asks the other end of a link. Clones share the link; when all are gone it says goodbye.
pub struct Client<Q, A> {
    shared: Arc<Shared>,
    words: PhantomData<fn(Q) -> A>,
}

impl<Q, A> Clone for Client<Q, A> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            words: PhantomData,
        }
    }
}

impl<Q, A> fmt::Debug for Client<Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.facts().peer)
    }
}

impl<Q: Serialize, A: DeserializeOwned> Client<Q, A> {
    /// Calls over this link, which must be for calls. Starts the task that sorts the answers, on
    /// the runtime this is called in.
    pub fn new(link: Link) -> Self {
        let (sender, receiver) = link.split();
        let pending = Arc::new(Mutex::new(Pending::default()));
        tokio::spawn(sort_answers(receiver, Arc::clone(&pending)));
        let shared = Shared {
            sender,
            pending,
            next: AtomicU64::new(1),
            places: Arc::new(Semaphore::new(CALLS_PER_LINK_MAX)),
        };
        Self {
            shared: Arc::new(shared),
            words: PhantomData,
        }
    }

    /// Asks, and waits at most [`CALL_DEADLINE`] for the last answer.
    ///
    /// # Errors
    /// What the other end answers with; `Timeout` (`protocol.call.timeout`); `Unreachable` where
    /// the link ends before the answer. After the latter two the request may have been carried out
    /// or not: requests that change something must be idempotent or be asked about.
    pub async fn call(&self, request: &Q) -> Result<A> {
        self.call_within(request, CALL_DEADLINE).await
    }

    /// The same with another deadline.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn call_within(&self, request: &Q, deadline: Duration) -> Result<A> {
        let bytes = message::encode(self.facts().version, request)?;
        let answer = last_answer(Arc::clone(&self.shared), bytes, deadline).await?;
        message::decode(self.facts().version, &answer)
    }

    /// Asks, and reads all answers as they come. Dropping the watch cancels the call.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn watch(&self, request: &Q) -> Result<Watch<A>> {
        let bytes = message::encode(self.facts().version, request)?;
        let version = self.facts().version;
        let begun = Shared::begin(Arc::clone(&self.shared), bytes);
        let call = match timeout(CALL_DEADLINE, begun).await {
            Ok(call) => call?,
            Err(_) => return Err(late(CALL_DEADLINE)),
        };
        Ok(Watch {
            call,
            version,
            words: PhantomData,
        })
    }
}

impl<Q, A> Client<Q, A> {
    /// What is known about the link.
    pub fn facts(&self) -> &LinkFacts {
        self.shared.sender.facts()
    }

    /// Whether the link has ended; every call fails from then on.
    pub fn is_closed(&self) -> bool {
        lock(&self.shared.pending).ended.is_some()
    }
}

/// The answers of one call.
pub struct Watch<A> {
    call: RawCall,
    version: u16,
    words: PhantomData<fn() -> A>,
}

impl<A: DeserializeOwned> Watch<A> {
    /// The next answer; `None` after the last one. Waits as long as the link lives. May be dropped
    /// and called again without loss.
    ///
    /// # Errors
    /// As [`Client::call`], without `Timeout`.
    pub async fn next(&mut self) -> Result<Option<A>> {
        match self.call.next().await? {
            Some(bytes) => message::decode(self.version, &bytes).map(Some),
            None => Ok(None),
        }
    }

    /// The same, but `Timeout` (`protocol.call.timeout`) where nothing comes in time. The call goes
    /// on; ask again.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn next_within(&mut self, patience: Duration) -> Result<Option<A>> {
        match timeout(patience, self.next()).await {
            Ok(next) => next,
            Err(_) => Err(late(patience)),
        }
    }
}

/// What all clones of a client share.
struct Shared {
    sender: LinkSender,
    pending: Arc<Mutex<Pending>>,
    next: AtomicU64,
    places: Arc<Semaphore>,
}

/// Calls that wait for answers, until the link ends.
#[derive(Default)]
struct Pending {
    calls: HashMap<u64, mpsc::Sender<Answer>>,
    ended: Option<ErrorWord>,
}

enum Answer {
    Event(Vec<u8>),
    Last(Vec<u8>),
    Failed(ErrorWord),
}

fn lock(pending: &Mutex<Pending>) -> std::sync::MutexGuard<'_, Pending> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Sends a request. Waits for a place among the calls and for room in the link.
    async fn begin(self: Arc<Self>, request: Vec<u8>) -> Result<RawCall> {
        let place = Arc::clone(&self.places)
            .acquire_owned()
            .await
            .map_err(|_| ended())?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        // Room for every event that has credit, and for the last answer.
        let (answer, answers) = mpsc::channel(EVENTS_IN_FLIGHT_MAX as usize + 1);
        {
            let mut pending = lock(&self.pending);
            if let Some(word) = &pending.ended {
                return Err(word.clone().into());
            }
            pending.calls.insert(id, answer);
        }
        // From here on, dropping the call tidies up.
        let call = RawCall {
            shared: Arc::clone(&self),
            id,
            answers,
            taken: 0,
            finished: false,
            _place: place,
        };
        self.sender
            .send(Frame::new(FrameKind::Request, id, request))
            .await?;
        Ok(call)
    }
}

/// One call, not yet typed.
struct RawCall {
    shared: Arc<Shared>,
    id: u64,
    answers: mpsc::Receiver<Answer>,
    taken: u32,
    finished: bool,
    _place: OwnedSemaphorePermit,
}

impl RawCall {
    /// The next answer; `None` after the last one.
    async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        if self.finished {
            return Ok(None);
        }
        match self.answers.recv().await {
            Some(Answer::Event(bytes)) => {
                self.grant()?;
                Ok(Some(bytes))
            }
            Some(Answer::Last(bytes)) => {
                self.finished = true;
                Ok(Some(bytes))
            }
            Some(Answer::Failed(word)) => {
                self.finished = true;
                Err(word.into())
            }
            None => {
                self.finished = true;
                Err(lock(&self.shared.pending)
                    .ended
                    .clone()
                    .map_or_else(ended, Error::from))
            }
        }
    }

    /// Tells the other end of room for more events, half a window at a time.
    fn grant(&mut self) -> Result<()> {
        self.taken += 1;
        if self.taken >= EVENTS_IN_FLIGHT_MAX / 2 {
            let room = std::mem::take(&mut self.taken).to_le_bytes().to_vec();
            self.shared
                .sender
                .send_now(Frame::new(FrameKind::Credit, self.id, room))?;
        }
        Ok(())
    }
}

impl Drop for RawCall {
    fn drop(&mut self) {
        lock(&self.shared.pending).calls.remove(&self.id);
        if !self.finished {
            let cancel = Frame::new(FrameKind::Cancel, self.id, Vec::new());
            // Where the link has ended there is nothing to cancel.
            let _ = self.shared.sender.send_now(cancel);
        }
    }
}

/// The whole of a call that wants only the last answer.
async fn last_answer(shared: Arc<Shared>, request: Vec<u8>, deadline: Duration) -> Result<Vec<u8>> {
    let asked = async {
        let mut call = Shared::begin(shared, request).await?;
        loop {
            match call.next().await? {
                Some(answer) if call.finished => return Ok(answer),
                Some(_event) => {}
                None => return Err(ended()),
            }
        }
    };
    match timeout(deadline, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(late(deadline)),
    }
}

/// Sorts what comes over the link to the calls that wait for it, until the link ends.
async fn sort_answers(mut receiver: LinkReceiver, pending: Arc<Mutex<Pending>>) {
    let reason = loop {
        match receiver.receive().await {
            Ok(Some(frame)) => {
                if let Err(error) = sort_answer(frame, &pending) {
                    receiver.fail(&error);
                    break error;
                }
            }
            Ok(None) => break ended(),
            Err(error) => break error,
        }
    };
    let mut pending = lock(&pending);
    pending.ended = Some(ErrorWord::from(&reason));
    // Their receivers find the reason.
    pending.calls.clear();
}

fn sort_answer(frame: Frame, pending: &Mutex<Pending>) -> Result<()> {
    let mut pending = lock(pending);
    let last = match frame.kind {
        FrameKind::Event => false,
        FrameKind::Response | FrameKind::Failure => true,
        _ => return Err(unexpected(&frame, "something else than an answer")),
    };
    // A call that is no longer waited for: its answer was on the way when we cancelled.
    let Some(call) = pending.calls.get(&frame.id).cloned() else {
        return Ok(());
    };
    if last {
        pending.calls.remove(&frame.id);
    }
    let id = frame.id;
    let answer = match frame.kind {
        FrameKind::Event => Answer::Event(frame.payload),
        FrameKind::Response => Answer::Last(frame.payload),
        _ => Answer::Failed(failure(&frame)?),
    };
    match call.try_send(answer) {
        Err(mpsc::error::TrySendError::Full(_)) => Err(Error::invalid(
            "protocol.call.flooded",
            format!("the peer sent more events for call {id} than it had credit for"),
        )),
        // Closed: nobody waits any more.
        _ => Ok(()),
    }
}

fn failure(frame: &Frame) -> Result<ErrorWord> {
    postcard::from_bytes(&frame.payload)
        .map_err(|_| unexpected(frame, "an error that does not parse"))
}

fn late(deadline: Duration) -> Error {
    Error::new(
        Kind::Timeout,
        "protocol.call.timeout",
        format!(
            "the peer did not answer within {} s",
            deadline.as_secs_f32()
        ),
    )
    .hint("look into the peer's log; the request may still be carried out")
}

fn ended() -> Error {
    Error::new(
        Kind::Unreachable,
        "protocol.call.ended",
        "the peer ended the link before it answered",
    )
    .hint("look whether the other program still runs, and into its log")
}
