//! (being built: signatures are final, bodies follow)

use super::{ByteStream, ChangedExtents, NbdAddress};
use base::block::{BlockRead, BlockWrite, Extent};
use base::size::{ByteCount, ByteOffset, ByteRange};
use base::{Error, Kind, Result};
use std::sync::Arc;
use std::time::Duration;

/// The context that tells holes and zeros from data.
pub const BASE_ALLOCATION: &str = "base:allocation";

/// The context of QEMU's dirty bitmap `name`.
pub fn dirty_bitmap_context(name: &str) -> String {
    format!("qemu:dirty-bitmap:{name}")
}

/// How to connect.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Contexts that must be there (a bitmap): connecting fails with `NotFound` otherwise.
    pub required_contexts: Vec<String>,
    /// Contexts that are used when they are there.
    pub wanted_contexts: Vec<String>,
    /// Certificates for an address that demands TLS.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// The longest time for connecting and the whole handshake.
    pub connect_timeout: Duration,
    /// The longest time without a single byte from a server that owes an answer.
    pub stall_timeout: Duration,
    /// Whether to offer 64-bit headers.
    pub extended_headers: bool,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            required_contexts: Vec::new(),
            wanted_contexts: vec![BASE_ALLOCATION.to_owned()],
            tls: None,
            connect_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(60),
            extended_headers: true,
        }
    }
}

impl ConnectOptions {
    /// Demands QEMU's dirty bitmap `name`.
    #[must_use]
    pub fn bitmap(mut self, name: &str) -> Self {
        self.required_contexts.push(dirty_bitmap_context(name));
        self
    }

    /// Certificates for TLS.
    #[must_use]
    pub fn tls(mut self, config: Arc<rustls::ClientConfig>) -> Self {
        self.tls = Some(config);
        self
    }
}

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

/// One export of a server's list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExportEntry {
    /// Its name.
    pub name: String,
    /// A text for people; often empty.
    pub description: String,
}

/// A run of bytes with one status in one context.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StatusRun {
    /// Where.
    pub range: ByteRange,
    /// The context's flags.
    pub flags: u64,
}

/// An open export. Shared by threads; requests of all of them are in flight together.
pub struct NbdClient {
    _private: (),
}

/// A read that is under way.
pub struct PendingRead {
    _private: (),
}

fn unfinished<T>() -> Result<T> {
    Err(Error::new(
        Kind::Unsupported,
        "mount.nbd.unfinished",
        "not yet",
    ))
}

/// The exports a server lists.
pub fn list_exports(_: &NbdAddress, _: &ConnectOptions) -> Result<Vec<ExportEntry>> {
    unfinished()
}

impl NbdClient {
    /// Opens an export.
    pub fn connect(_: &NbdAddress, _: ConnectOptions) -> Result<Self> {
        unfinished()
    }

    /// Opens an export over any stream, for example one that is tunnelled.
    pub fn over(_: ByteStream, _export: &str, _: ConnectOptions) -> Result<Self> {
        unfinished()
    }

    /// Whether the server refuses writes.
    pub fn is_read_only(&self) -> bool {
        true
    }

    /// Whether several connections see one another's writes, so that one may open more of them.
    pub fn can_multi_conn(&self) -> bool {
        false
    }

    /// The server's sizes.
    pub fn block_sizes(&self) -> BlockSizes {
        BlockSizes {
            minimum: 1,
            preferred: 4096,
            maximum: 32 << 20,
        }
    }

    /// The contexts that may be asked of.
    pub fn contexts(&self) -> Vec<String> {
        Vec::new()
    }

    /// Starts to read `buffer.len()` bytes from `offset` on (aligned to the minimum, at most the
    /// maximum) and returns at once; many may be under way. Waits only while too many are.
    pub fn start_read(&self, _: ByteOffset, _buffer: Vec<u8>) -> Result<PendingRead> {
        unfinished()
    }

    /// The status of `range` in one context; may end early but never before the first byte.
    pub fn block_status(&self, _context: &str, _: ByteRange) -> Result<Vec<StatusRun>> {
        unfinished()
    }

    /// The dirty parts of `range` in order, those known to be zeros marked so.
    pub fn changed_extents(&self, bitmap: &str, range: ByteRange) -> ChangedExtents<'_> {
        ChangedExtents::new(self, bitmap, range)
    }

    /// Tells the server that the bytes of `range` are no longer needed.
    pub fn trim(&self, _: ByteRange) -> Result<()> {
        unfinished()
    }

    /// Says good-bye and closes. Dropping does the same.
    pub fn close(self) {}
}

impl PendingRead {
    /// Waits for the bytes: the buffer that was given, filled.
    pub fn wait(self) -> Result<Vec<u8>> {
        unfinished()
    }
}

impl BlockRead for NbdClient {
    fn size(&self) -> ByteCount {
        ByteCount::ZERO
    }
    fn read_at(&self, _: ByteOffset, _: &mut [u8]) -> Result<()> {
        unfinished()
    }
    fn extents(&self, _: ByteRange) -> Result<Vec<Extent>> {
        unfinished()
    }
}

impl BlockWrite for NbdClient {
    fn write_at(&self, _: ByteOffset, _: &[u8]) -> Result<()> {
        unfinished()
    }
    fn write_zeroes(&self, _: ByteRange) -> Result<()> {
        unfinished()
    }
    fn flush(&self) -> Result<()> {
        unfinished()
    }
}
