//! A connection whose two ends know each other.
//!
//! Knows: how to get one ([`Dialer`], [`Listener`]), the hello that agrees on a version, frames in
//! both directions, signs of life, and an orderly end. This is the house's async room: everything
//! here runs on a tokio runtime. Refuses to know: what the frames mean.
//!
//! Every wait here has a bound; see [`Timing`]. Each end sends a ping when it has sent nothing
//! else for a while, and takes the other for dead when nothing has come for three times as long.

mod dial;
pub(crate) mod hello;
mod listen;
mod local;
mod options;
mod read;
mod tally;
mod write;

pub use dial::Dialer;
pub use hello::Purpose;
pub use listen::{ListenCounts, Listener};
pub use local::dial_local;
pub use options::{LinkLimits, LinkOptions, Timing};

use crate::error_word::ErrorWord;
use crate::frame::{Frame, FrameKind};
use crate::peer::Peer;
use base::{Error, Kind, Result, limit};
use hello::Hello;
use read::FrameReader;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tally::Slot;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;
use write::{FrameWriter, Queued};

/// Bytes that may wait to be written to one link.
const OUTBOX_SIZE: usize = 2 * limit::MESSAGE_SIZE_MAX;

/// Anything bytes flow through both ways.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// What both halves of a link know about it.
#[derive(Clone, Debug)]
pub struct LinkFacts {
    /// The other end.
    pub peer: Peer,
    /// The version of the protocol that both ends speak.
    pub version: u16,
    /// The other end's program and version, for logs. Any text.
    pub program: String,
    /// What the link is for.
    pub purpose: Purpose,
}

/// A connection whose two ends know each other and have agreed on a version.
pub struct Link {
    facts: LinkFacts,
    timing: Timing,
    reader: FrameReader,
    writer: FrameWriter,
    slots: Vec<Slot>,
}

impl Link {
    /// Says hello first, then hears it.
    pub(crate) async fn greet(
        socket: Box<dyn Socket>,
        peer: Peer,
        purpose: Purpose,
        timing: Timing,
    ) -> Result<Self> {
        let (mut reader, mut writer) = halves(socket, timing);
        writer.write_now(&Hello::ours(purpose).frame()).await?;
        let theirs = Hello::read(&mut reader).await?;
        Self::agreed(theirs, peer, timing, reader, writer)
    }

    /// Hears hello first, then says it.
    pub(crate) async fn welcome(
        socket: Box<dyn Socket>,
        peer: Peer,
        timing: Timing,
    ) -> Result<Self> {
        let (mut reader, mut writer) = halves(socket, timing);
        let theirs = Hello::read(&mut reader).await?;
        // Sent also where no version fits, so that both ends can say why.
        writer
            .write_now(&Hello::ours(theirs.purpose).frame())
            .await?;
        Self::agreed(theirs, peer, timing, reader, writer)
    }

    fn agreed(
        theirs: Hello,
        peer: Peer,
        timing: Timing,
        reader: FrameReader,
        writer: FrameWriter,
    ) -> Result<Self> {
        let version = crate::version::agree(theirs.oldest, theirs.newest, &theirs.program)?;
        let facts = LinkFacts {
            peer,
            version,
            program: theirs.program,
            purpose: theirs.purpose,
        };
        Ok(Self {
            facts,
            timing,
            reader,
            writer,
            slots: Vec::new(),
        })
    }

    /// Two ends of a link inside this process, for tests and simulated worlds: `first` is how the
    /// second end knows the first one, and the other way round.
    pub async fn in_memory(
        first: Peer,
        second: Peer,
        purpose: Purpose,
        timing: Timing,
    ) -> Result<(Self, Self)> {
        let (one, two) = tokio::io::duplex(256 * 1024);
        let (one, two) = tokio::join!(
            Self::greet(Box::new(one), second, purpose, timing),
            Self::welcome(Box::new(two), first, timing)
        );
        Ok((one?, two?))
    }

    /// What is known about it.
    pub const fn facts(&self) -> &LinkFacts {
        &self.facts
    }

    /// The other end.
    pub const fn peer(&self) -> Peer {
        self.facts.peer
    }

    /// Takes the link apart. Starts the task that writes and sends signs of life, on the runtime
    /// this is called in.
    pub fn split(self) -> (LinkSender, LinkReceiver) {
        let (queue, queued) = mpsc::unbounded_channel();
        let end = LinkEnd::default();
        let room = Arc::new(Semaphore::new(OUTBOX_SIZE));
        let facts = Arc::new(self.facts);
        let writing = self.writer.writing();
        tokio::spawn(
            self.writer
                .run(queued, end.clone(), self.timing, self.slots),
        );
        let sender = LinkSender {
            queue,
            room,
            end: end.clone(),
            facts: Arc::clone(&facts),
            writing,
        };
        let reader = self.reader;
        (
            sender,
            LinkReceiver {
                reader,
                end,
                facts,
                finished: false,
            },
        )
    }

    /// Ends the link before it was used, telling the peer why.
    pub async fn refuse(self, why: &Error) {
        let (sender, mut receiver) = self.split();
        sender.close(Some(why));
        drop(sender);
        receiver.drain().await;
    }

    /// Makes the link hold places in a listener's count until both halves are gone.
    fn hold(&mut self, slots: Vec<Slot>) {
        self.slots = slots;
    }
}

fn halves(socket: Box<dyn Socket>, timing: Timing) -> (FrameReader, FrameWriter) {
    let (read, write) = tokio::io::split(socket);
    (
        FrameReader::new(read, timing),
        FrameWriter::new(write, timing),
    )
}

/// How a link ended, known to both halves. The first reason wins.
#[derive(Clone)]
struct LinkEnd {
    reason: Arc<OnceLock<ErrorWord>>,
    ended: Arc<watch::Sender<bool>>,
}

impl Default for LinkEnd {
    fn default() -> Self {
        Self {
            reason: Arc::default(),
            ended: Arc::new(watch::Sender::new(false)),
        }
    }
}

impl LinkEnd {
    fn fail(&self, error: &Error) {
        let _ = self.reason.set(ErrorWord::from(error));
        self.ended.send_replace(true);
    }

    fn has_come(&self) -> bool {
        *self.ended.borrow()
    }

    fn error(&self) -> Error {
        match self.reason.get() {
            Some(word) => Error::from(word.clone()),
            None => closed(),
        }
    }

    async fn wait(&self) {
        // An error means that the sender is gone; it lives in `self`.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }
}

/// The half that sends. Clones send over the same link; frames of one clone stay in order. When
/// all clones are gone the link says goodbye.
#[derive(Clone)]
pub struct LinkSender {
    queue: mpsc::UnboundedSender<Queued>,
    room: Arc<Semaphore>,
    end: LinkEnd,
    facts: Arc<LinkFacts>,
    /// Nanoseconds spent in writing.
    writing: Arc<AtomicU64>,
}

impl LinkSender {
    /// What is known about the link.
    pub fn facts(&self) -> &LinkFacts {
        &self.facts
    }

    /// Queues a frame once there is room. Says nothing about when it is sent or whether it arrives.
    ///
    /// # Errors
    /// The reason why the link has ended; `Limit` where the frame is too large.
    pub async fn send(&self, frame: Frame) -> Result<()> {
        if frame.payload.len() > limit::FRAME_SIZE_MAX {
            // Says it as the writer would, without ending the link.
            frame.header()?;
        }
        let room = Arc::clone(&self.room).acquire_many_owned(room_for(&frame));
        let permit = tokio::select! {
            permit = room => permit.map_err(|_| self.end.error())?,
            () = self.end.wait() => return Err(self.end.error()),
        };
        self.queue
            .send(Queued::Frame(frame, Some(permit)))
            .map_err(|_| self.end.error())
    }

    /// Queues a frame if there is room for it now; gives it back if not.
    ///
    /// # Errors
    /// As [`LinkSender::send`].
    pub(crate) fn try_send(&self, frame: Frame) -> Result<Option<Frame>> {
        if self.end.has_come() {
            return Err(self.end.error());
        }
        match Arc::clone(&self.room).try_acquire_many_owned(room_for(&frame)) {
            Ok(permit) => self
                .queue
                .send(Queued::Frame(frame, Some(permit)))
                .map(|()| None)
                .map_err(|_| self.end.error()),
            Err(_) => Ok(Some(frame)),
        }
    }

    /// Waits, on a plain thread, until all that is queued now was handed to the network, or until
    /// the link has ended or `patience` is over.
    pub(crate) fn wait_written(&self, patience: Duration) {
        let (done, written) = std::sync::mpsc::sync_channel(1);
        if self.queue.send(Queued::Mark(done)).is_ok() {
            let _ = written.recv_timeout(patience);
        }
    }

    /// How long the link was busy with writing.
    pub(crate) fn writing_time(&self) -> Duration {
        Duration::from_nanos(self.writing.load(Ordering::Relaxed))
    }

    /// Queues a frame at once, for frames whose number and size are bounded by other means.
    pub(crate) fn send_now(&self, frame: Frame) -> Result<()> {
        self.queue
            .send(Queued::Frame(frame, None))
            .map_err(|_| self.end.error())
    }

    /// Says goodbye after all that is queued, with a reason where there is one. Sends nothing
    /// afterwards.
    pub fn close(&self, why: Option<&Error>) {
        let _ = self.queue.send(Queued::Goodbye(why.map(ErrorWord::from)));
    }
}

/// The half that receives.
pub struct LinkReceiver {
    reader: FrameReader,
    end: LinkEnd,
    facts: Arc<LinkFacts>,
    finished: bool,
}

impl LinkReceiver {
    /// What is known about the link.
    pub fn facts(&self) -> &LinkFacts {
        &self.facts
    }

    /// The next frame; `None` after the peer's goodbye.
    ///
    /// # Errors
    /// `Unreachable` where the connection was cut or the peer is silent, what the frame codec
    /// says of a malformed frame, or the reason the peer gave with its goodbye. The link is over
    /// after an error.
    pub async fn receive(&mut self) -> Result<Option<Frame>> {
        if self.finished {
            return Ok(None);
        }
        let end = self.end.clone();
        let next = tokio::select! {
            next = self.next() => next,
            () = end.wait() => Err(end.error()),
        };
        match next {
            Ok(Some(frame)) => Ok(Some(frame)),
            Ok(None) => {
                self.finished = true;
                Ok(None)
            }
            Err(error) => {
                self.finished = true;
                self.end.fail(&error);
                Err(error)
            }
        }
    }

    async fn next(&mut self) -> Result<Option<Frame>> {
        loop {
            let Some(frame) = self.reader.read().await? else {
                return Err(cut());
            };
            match frame.kind {
                FrameKind::Ping => {}
                FrameKind::Goodbye => {
                    return match goodbye_reason(&frame) {
                        Some(reason) => Err(reason),
                        None => Ok(None),
                    };
                }
                FrameKind::Hello => {
                    return Err(unexpected(&frame, "a second hello"));
                }
                _ => return Ok(Some(frame)),
            }
        }
    }

    /// Ends the link at once, for both halves.
    pub(crate) fn fail(&self, error: &Error) {
        self.end.fail(error);
    }

    /// Reads and drops what still comes until the peer has closed, for a bounded time. Without
    /// this, closing the socket could reset the connection and destroy what is on its way *to* the
    /// peer.
    pub async fn drain(&mut self) {
        let _ = timeout(self.reader.timing().handshake, async {
            while let Ok(Some(_)) = self.reader.read().await {}
        })
        .await;
    }
}

/// What a frame takes of the outbox. One larger than all of it waits until that is empty.
fn room_for(frame: &Frame) -> u32 {
    // The outbox is far below 4 GiB.
    frame.payload.len().clamp(1, OUTBOX_SIZE) as u32
}

/// The error that a goodbye carries, if any.
fn goodbye_reason(frame: &Frame) -> Option<Error> {
    if frame.payload.is_empty() {
        return None;
    }
    Some(match postcard::from_bytes::<ErrorWord>(&frame.payload) {
        Ok(word) => word.into(),
        Err(_) => unexpected(frame, "a reason that does not parse"),
    })
}

/// The peer has closed the connection, or something in between did, without a goodbye.
pub(crate) fn cut() -> Error {
    Error::new(
        Kind::Unreachable,
        "protocol.link.cut",
        "the connection to the peer was cut",
    )
    .hint("look whether the other program still runs, and into its log")
}

fn closed() -> Error {
    Error::new(
        Kind::Unreachable,
        "protocol.link.closed",
        "the link to the peer has ended",
    )
}

/// A frame that has no place here.
pub(crate) fn unexpected(frame: &Frame, what: &str) -> Error {
    Error::invalid(
        "protocol.frame.unexpected",
        format!("the peer sent {what} ({:?} frame {})", frame.kind, frame.id),
    )
}
