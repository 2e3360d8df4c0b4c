//! The byte stream under an NBD connection.
//!
//! Knows: two halves that are used by different threads, a deadline for reading, and how to hang
//! up from outside; Unix and TCP sockets, and TLS over any of them.
//! Refuses to know: NBD.

mod inbox;
mod socket;
mod tls;

pub use inbox::Inbox;
pub(super) use socket::connect;
pub use tls::{accept_tls, start_tls};

use std::io::{IoSlice, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How a stream is ended or bounded by somebody who neither reads nor writes it.
pub trait HangUp: Send + Sync {
    /// Ends both directions; blocked reads and writes return at once. May be called twice.
    fn hang_up(&self);

    /// Ends the direction from the peer: reads return what is there, then nothing.
    fn stop_reading(&self);

    /// From now on reads fail with `TimedOut` once this moment has passed; `None` lifts it.
    /// A read that is already waiting is not disturbed.
    fn read_until(&self, deadline: Option<Instant>);

    /// The same for writes, so that a peer that takes a byte now and then cannot hold one up.
    fn write_until(&self, deadline: Option<Instant>);
}

/// Writes a header and its payload, in one system call where the stream can.
pub fn write_both(
    writer: &mut (dyn Write + Send),
    header: &[u8],
    payload: &[u8],
) -> std::io::Result<()> {
    if payload.is_empty() {
        return writer.write_all(header);
    }
    let mut done = 0;
    while done < header.len() {
        let parts = [IoSlice::new(&header[done..]), IoSlice::new(payload)];
        match writer.write_vectored(&parts) {
            Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
            Ok(count) => done += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    writer.write_all(&payload[done - header.len()..])
}

/// Two halves of one connection and the handle that ends it.
pub struct ByteStream {
    /// Bytes from the peer.
    pub reader: Box<dyn Read + Send>,
    /// Bytes to the peer. A write that makes no progress must fail sooner or later.
    pub writer: Box<dyn Write + Send>,
    /// Ends the connection from outside.
    pub control: Arc<dyn HangUp>,
}

impl ByteStream {
    /// A connected Unix socket. Writes fail after `stall` without progress.
    pub fn unix(socket: UnixStream, stall: Duration) -> std::io::Result<Self> {
        socket::split_unix(socket, stall)
    }

    /// A connected TCP socket, without delay of small messages. Writes fail after `stall` without
    /// progress.
    pub fn tcp(socket: TcpStream, stall: Duration) -> std::io::Result<Self> {
        socket::split_tcp(socket, stall)
    }
}
