//! (being built: signatures are final, bodies follow)

use super::StatusRun;
use base::block::{BlockRead, BlockWrite};
use base::size::ByteRange;
use base::{Error, Kind, Result};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The status of a disk in a context of its own, for example which blocks changed.
pub trait StatusSource: Send + Sync {
    /// Runs of `range` in order, from its start, without gaps; may end early.
    fn status(&self, range: ByteRange) -> Result<Vec<StatusRun>>;
}

/// A disk under a name.
#[derive(Clone)]
pub struct Export {
    _private: (),
}

impl Export {
    /// A disk that clients may only read.
    pub fn read_only(_: Arc<dyn BlockRead>) -> Self {
        Self { _private: () }
    }

    /// A disk that clients may write.
    pub fn writable(_: Arc<dyn BlockWrite>) -> Self {
        Self { _private: () }
    }

    /// A text for people, shown in lists.
    #[must_use]
    pub fn description(self, _: impl Into<String>) -> Self {
        self
    }

    /// A further context, for example `qemu:dirty-bitmap:NAME`.
    #[must_use]
    pub fn context(self, _name: impl Into<String>, _: Arc<dyn StatusSource>) -> Self {
        self
    }
}

/// The exports of a server; may change while it runs. Clones share it.
#[derive(Clone, Default)]
pub struct ExportTable {
    _private: (),
}

impl ExportTable {
    /// Adds an export; `Exists` where the name is taken. The empty name is the default export.
    pub fn add(&self, _name: &str, _: Export) -> Result<()> {
        Ok(())
    }

    /// Takes an export away. Connections that use it go on until they end.
    pub fn remove(&self, _name: &str) -> bool {
        false
    }
}

/// Where a server listens.
#[derive(Clone, Debug)]
pub enum Listen {
    /// A Unix socket, made with mode 0600; a stale socket file in its place is removed.
    Unix(PathBuf),
    /// A TCP address; port 0 takes a free one.
    Tcp(SocketAddr),
}

/// Bounds that clients cannot pass.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// Connections at one time; further ones are closed at once.
    pub connections: usize,
    /// Requests of one connection that are worked on at one time.
    pub requests: usize,
    /// Bytes of all requests held in memory, over all connections.
    pub bytes: u64,
    /// The longest time for the handshake.
    pub handshake_timeout: Duration,
    /// The longest time in the middle of a message, and of a write that makes no progress.
    pub stall_timeout: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections: 64,
            requests: 8,
            bytes: 256 << 20,
            handshake_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(60),
        }
    }
}

/// A server that is not yet started.
pub struct NbdServer {
    _exports: ExportTable,
}

impl NbdServer {
    /// A server of these exports.
    pub fn new(exports: ExportTable) -> Self {
        Self { _exports: exports }
    }

    /// Other bounds.
    #[must_use]
    pub fn limits(self, _: ServerLimits) -> Self {
        self
    }

    /// Demands TLS of every client.
    #[must_use]
    pub fn tls(self, _: Arc<rustls::ServerConfig>) -> Self {
        self
    }

    /// Listens and serves in threads of its own.
    pub fn start(self, _: &Listen) -> Result<RunningServer> {
        Err(Error::new(
            Kind::Unsupported,
            "mount.nbd.unfinished",
            "not yet",
        ))
    }
}

/// A server that runs. Dropping it stops it.
pub struct RunningServer {
    _private: (),
}

impl RunningServer {
    /// The address it listens on, for TCP.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        None
    }

    /// Connections at this moment.
    pub fn connections(&self) -> usize {
        0
    }

    /// Takes no more connections, lets requests in work finish within `grace`, closes all.
    pub fn stop(self, _grace: Duration) {}
}
