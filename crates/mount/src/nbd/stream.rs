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

use std::io::{Read, Write};
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
