//! Frames into a socket.
//!
//! Knows: the task that writes what is queued and sends signs of life. Refuses to know: what frames
//! mean.

use super::read::silent;
use super::tally::Slot;
use super::{LinkEnd, Socket, Timing};
use crate::error_word::ErrorWord;
use crate::frame::{Frame, FrameKind};
use base::{Error, Result};
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::io::{AsyncWriteExt, WriteHalf};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;

/// What waits to be written.
pub(super) enum Queued {
    /// A frame, and the room it takes.
    Frame(Frame, Option<OwnedSemaphorePermit>),
    /// Somebody waits until all before it is written.
    Mark(std::sync::mpsc::SyncSender<()>),
    /// The end, with a reason where there is one.
    Goodbye(Option<ErrorWord>),
}

/// Writes frames.
pub(super) struct FrameWriter {
    socket: WriteHalf<Box<dyn Socket>>,
    timing: Timing,
    writing: Arc<AtomicU64>,
}

impl FrameWriter {
    pub(super) fn new(socket: WriteHalf<Box<dyn Socket>>, timing: Timing) -> Self {
        Self {
            socket,
            timing,
            writing: Arc::default(),
        }
    }

    /// Nanoseconds spent in writing, for whoever wants to know.
    pub(super) fn writing(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.writing)
    }

    /// Writes what is queued until the link ends.
    pub(super) async fn run(
        mut self,
        mut queued: mpsc::UnboundedReceiver<Queued>,
        end: LinkEnd,
        timing: Timing,
        slots: Vec<Slot>,
    ) {
        let written = tokio::select! {
            written = self.write_queued(&mut queued, timing) => written,
            () = end.wait() => Err(end.error()),
        };
        // Nobody may queue any more: `send` now fails with the reason.
        queued.close();
        match written {
            Ok(()) => {
                let _ = timeout(timing.silence, self.socket.shutdown()).await;
            }
            Err(error) => {
                end.fail(&error);
                // Peers that still read learn of it by the end of the connection.
                let _ = timeout(timing.handshake, self.socket.shutdown()).await;
            }
        }
        drop(slots);
    }

    async fn write_queued(
        &mut self,
        queued: &mut mpsc::UnboundedReceiver<Queued>,
        timing: Timing,
    ) -> Result<()> {
        loop {
            let next = timeout(timing.keepalive, queued.recv()).await;
            match next {
                Err(_) => {
                    self.write_now(&Frame::new(FrameKind::Ping, 0, Vec::new()))
                        .await?
                }
                Ok(Some(Queued::Frame(frame, permit))) => {
                    let begun = Instant::now();
                    self.write(&frame).await?;
                    drop(permit);
                    if queued.is_empty() {
                        self.flush().await?;
                    }
                    let nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
                    self.writing.fetch_add(nanos, Ordering::Relaxed);
                }
                Ok(Some(Queued::Mark(done))) => {
                    self.flush().await?;
                    let _ = done.try_send(());
                }
                Ok(Some(Queued::Goodbye(why))) => return self.write_goodbye(why).await,
                Ok(None) => return self.write_goodbye(None).await,
            }
        }
    }

    async fn write_goodbye(&mut self, why: Option<ErrorWord>) -> Result<()> {
        // A reason that cannot be encoded is left out: the end itself matters more.
        let reason = why
            .and_then(|word| postcard::to_stdvec(&word).ok())
            .unwrap_or_default();
        self.write_now(&Frame::new(FrameKind::Goodbye, 0, reason))
            .await
    }

    /// Writes a frame and sends it on its way.
    pub(super) async fn write_now(&mut self, frame: &Frame) -> Result<()> {
        self.write(frame).await?;
        self.flush().await
    }

    /// Header and payload together, so that TLS does not make a record of the header alone.
    async fn write(&mut self, frame: &Frame) -> Result<()> {
        let header = frame.header()?;
        let (mut head, mut body) = (&header[..], &frame.payload[..]);
        while !head.is_empty() || !body.is_empty() {
            let parts = [IoSlice::new(head), IoSlice::new(body)];
            let step = timeout(self.timing.silence, self.socket.write_vectored(&parts)).await;
            let count = match step {
                Ok(Ok(0)) => return Err(super::cut()),
                Ok(Ok(count)) => count,
                Ok(Err(error)) => return Err(write_failed(error)),
                Err(_) => return Err(silent(self.timing)),
            };
            let of_head = count.min(head.len());
            head = &head[of_head..];
            body = &body[count - of_head..];
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        match timeout(self.timing.silence, self.socket.flush()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(write_failed(error)),
            Err(_) => Err(silent(self.timing)),
        }
    }
}

fn write_failed(error: std::io::Error) -> Error {
    use std::io::ErrorKind as E;
    match crate::verify::explain(&error) {
        Some(explained) => explained,
        None if matches!(
            error.kind(),
            E::ConnectionReset | E::ConnectionAborted | E::BrokenPipe | E::WriteZero
        ) =>
        {
            super::cut().caused_by(error)
        }
        None => Error::io("sending to the peer", error),
    }
}
