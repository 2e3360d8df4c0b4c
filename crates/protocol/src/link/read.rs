//! Frames out of a socket.
//!
//! Knows: bounds on time and memory while a frame arrives. Refuses to know: what frames mean.

use super::{Socket, Timing, cut};
use crate::frame::{Frame, HEADER_LENGTH, Header};
use base::{Error, Kind, Result, limit};
use tokio::io::{AsyncReadExt, ReadHalf};
use tokio::time::timeout;

/// Memory is set aside for so many bytes of a payload before they have come, not for more: a peer
/// that announces much must also send much.
const PAYLOAD_STEP: usize = 1 << 20;

/// Reads frames.
pub(super) struct FrameReader {
    socket: ReadHalf<Box<dyn Socket>>,
    timing: Timing,
}

impl FrameReader {
    pub(super) const fn new(socket: ReadHalf<Box<dyn Socket>>, timing: Timing) -> Self {
        Self { socket, timing }
    }

    pub(super) const fn timing(&self) -> Timing {
        self.timing
    }

    /// The next frame; `None` where the connection ends between two frames. Not to be dropped
    /// half-way and called again: bytes would be lost.
    pub(super) async fn read(&mut self) -> Result<Option<Frame>> {
        self.read_within(limit::FRAME_SIZE_MAX).await
    }

    /// The same with a smaller bound on the payload.
    pub(super) async fn read_within(&mut self, limit: usize) -> Result<Option<Frame>> {
        let mut header = [0; HEADER_LENGTH];
        let begun = self.step(&mut header).await?;
        if begun == 0 {
            return Ok(None);
        }
        let whole = self.timing.frame;
        match timeout(whole, self.rest(header, begun, limit)).await {
            Ok(frame) => frame.map(Some),
            Err(_) => Err(Error::new(
                Kind::Unreachable,
                "protocol.link.slow",
                format!(
                    "the peer has not finished a frame within {} s",
                    whole.as_secs_f32()
                ),
            )),
        }
    }

    async fn rest(
        &mut self,
        mut header: [u8; HEADER_LENGTH],
        mut at: usize,
        limit: usize,
    ) -> Result<Frame> {
        while at < HEADER_LENGTH {
            match self.step(&mut header[at..]).await? {
                0 => return Err(cut()),
                count => at += count,
            }
        }
        // What a kind may carry is bounded where it is known: messages are smaller than records.
        let header = Header::read(&header, limit)?;
        header.check_bound()?;
        let mut payload = Vec::new();
        while payload.len() < header.length() {
            let missing = header.length() - payload.len();
            if payload.len() == payload.capacity() {
                payload.reserve_exact(missing.min(payload.len().max(PAYLOAD_STEP)));
            }
            let mut part = (&mut self.socket).take(missing as u64);
            match timeout(self.timing.silence, part.read_buf(&mut payload)).await {
                Ok(Ok(0)) => return Err(cut()),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(read_failed(error)),
                Err(_) => return Err(silent(self.timing)),
            }
        }
        header.seal(payload)
    }

    async fn step(&mut self, buffer: &mut [u8]) -> Result<usize> {
        match timeout(self.timing.silence, self.socket.read(buffer)).await {
            Ok(Ok(count)) => Ok(count),
            Ok(Err(error)) => Err(read_failed(error)),
            Err(_) => Err(silent(self.timing)),
        }
    }
}

fn read_failed(error: std::io::Error) -> Error {
    use std::io::ErrorKind as E;
    match crate::verify::explain(&error) {
        Some(explained) => explained,
        None if matches!(
            error.kind(),
            E::UnexpectedEof | E::ConnectionReset | E::ConnectionAborted | E::BrokenPipe
        ) =>
        {
            cut().caused_by(error)
        }
        None => Error::io("receiving from the peer", error),
    }
}

pub(super) fn silent(timing: Timing) -> Error {
    Error::new(
        Kind::Unreachable,
        "protocol.link.silent",
        format!(
            "the peer gave no sign of life for {} s",
            timing.silence.as_secs_f32()
        ),
    )
    .hint("look whether the other host and its network are up")
}
