//! The byte stream under an NBD connection.
//!
//! Knows: two halves that are used by different threads, a deadline for reading, and how to hang
//! up from outside. Refuses to know: NBD.

use std::io::{Read, Write};
use std::time::Instant;

/// How a stream is ended or bounded by somebody who neither reads nor writes it.
pub trait HangUp: Send + Sync {
    /// Ends both directions; blocked reads and writes return at once. May be called twice.
    fn hang_up(&self);

    /// From now on reads fail with `TimedOut` once this moment has passed; `None` lifts it.
    fn read_until(&self, deadline: Option<Instant>);
}

/// Two halves of one connection and the handle that ends it.
pub struct ByteStream {
    /// Bytes from the peer.
    pub reader: Box<dyn Read + Send>,
    /// Bytes to the peer. A write that makes no progress must fail sooner or later.
    pub writer: Box<dyn Write + Send>,
    /// Ends the connection from outside.
    pub control: std::sync::Arc<dyn HangUp>,
}
