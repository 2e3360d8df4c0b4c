//! Answering the other end of a link.
//!
//! Knows: many calls at a time, each in a task of its own; events, cancellation, and that a call
//! that panics fails alone. Refuses to know: what the calls do.

use crate::blocking::wait;
use crate::call::{CALLS_PER_LINK_MAX, EVENTS_IN_FLIGHT_MAX};
use crate::error_word::ErrorWord;
use crate::frame::{Frame, FrameKind};
use crate::link::{Link, LinkFacts, LinkReceiver, LinkSender, unexpected};
use crate::message;
use crate::peer::Peer;
use base::cancel::Cancel;
use base::limit::MESSAGE_SIZE_MAX;
use base::{Error, Kind, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// Bytes of requests of one link that may be at work at a time.
const REQUESTS_SIZE_MAX: usize = 8 * MESSAGE_SIZE_MAX;

/// Answers requests.
pub trait Service: Send + Sync + 'static {
    /// What is asked.
    type Request: DeserializeOwned + Send + 'static;
    /// What is answered.
    type Response: Serialize + Send + Sync + 'static;

    /// Answers one request: events through `call`, the last answer by returning. Runs until it
    /// returns, also when nobody waits any more: it is never stopped half-way, so look at
    /// [`Call::cancel`] in long work. Work that blocks belongs on a thread.
    fn answer(
        &self,
        request: Self::Request,
        call: Call<Self::Response>,
    ) -> impl Future<Output = Result<Self::Response>> + Send;
}

/// One request that is being answered.
pub struct Call<A> {
    id: u64,
    sender: LinkSender,
    state: Arc<CallState>,
    runtime: Handle,
    words: PhantomData<fn(A)>,
}

impl<A> Clone for Call<A> {
    fn clone(&self) -> Self {
        Self {
            id: self.id,
            sender: self.sender.clone(),
            state: Arc::clone(&self.state),
            runtime: self.runtime.clone(),
            words: PhantomData,
        }
    }
}

impl<A: Serialize> Call<A> {
    /// Sends an event. Waits while the asker is behind with reading.
    ///
    /// # Errors
    /// `Cancelled` where nobody waits any more; the reason why the link has ended; `Limit`.
    pub async fn send(&self, event: &A) -> Result<()> {
        let bytes = message::encode(self.sender.facts().version, event)?;
        send_event(self.id, self.sender.clone(), Arc::clone(&self.state), bytes).await
    }

    /// The same from a plain thread.
    ///
    /// # Errors
    /// As [`Call::send`].
    pub fn send_blocking(&self, event: &A) -> Result<()> {
        let bytes = message::encode(self.sender.facts().version, event)?;
        let sent = send_event(self.id, self.sender.clone(), Arc::clone(&self.state), bytes);
        wait(&self.runtime, sent)?
    }
}

impl<A> Call<A> {
    /// Who asks.
    pub fn peer(&self) -> Peer {
        self.sender.facts().peer
    }

    /// What is known about the link.
    pub fn facts(&self) -> &LinkFacts {
        self.sender.facts()
    }

    /// Set when the asker cancels the call or is gone. For long work to look at.
    pub fn cancel(&self) -> Cancel {
        self.state.cancel.clone()
    }

    /// Returns when the asker cancels the call or is gone.
    pub async fn cancelled(&self) {
        // An error means that the sender is gone; it lives in `self`.
        let _ = self
            .state
            .cancelled
            .subscribe()
            .wait_for(|cancelled| *cancelled)
            .await;
    }
}

struct CallState {
    cancel: Cancel,
    cancelled: watch::Sender<bool>,
    credit: Semaphore,
    size: usize,
}

impl CallState {
    fn new(size: usize) -> Self {
        Self {
            cancel: Cancel::new(),
            cancelled: watch::Sender::new(false),
            credit: Semaphore::new(EVENTS_IN_FLIGHT_MAX as usize),
            size,
        }
    }

    fn cancel(&self) {
        self.cancel.cancel();
        self.cancelled.send_replace(true);
        // Wakes a sender of events that waits for credit.
        self.credit.close();
    }
}

async fn send_event(
    id: u64,
    sender: LinkSender,
    state: Arc<CallState>,
    bytes: Vec<u8>,
) -> Result<()> {
    match state.credit.acquire().await {
        Ok(credit) => credit.forget(),
        Err(_) => {
            return Err(Error::new(
                Kind::Cancelled,
                "protocol.call.cancelled",
                "nobody waits for the answer any more",
            ));
        }
    }
    sender.send(Frame::new(FrameKind::Event, id, bytes)).await
}

/// Answers all requests of a link until it ends, then waits for the answers still at work (told to
/// cancel). Dropping the future ends the link and tells them, too, without waiting.
///
/// # Errors
/// Why the link ended, unless the peer said goodbye.
pub async fn serve<S: Service>(link: Link, service: Arc<S>) -> Result<()> {
    let (sender, mut receiver) = link.split();
    let calls = Calls::default();
    let ending = Ending {
        calls: calls.clone(),
        sender: sender.clone(),
    };
    let mut work = JoinSet::new();
    let ended = answer_all(&mut receiver, &sender, &calls, &mut work, &service).await;
    if let Err(error) = &ended {
        // Heard by a peer that broke the rules; where the connection is gone nobody hears it.
        sender.close(Some(error));
    }
    calls.cancel_all();
    while work.join_next().await.is_some() {}
    // Goodbye comes after the last answers.
    drop(ending);
    receiver.drain().await;
    ended
}

/// Tells all calls that nobody waits any more, also where `serve` itself is dropped half-way.
struct Ending {
    calls: Calls,
    sender: LinkSender,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.calls.cancel_all();
        self.sender.close(None);
    }
}

async fn answer_all<S: Service>(
    receiver: &mut LinkReceiver,
    sender: &LinkSender,
    calls: &Calls,
    work: &mut JoinSet<()>,
    service: &Arc<S>,
) -> Result<()> {
    while let Some(frame) = receiver.receive().await? {
        while work.try_join_next().is_some() {}
        match frame.kind {
            FrameKind::Request => {
                let id = frame.id;
                match calls.enter(&frame)? {
                    Some(state) => {
                        let answering = Answering {
                            id,
                            sender: sender.clone(),
                            calls: calls.clone(),
                            state,
                        };
                        work.spawn(answering.run(Arc::clone(service), frame.payload));
                    }
                    None => sender.send(failure(id, &too_many())).await?,
                }
            }
            FrameKind::Cancel => calls.cancel(frame.id),
            FrameKind::Credit => calls.credit(&frame)?,
            _ => return Err(unexpected(&frame, "something else than a request")),
        }
    }
    Ok(())
}

/// One request on its way to its last answer.
struct Answering {
    id: u64,
    sender: LinkSender,
    calls: Calls,
    state: Arc<CallState>,
}

impl Answering {
    async fn run<S: Service>(self, service: Arc<S>, request: Vec<u8>) {
        let version = self.sender.facts().version;
        let answer = self.answer(&service, &request, version).await;
        let frame = match answer.and_then(|answer| message::encode(version, &answer)) {
            Ok(bytes) => Frame::new(FrameKind::Response, self.id, bytes),
            Err(error) => failure(self.id, &error),
        };
        // First, so that an asker who counts its calls never finds us behind.
        self.calls.leave(self.id);
        // Where the link has ended nobody waits.
        let _ = self.sender.send(frame).await;
    }

    async fn answer<S: Service>(
        &self,
        service: &Arc<S>,
        request: &[u8],
        version: u16,
    ) -> Result<S::Response> {
        let request: S::Request = message::decode(version, request)?;
        let call = Call {
            id: self.id,
            sender: self.sender.clone(),
            state: Arc::clone(&self.state),
            runtime: Handle::current(),
            words: PhantomData,
        };
        let service = Arc::clone(service);
        // A task of its own, so that a panic ends this call and nothing else.
        match tokio::spawn(async move { service.answer(request, call).await }).await {
            Ok(answer) => answer,
            Err(error) if error.is_panic() => Err(Error::new(
                Kind::Bug,
                "protocol.serve.panicked",
                "the other program has a bug and could not answer",
            )
            .hint("please report this with the other program's log")),
            Err(_) => Err(Error::new(
                Kind::Cancelled,
                "protocol.runtime.gone",
                "the other program is shutting down",
            )),
        }
    }
}

/// The calls of one link that are at work.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<AtWork>>);

#[derive(Default)]
struct AtWork {
    calls: HashMap<u64, Arc<CallState>>,
    size: usize,
}

impl Calls {
    fn lock(&self) -> std::sync::MutexGuard<'_, AtWork> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a request; `None` where there are too many.
    fn enter(&self, frame: &Frame) -> Result<Option<Arc<CallState>>> {
        let mut at_work = self.lock();
        if at_work.calls.contains_key(&frame.id) {
            return Err(unexpected(frame, "a second request of one number"));
        }
        let size = frame.payload.len();
        if at_work.calls.len() >= CALLS_PER_LINK_MAX || at_work.size + size > REQUESTS_SIZE_MAX {
            return Ok(None);
        }
        at_work.size += size;
        let state = Arc::new(CallState::new(size));
        at_work.calls.insert(frame.id, Arc::clone(&state));
        Ok(Some(state))
    }

    fn leave(&self, id: u64) {
        let mut at_work = self.lock();
        if let Some(state) = at_work.calls.remove(&id) {
            at_work.size -= state.size;
        }
    }

    /// A call that is not there has been answered already.
    fn cancel(&self, id: u64) {
        if let Some(state) = self.lock().calls.get(&id) {
            state.cancel();
        }
    }

    fn cancel_all(&self) {
        self.lock().calls.values().for_each(|state| state.cancel());
    }

    fn credit(&self, frame: &Frame) -> Result<()> {
        let Ok(room) = <[u8; 4]>::try_from(&frame.payload[..]).map(u32::from_le_bytes) else {
            return Err(unexpected(frame, "a credit that does not parse"));
        };
        if let Some(state) = self.lock().calls.get(&frame.id) {
            let most = EVENTS_IN_FLIGHT_MAX as usize;
            let credit = room as usize;
            if credit > most || state.credit.available_permits() + credit > most {
                return Err(unexpected(frame, "more credit than there is"));
            }
            state.credit.add_permits(credit);
        }
        Ok(())
    }
}

fn failure(id: u64, error: &Error) -> Frame {
    // Without an encoding there is still an answer; the asker says that it does not parse.
    let bytes = postcard::to_stdvec(&ErrorWord::from(error)).unwrap_or_default();
    Frame::new(FrameKind::Failure, id, bytes)
}

fn too_many() -> Error {
    Error::new(
        Kind::Limit,
        "protocol.call.too-many",
        format!(
            "more than {CALLS_PER_LINK_MAX} calls at a time, or {REQUESTS_SIZE_MAX} bytes of them"
        ),
    )
    .hint("ask again when earlier calls are answered")
}
