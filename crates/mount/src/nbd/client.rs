//! The NBD client: an export of another program as a disk of ours.
//!
//! Knows: connecting, reading, writing and asking for the status of an export, with the server's
//! block sizes kept. Refuses to know: when to connect again (the caller's decision: after an error
//! of kind `Unreachable` or `Timeout` the connection is dead, and a new one may do).

mod disk;
mod fault;
mod flight;
mod handshake;
mod options;
mod pipeline;
mod status;

pub(super) use fault::broken_stream;
pub use options::{BASE_ALLOCATION, ConnectOptions, dirty_bitmap_context};
pub use status::StatusRun;

use super::stream::{self, ByteStream};
use super::wire::request::{Command, Request};
use super::wire::{
    FLAG_CAN_MULTI_CONN, FLAG_READ_ONLY, FLAG_SEND_FLUSH, FLAG_SEND_TRIM, FLAG_SEND_WRITE_ZEROES,
    PAYLOAD_MAX,
};
use super::{ChangedExtents, NbdAddress, NbdSocket};
use base::block::{BlockRead, check_range};
use base::size::{ByteOffset, ByteRange};
use base::{Error, Kind, Result};
use flight::{Outcome, Pieces, Purpose};
use handshake::{ExportFacts, Handshake};
use pipeline::{Patience, Pipeline, Terms, Ticket};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// What a server says of its requests' sizes, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockSizes {
    /// Offsets and lengths must be multiples of this.
    pub minimum: u32,
    /// Multiples of this are fast.
    pub preferred: u32,
    /// The most bytes of one read or write.
    pub maximum: u32,
}

impl Default for BlockSizes {
    /// What the protocol lets one assume.
    fn default() -> Self {
        Self {
            minimum: 1,
            preferred: 4096,
            maximum: PAYLOAD_MAX,
        }
    }
}

/// One export of a server's list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExportEntry {
    /// Its name.
    pub name: String,
    /// A text for people; often empty.
    pub description: String,
}

/// An open export. Shared by threads; requests of all of them are in flight together.
pub struct NbdClient {
    pipeline: Arc<Pipeline>,
    receiver: Option<JoinHandle<()>>,
    facts: ExportFacts,
    extended: bool,
    /// Ids and names of the contexts.
    contexts: Vec<(u32, String)>,
    /// Buffers for reads into memory that is not ours.
    buffers: Mutex<Vec<Vec<u8>>>,
    /// Held while an unaligned write reads, changes and writes a block.
    edges: Mutex<()>,
}

/// A read that is under way. Dropping it lets the bytes come and go unseen.
pub struct PendingRead {
    pipeline: Arc<Pipeline>,
    ticket: Ticket,
}

/// The exports that a server lists.
///
/// # Errors
/// Those of `NbdClient::connect`; `Denied` where the server does not list.
pub fn list_exports(address: &NbdAddress, options: &ConnectOptions) -> Result<Vec<ExportEntry>> {
    greet(address, options)?.list()
}

/// Connects, and encrypts where the address demands it.
fn greet(address: &NbdAddress, options: &ConnectOptions) -> Result<Handshake> {
    let deadline = Instant::now() + options.connect_timeout;
    let stream = stream::connect(address, deadline, options.stall_timeout)?;
    stream.control.read_until(Some(deadline));
    let handshake = Handshake::greet(stream)?;
    if !address.tls {
        return Ok(handshake);
    }
    let config = options.tls.clone().ok_or_else(|| {
        Error::invalid(
            "mount.nbd.tls-unconfigured",
            "the address demands TLS; no certificates",
        )
        .hint("give the certificate authority, and a client certificate where needed")
    })?;
    let host = match &address.socket {
        NbdSocket::Tcp(host, _) => Some(host.as_str()),
        NbdSocket::Unix(_) => None,
    };
    let name = handshake::tls_name(options, address.tls_name.as_deref().or(host))?;
    handshake.secure(config, name)
}

impl NbdClient {
    /// Opens an export.
    ///
    /// # Errors
    /// `Unreachable` or `Timeout` where nobody answers, `NotFound` for an export or a required
    /// context that is not there, `Denied` where TLS is refused, demanded or fails, `Invalid`
    /// where the other side does not speak NBD.
    pub fn connect(address: &NbdAddress, options: ConnectOptions) -> Result<Self> {
        let open = || Self::open(greet(address, &options)?, &address.export, &options);
        open().map_err(|error| error.context(format!("opening {address}")))
    }

    /// Opens an export over any stream, for example one that is tunnelled. TLS is the stream's
    /// own matter.
    ///
    /// # Errors
    /// As `connect`.
    pub fn over(stream: ByteStream, export: &str, options: &ConnectOptions) -> Result<Self> {
        stream
            .control
            .read_until(Some(Instant::now() + options.connect_timeout));
        Self::open(Handshake::greet(stream)?, export, options)
    }

    fn open(mut handshake: Handshake, export: &str, options: &ConnectOptions) -> Result<Self> {
        let extended = options.extended_headers && handshake.extended_headers()?;
        let structured = extended || handshake.structured_replies()?;
        let queries = options.contexts();
        let contexts = if structured && !queries.is_empty() {
            handshake.set_contexts(export, queries)?
        } else {
            Vec::new()
        };
        let (stream, facts) = handshake.go(export)?;
        let missing = options
            .required_contexts
            .iter()
            .find(|wanted| !contexts.iter().any(|(_, name)| name == *wanted));
        if let Some(name) = missing {
            return Err(context_missing(name));
        }
        stream.control.read_until(None);
        let ids = contexts.iter().map(|(id, _)| *id).collect();
        let terms = Terms {
            structured,
            extended,
            contexts: ids,
        };
        let patience = Patience {
            stall: options.stall_timeout,
            request: options.request_timeout,
        };
        let (pipeline, receiver) = Pipeline::start(stream, terms, patience)?;
        Ok(Self {
            pipeline,
            receiver: Some(receiver),
            facts,
            extended,
            contexts,
            buffers: Mutex::default(),
            edges: Mutex::default(),
        })
    }

    /// Whether the server refuses writes.
    pub fn is_read_only(&self) -> bool {
        self.has(FLAG_READ_ONLY)
    }

    /// Whether several connections see one another's writes, so that one may open more of them.
    pub fn can_multi_conn(&self) -> bool {
        self.has(FLAG_CAN_MULTI_CONN)
    }

    /// Whether both sides use 64-bit headers.
    pub fn has_extended_headers(&self) -> bool {
        self.extended
    }

    /// The server's sizes.
    pub fn block_sizes(&self) -> BlockSizes {
        self.facts.sizes
    }

    /// The names of the contexts that may be asked of.
    pub fn contexts(&self) -> impl Iterator<Item = &str> {
        self.contexts.iter().map(|(_, name)| name.as_str())
    }

    /// An error if the connection is dead: `Unreachable`, `Timeout`, or what broke it.
    pub fn check(&self) -> Result<()> {
        self.pipeline.check()
    }

    /// Starts to read `buffer.len()` bytes from `offset` on and returns at once; many may be under
    /// way. Waits only while too many are. Offset and length must be multiples of the server's
    /// minimum and at most its maximum.
    ///
    /// # Errors
    /// `Invalid` for a range that does not fit; the reason, where the connection is dead.
    pub fn start_read(&self, offset: ByteOffset, buffer: Vec<u8>) -> Result<PendingRead> {
        let length = buffer.len() as u64;
        check_range(ByteRange::new(offset.0, length), self.size())?;
        let BlockSizes {
            minimum, maximum, ..
        } = self.facts.sizes;
        let aligned = (offset.0 | length).is_multiple_of(u64::from(minimum));
        if !aligned || length == 0 || length > u64::from(maximum) {
            return Err(pipeline::unfit(
                "mount.nbd.request-unfit",
                format!("a read of {length} bytes at {offset} does not fit the server's blocks"),
            ));
        }
        let request = self.request(Command::READ, offset.0, length);
        let purpose = Purpose::Read(buffer, Pieces::default());
        let ticket = self.pipeline.submit(request, &[], purpose, length)?;
        Ok(PendingRead {
            pipeline: Arc::clone(&self.pipeline),
            ticket,
        })
    }

    /// The dirty parts of `range` in order, those known to be zeros marked so; the rest is clean.
    /// `bitmap` is the bitmap's name without `qemu:dirty-bitmap:`.
    ///
    /// A disk that grew reports its new part as clean: the caller compares the sizes.
    pub fn changed_extents(&self, bitmap: &str, range: ByteRange) -> ChangedExtents<'_> {
        ChangedExtents::new(self, dirty_bitmap_context(bitmap), range)
    }

    /// Tells the server that the bytes of `range` are no longer needed. Nothing happens where the
    /// server does not know how, or for parts smaller than its blocks.
    ///
    /// # Errors
    /// What the server answers; the reason, where the connection is dead.
    pub fn trim(&self, range: ByteRange) -> Result<()> {
        check_range(range, self.size())?;
        self.check_writable()?;
        if !self.has(FLAG_SEND_TRIM) {
            return Ok(());
        }
        let block = u64::from(self.facts.sizes.minimum);
        let start = range.offset.0.next_multiple_of(block);
        let end = range.end().0 / block * block;
        self.effects(Command::TRIM, start, end)
    }

    /// Says good-bye and closes. Dropping does the same.
    pub fn close(self) {
        drop(self);
    }

    fn has(&self, flag: u16) -> bool {
        self.facts.flags & flag != 0
    }

    fn request(&self, command: Command, offset: u64, length: u64) -> Request {
        Request {
            flags: 0,
            command,
            cookie: 0,
            offset,
            length,
        }
    }

    fn check_writable(&self) -> Result<()> {
        if self.is_read_only() {
            Err(Error::new(
                Kind::Denied,
                "mount.nbd.read-only",
                "the NBD export is read-only",
            ))
        } else {
            Ok(())
        }
    }

    /// Waits for a request that brings back nothing.
    fn done(&self, ticket: &Ticket) -> Result<()> {
        match self.pipeline.wait(ticket)? {
            Outcome::Done => Ok(()),
            other => Err(mixed_up(&other)),
        }
    }

    /// A buffer of `length` bytes with anything in it.
    fn buffer(&self, length: usize) -> Vec<u8> {
        let spare = self
            .buffers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let mut buffer = spare.unwrap_or_default();
        buffer.resize(length, 0);
        buffer
    }

    fn give_back(&self, buffer: Vec<u8>) {
        const KEPT: usize = 16;
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        if buffers.len() < KEPT {
            buffers.push(buffer);
        }
    }
}

impl Drop for NbdClient {
    fn drop(&mut self) {
        self.pipeline.close();
        if let Some(receiver) = self.receiver.take() {
            // The thread never panics; if it did, there is nobody left to tell.
            let _ = receiver.join();
        }
    }
}

impl PendingRead {
    /// Waits for the bytes: the buffer that was given, filled.
    ///
    /// # Errors
    /// What the server answered; the reason, where the connection died; `Timeout`.
    pub fn wait(self) -> Result<Vec<u8>> {
        match self.pipeline.wait(&self.ticket)? {
            Outcome::Bytes(buffer) => Ok(buffer),
            other => Err(mixed_up(&other)),
        }
    }
}

/// A flight gave back what it was not sent for.
fn mixed_up(outcome: &Outcome) -> Error {
    Error::new(
        Kind::Bug,
        "mount.nbd.outcome-mixed-up",
        format!("a request brought back {outcome:?} instead of what it was sent for"),
    )
}

/// The context is not there, or was not asked for.
fn context_missing(name: &str) -> Error {
    Error::new(
        Kind::NotFound,
        "mount.nbd.context-missing",
        format!("the NBD export has no metadata context \u{201c}{name}\u{201d}"),
    )
    .hint("for a dirty bitmap: is it enabled, and does the server export it?")
}
