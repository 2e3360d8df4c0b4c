//! The part of a stream that lives on the runtime.
//!
//! Knows: how a stream begins, and what each frame that comes does to the shared state. Refuses to
//! know: the threads.

use super::receive::BulkReceiver;
use super::send::{BulkSender, abandoned};
use super::state::Stream;
use super::wire::{self, Ack, Open, Terms};
use super::{BulkHalves, BulkOptions};
use crate::error_word::ErrorWord;
use crate::frame::{Frame, FrameKind};
use crate::link::{Link, LinkReceiver, LinkSender, Purpose, cut, unexpected};
use crate::token::StreamToken;
use base::{Error, Kind, Result};
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::time::timeout;

/// Streams begin with record 1. Resuming is in the format but not yet in this program.
const FIRST: u64 = 1;

/// Begins a stream as the side that dialed.
pub(super) async fn present(
    link: Link,
    token: &StreamToken,
    options: BulkOptions,
) -> Result<BulkHalves> {
    let (sender, mut receiver) = split(link)?;
    let terms = Terms {
        window: options.window.0,
        resume_from: FIRST,
    };
    let open = Open {
        token: token.clone(),
        connection: 0,
        connections: 1,
        terms,
    };
    sender.send(open.frame()).await?;
    let answer = first_frame(&mut receiver, options).await?;
    let theirs = match answer.kind {
        FrameKind::StreamReady => Terms::from_frame(&answer)?,
        FrameKind::Abort => return Err(reason(&answer)),
        _ => return Err(unexpected(&answer, "something else than a stream's answer")),
    };
    check_terms(&theirs)?;
    Ok(start(sender, receiver, options, theirs.window))
}

/// A stream that somebody wants to begin: its opening was read, its token not yet compared.
pub(super) struct Asking {
    sender: LinkSender,
    receiver: LinkReceiver,
    open: Open,
}

/// Reads what the side that dialed wants.
pub(super) async fn ask(link: Link, options: BulkOptions) -> Result<Asking> {
    let (sender, mut receiver) = split(link)?;
    let frame = first_frame(&mut receiver, options).await?;
    if frame.kind != FrameKind::StreamOpen {
        return Err(unexpected(&frame, "something else than a stream's opening"));
    }
    Ok(Asking {
        open: Open::read(&frame)?,
        sender,
        receiver,
    })
}

impl Asking {
    /// The token that was presented.
    pub(super) const fn token(&self) -> &StreamToken {
        &self.open.token
    }

    /// Begins the stream.
    pub(super) async fn admit(self, options: BulkOptions) -> Result<BulkHalves> {
        let checked = check_terms(&self.open.terms).and_then(|()| {
            if (self.open.connection, self.open.connections) == (0, 1) {
                return Ok(());
            }
            Err(Error::new(
                Kind::Unsupported,
                "protocol.stream.connections",
                "this program uses one connection a data stream",
            ))
        });
        if let Err(error) = checked {
            self.refuse(&error).await;
            return Err(error);
        }
        let ours = Terms {
            window: options.window.0,
            resume_from: FIRST,
        };
        self.sender.send(ours.frame()).await?;
        Ok(start(
            self.sender,
            self.receiver,
            options,
            self.open.terms.window,
        ))
    }

    /// Sends the asker away.
    pub(super) async fn refuse(mut self, why: &Error) {
        let bytes = postcard::to_stdvec(&ErrorWord::from(why)).unwrap_or_default();
        let _ = self
            .sender
            .send(Frame::new(FrameKind::Abort, 0, bytes))
            .await;
        self.sender.close(None);
        drop(self.sender);
        self.receiver.drain().await;
    }
}

fn split(link: Link) -> Result<(LinkSender, LinkReceiver)> {
    if link.facts().purpose == Purpose::Bulk {
        return Ok(link.split());
    }
    Err(Error::invalid(
        "protocol.stream.purpose",
        "a link for calls cannot carry a data stream",
    ))
}

async fn first_frame(receiver: &mut LinkReceiver, options: BulkOptions) -> Result<Frame> {
    match timeout(options.stall, receiver.receive()).await {
        Ok(frame) => frame?.ok_or_else(cut),
        Err(_) => Err(Error::new(
            Kind::Timeout,
            "protocol.stream.stalled",
            "the peer opened a connection for a data stream and then said nothing",
        )),
    }
}

fn check_terms(theirs: &Terms) -> Result<()> {
    if theirs.resume_from != FIRST {
        return Err(Error::new(
            Kind::Unsupported,
            "protocol.stream.no-resume",
            "this program cannot resume a data stream",
        )
        .hint("upgrade the older of the two programs, or begin again"));
    }
    Ok(())
}

fn start(
    sender: LinkSender,
    receiver: LinkReceiver,
    options: BulkOptions,
    peer_window: u64,
) -> BulkHalves {
    let stream = Arc::new(Stream::new(sender, options, peer_window));
    tokio::spawn(run(receiver, Arc::clone(&stream)));
    let halves = BulkSender::new(Arc::clone(&stream), Handle::current());
    (halves, BulkReceiver::new(stream))
}

/// Takes what comes until the link ends.
async fn run(mut receiver: LinkReceiver, stream: Arc<Stream>) {
    loop {
        let taken = match receiver.receive().await {
            Ok(Some(frame)) if frame.kind == FrameKind::Abort => {
                stream.fail(&reason(&frame), false);
                break;
            }
            Ok(Some(frame)) => take(frame, &stream),
            Ok(None) => break,
            Err(error) => {
                stream.fail(&error, false);
                break;
            }
        };
        if let Err(error) = taken {
            stream.fail(&error, true);
            break;
        }
    }
    let ended_well = stream.change(|state| {
        state.closed = state.outgoing.finished && state.incoming.finished;
        state.closed
    });
    if !ended_well {
        // After a goodbye too early; after a failure the first reason stays.
        stream.fail(
            &abandoned("the other side ended the connection half-way"),
            false,
        );
    }
    receiver.drain().await;
}

/// What one frame does.
fn take(frame: Frame, stream: &Stream) -> Result<()> {
    match frame.kind {
        FrameKind::Data => stream.change(|state| {
            if state.incoming.abandoned {
                return Err(abandoned("the receiver gave up half-way"));
            }
            state.incoming.push(frame)
        }),
        FrameKind::Ack => {
            let ack = Ack::read(&frame)?;
            stream.change(|state| state.outgoing.acknowledge(ack, &frame))
        }
        FrameKind::Finish => take_finish(&frame, stream),
        FrameKind::Finished => {
            stream.change(|state| {
                let out = &mut state.outgoing;
                if !out.finishing || out.finished || frame.id != out.sent {
                    return Err(unexpected(&frame, "an end that was not asked for"));
                }
                out.finished = true;
                out.acked.kept = out.sent;
                Ok(())
            })?;
            stream.close_if_done();
            Ok(())
        }
        _ => Err(unexpected(
            &frame,
            "something that has no place in a data stream",
        )),
    }
}

/// The peer sends nothing more. Where it never sent anything, there is nothing a thread could
/// declare safe: the direction is at its end.
fn take_finish(frame: &Frame, stream: &Stream) -> Result<()> {
    let empty = {
        let incoming = &stream.peek().incoming;
        if incoming.finishing || frame.id != incoming.received {
            return Err(unexpected(frame, "an end after another number of records"));
        }
        incoming.received == 0
    };
    if empty {
        // Before the state changes, so that no goodbye can overtake it.
        stream.link.send_now(wire::finished(0))?;
    }
    stream.change(|state| {
        state.incoming.finishing = true;
        state.incoming.finished = empty;
    });
    stream.close_if_done();
    Ok(())
}

/// The error that an `Abort` carries.
fn reason(frame: &Frame) -> Error {
    match postcard::from_bytes::<ErrorWord>(&frame.payload) {
        Ok(word) => word.into(),
        Err(_) => unexpected(frame, "a reason that does not parse"),
    }
}
