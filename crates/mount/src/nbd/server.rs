//! The NBD server: our disks as exports for other programs.
//!
//! Knows: listening, the bound on connections, and how to stop without cutting off a reply.
//! Refuses to know: what lies behind an export.

mod budget;
mod export;
mod handshake;
mod listen;
mod perform;
mod session;

pub use export::{Export, ExportTable, StatusSource};
pub use listen::Listen;

use super::stream::{ByteStream, HangUp};
use base::{Error, Result};
use budget::Budget;
use listen::{Listener, Wake};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Bounds that clients cannot pass.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// Connections at one time; further ones are closed at once.
    pub connections: usize,
    /// Requests of one connection that are worked on at one time: its threads.
    pub requests: usize,
    /// Bytes of all requests held in memory, over all connections; at least the largest request.
    pub bytes: u64,
    /// The longest time for the handshake.
    pub handshake_timeout: Duration,
    /// The longest time from the first to the last byte of one message, either way. Between
    /// messages a client may be silent for ever.
    pub message_timeout: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections: 64,
            requests: 8,
            bytes: 256 << 20,
            handshake_timeout: Duration::from_secs(30),
            message_timeout: Duration::from_secs(120),
        }
    }
}

/// A server that is not yet started.
pub struct NbdServer {
    exports: ExportTable,
    limits: ServerLimits,
    tls: Option<Arc<rustls::ServerConfig>>,
    socket_mode: u32,
}

impl NbdServer {
    /// A server of these exports, which may change while it runs.
    pub fn new(exports: ExportTable) -> Self {
        Self {
            exports,
            limits: ServerLimits::default(),
            tls: None,
            socket_mode: 0o600,
        }
    }

    /// Other bounds.
    #[must_use]
    pub fn limits(mut self, limits: ServerLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Demands TLS of every client. Whether clients need certificates is the configuration's say.
    #[must_use]
    pub fn tls(mut self, config: Arc<rustls::ServerConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// The permissions of a Unix socket; 0600 where nothing is said.
    #[must_use]
    pub fn socket_mode(mut self, mode: u32) -> Self {
        self.socket_mode = mode;
        self
    }

    /// Listens and serves in threads of its own.
    ///
    /// # Errors
    /// `Conflict` where another server listens there, `Exists` where the path is no socket, and
    /// what the operating system says.
    pub fn start(self, listen: &Listen) -> Result<RunningServer> {
        let listener = Listener::open(listen, self.socket_mode)?;
        let wake = Wake::new()?;
        let tcp_address = listener.tcp_address();
        let shared = self.shared();
        let accepting = Arc::clone(&shared);
        let waking = wake.other_end()?;
        let thread = std::thread::Builder::new()
            .name("nbd-accept".to_owned())
            .spawn(move || accept_all(&accepting, &listener, &waking))
            .map_err(|error| Error::io("cannot start the thread of an NBD server", error))?;
        Ok(RunningServer {
            shared,
            wake,
            accepting: Some(thread),
            tcp_address,
        })
    }

    /// Serves one client over a given stream, in this thread and those of its requests, until the
    /// client leaves.
    ///
    /// # Errors
    /// What the client did wrong, or why it was lost, in the handshake.
    pub fn serve_stream(self, stream: ByteStream) -> Result<()> {
        serve(&self.shared(), stream)
    }

    fn shared(self) -> Arc<Shared> {
        Arc::new(Shared {
            exports: self.exports,
            budget: Budget::new(self.limits.bytes),
            limits: self.limits,
            tls: self.tls,
            connections: Mutex::default(),
            left: Condvar::new(),
            next_id: AtomicU64::new(0),
        })
    }
}

/// What all connections of one server share.
struct Shared {
    exports: ExportTable,
    limits: ServerLimits,
    tls: Option<Arc<rustls::ServerConfig>>,
    budget: Budget,
    connections: Mutex<HashMap<u64, Arc<dyn HangUp>>>,
    /// Told whenever a connection ends.
    left: Condvar,
    next_id: AtomicU64,
}

/// A place among the connections, given back however its thread ends.
struct Place {
    shared: Arc<Shared>,
    id: u64,
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, HashMap<u64, Arc<dyn HangUp>>> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more connection, if there is one.
    fn enter(self: &Arc<Self>, control: &Arc<dyn HangUp>) -> Option<Place> {
        let mut connections = self.connections();
        if connections.len() >= self.limits.connections {
            return None;
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        connections.insert(id, Arc::clone(control));
        Some(Place {
            shared: Arc::clone(self),
            id,
        })
    }

    /// Waits until all connections have ended, at most until `deadline`.
    fn wait_for_all(&self, deadline: Instant) {
        let mut connections = self.connections();
        while !connections.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let woken = self.left.wait_timeout(connections, left);
            connections = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(control) = self.shared.connections().remove(&self.id) {
            control.hang_up();
        }
        self.shared.left.notify_all();
    }
}

/// Takes connections until it is woken.
fn accept_all(shared: &Arc<Shared>, listener: &Listener, wake: &Wake) {
    loop {
        let stream = match listener.accept(wake, shared.limits.message_timeout) {
            Ok(Some(stream)) => stream,
            Ok(None) => return,
            // Out of file descriptors, or a client that left again: neither may spin nor end us.
            Err(_) => {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
        };
        let Some(place) = shared.enter(&stream.control) else {
            continue;
        };
        let serving = Arc::clone(shared);
        // Without a thread the closure is dropped, and with it the connection and its place.
        let _ = std::thread::Builder::new()
            .name("nbd-serve".to_owned())
            .spawn(move || {
                let _place = place;
                // A client that misbehaves or vanishes is its own affair.
                let _ = serve(&serving, stream);
            });
    }
}

/// One connection from greeting to good-bye.
fn serve(shared: &Shared, stream: ByteStream) -> Result<()> {
    let control = Arc::clone(&stream.control);
    let deadline = Instant::now() + shared.limits.handshake_timeout;
    control.read_until(Some(deadline));
    control.write_until(Some(deadline));
    let agreed = handshake::negotiate(stream, &shared.exports, shared.tls.as_ref())?;
    control.read_until(None);
    control.write_until(None);
    if let Some(agreed) = agreed {
        session::run(agreed, &shared.budget, &shared.limits);
    }
    control.hang_up();
    Ok(())
}

/// A server that runs. Dropping it stops it.
pub struct RunningServer {
    shared: Arc<Shared>,
    wake: Wake,
    accepting: Option<JoinHandle<()>>,
    tcp_address: Option<SocketAddr>,
}

impl RunningServer {
    /// The address it listens on, for TCP.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp_address
    }

    /// Connections at this moment.
    pub fn connections(&self) -> usize {
        self.shared.connections().len()
    }

    /// Takes no more connections, lets requests in work finish within `grace`, closes all.
    pub fn stop(mut self, grace: Duration) {
        self.end(grace);
    }

    fn end(&mut self, grace: Duration) {
        let Some(accepting) = self.accepting.take() else {
            return;
        };
        self.wake.wake();
        // The thread does not panic; if it did, it takes no more connections either.
        let _ = accepting.join();
        self.shared
            .connections()
            .values()
            .for_each(|control| control.stop_reading());
        self.shared.wait_for_all(Instant::now() + grace);
        self.shared
            .connections()
            .values()
            .for_each(|control| control.hang_up());
        // What is left are threads inside a disk that does not answer; they end when it does.
        self.shared
            .wait_for_all(Instant::now() + grace.min(Duration::from_secs(1)));
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        self.end(Duration::from_secs(5));
    }
}
