//! Being reached.
//!
//! Knows: accepting connections, bounds on how many, handshakes in parallel, and who may enter.
//! Refuses to know: what becomes of a link.
//!
//! Strangers cost little: a connection that has not finished its handshake holds a bounded place
//! for a bounded time, and places are counted per address, so that one address cannot take all.

use super::dial::{certified, handshake_failed, late};
use super::local::{self, LocalSocket};
use super::tally::{Slot, Tally};
use super::{Link, LinkOptions, Socket};
use crate::identity::Identity;
use crate::peer::Peer;
use crate::verify::{self, Expect};
use base::{Error, Kind, Result};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// After an error of `accept` (no file descriptors left) wait so long before the next one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Links that may wait for [`Listener::accept`].
const WAITING_MAX: usize = 16;

/// Accepts links.
pub struct Listener {
    gate: Arc<Gate>,
    address: Option<SocketAddr>,
    accepted: mpsc::Receiver<Link>,
    task: AbortHandle,
}

/// How many came, since the listener began.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ListenCounts {
    /// Became links.
    pub accepted: u64,
    /// Failed the handshake or were too many.
    pub refused: u64,
}

/// Who may enter, and how many are inside.
struct Gate {
    entry: Entry,
    options: LinkOptions,
    handshakes: Tally,
    links: Tally,
    accepted: AtomicU64,
    refused: AtomicU64,
}

/// How a newcomer shows who it is.
enum Entry {
    /// By a certificate.
    Tls {
        acceptor: RwLock<TlsAcceptor>,
        expect: Expect,
    },
    /// By what the kernel says about a process of this host; these users are welcome.
    Local { users: Vec<u32> },
}

enum Door {
    Tcp(TcpListener),
    Local(LocalSocket),
}

impl Listener {
    /// Listens on `address` as `identity` for peers as expected. Port 0 takes any free port.
    ///
    /// # Errors
    /// Of the operating system, with the address; `Invalid` for an unusable identity.
    pub async fn bind(
        address: SocketAddr,
        identity: &Identity,
        expect: Expect,
        options: LinkOptions,
    ) -> Result<Self> {
        let socket = TcpListener::bind(address).await.map_err(|error| {
            Error::io(format!("listening on {address}"), error).hint(
                "check that no other program listens there and that the address is this host's",
            )
        })?;
        let address = socket
            .local_addr()
            .map_err(|error| Error::io("asking for a port", error))?;
        let config = verify::server_config(identity, expect.clone(), Arc::clone(&options.clock))?;
        let acceptor = RwLock::new(TlsAcceptor::from(Arc::new(config)));
        let entry = Entry::Tls { acceptor, expect };
        Ok(Self::start(
            Door::Tcp(socket),
            Some(address),
            entry,
            options,
        ))
    }

    /// Listens on the first free port of a range.
    ///
    /// # Errors
    /// As [`Listener::bind`]; `Conflict` (`protocol.link.no-port`) where all are taken.
    pub async fn bind_in_range(
        host: IpAddr,
        ports: RangeInclusive<u16>,
        identity: &Identity,
        expect: Expect,
        options: LinkOptions,
    ) -> Result<Self> {
        for port in ports.clone() {
            let address = SocketAddr::new(host, port);
            match Self::bind(address, identity, expect.clone(), options.clone()).await {
                Err(error) if in_use(&error) => {}
                bound => return bound,
            }
        }
        Err(Error::new(
            Kind::Conflict,
            "protocol.link.no-port",
            format!(
                "no port from {} to {} of {host} is free",
                ports.start(),
                ports.end()
            ),
        )
        .hint("give the mover a larger range of ports"))
    }

    /// Listens on a Unix socket for processes of this host that run as root, as this process's own
    /// user or as one of `users`. A socket that nobody answers on any more is replaced.
    ///
    /// # Errors
    /// `Conflict` (`protocol.link.in-use`) where somebody answers there.
    pub async fn bind_local(path: &Path, users: &[u32], options: LinkOptions) -> Result<Self> {
        let socket = LocalSocket::bind(path).await?;
        let mut welcome = vec![0, local::own_user()];
        welcome.extend_from_slice(users);
        let entry = Entry::Local { users: welcome };
        Ok(Self::start(Door::Local(socket), None, entry, options))
    }

    fn start(door: Door, address: Option<SocketAddr>, entry: Entry, options: LinkOptions) -> Self {
        let gate = Arc::new(Gate {
            entry,
            options,
            handshakes: Tally::default(),
            links: Tally::default(),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        });
        let (finished, accepted) = mpsc::channel(WAITING_MAX);
        let task = tokio::spawn(Arc::clone(&gate).keep(door, finished)).abort_handle();
        Self {
            gate,
            address,
            accepted,
            task,
        }
    }

    /// The next link: its handshake and hello are complete.
    ///
    /// # Errors
    /// None while the runtime lives.
    pub async fn accept(&mut self) -> Result<Link> {
        self.accepted.recv().await.ok_or_else(|| {
            Error::new(
                Kind::Cancelled,
                "protocol.link.listener-closed",
                "the listener has ended",
            )
        })
    }

    /// The address and port; `None` for a Unix socket.
    pub const fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// How many came.
    pub fn counts(&self) -> ListenCounts {
        ListenCounts {
            accepted: self.gate.accepted.load(Ordering::Relaxed),
            refused: self.gate.refused.load(Ordering::Relaxed),
        }
    }

    /// Shows another certificate from now on, after a renewal. Links that are there stay.
    pub fn replace_identity(&self, identity: &Identity) -> Result<()> {
        if let Entry::Tls { acceptor, expect } = &self.gate.entry {
            let clock = Arc::clone(&self.gate.options.clock);
            let config = verify::server_config(identity, expect.clone(), clock)?;
            *acceptor.write().unwrap_or_else(PoisonError::into_inner) =
                TlsAcceptor::from(Arc::new(config));
        }
        Ok(())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn in_use(error: &Error) -> bool {
    std::error::Error::source(error)
        .and_then(|cause| cause.downcast_ref::<std::io::Error>())
        .is_some_and(|cause| cause.kind() == std::io::ErrorKind::AddrInUse)
}

impl Gate {
    /// Accepts until the listener is dropped.
    async fn keep(self: Arc<Self>, door: Door, finished: mpsc::Sender<Link>) {
        loop {
            let (newcomer, name) = match door.accept().await {
                Ok(newcomer) => newcomer,
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let limits = self.options.limits;
            let all = self.handshakes.enter("", limits.handshakes);
            let own = self.handshakes.enter(&name, limits.handshakes_per_address);
            let (Some(all), Some(own)) = (all, own) else {
                // Not a word: whoever comes so often without finishing is no program of ours.
                self.refused.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(from = name, "too many handshakes at a time");
                continue;
            };
            let (gate, finished) = (Arc::clone(&self), finished.clone());
            tokio::spawn(async move {
                match gate.admit(newcomer).await {
                    Ok(link) => {
                        drop((all, own));
                        gate.accepted.fetch_add(1, Ordering::Relaxed);
                        let _ = finished.send(link).await;
                    }
                    Err(error) => {
                        gate.refused.fetch_add(1, Ordering::Relaxed);
                        let code = error.code();
                        tracing::info!(from = name, code, %error, "refused a connection");
                    }
                }
            });
        }
    }

    async fn admit(&self, newcomer: Newcomer) -> Result<Link> {
        let timing = self.options.timing;
        let mut link = match timeout(timing.handshake, self.shake(newcomer)).await {
            Ok(link) => link?,
            Err(_) => return Err(late("the handshake")),
        };
        match self.places(&link.peer()) {
            Ok(slots) => {
                link.hold(slots);
                Ok(link)
            }
            Err(error) => {
                link.refuse(&error).await;
                Err(error)
            }
        }
    }

    fn places(&self, peer: &Peer) -> Result<Vec<Slot>> {
        let limits = self.options.limits;
        let name = match peer {
            Peer::Certified(identity) => format!("{} {}", identity.role, identity.host),
            Peer::Local { uid, .. } => format!("user {uid}"),
        };
        let all = self.links.enter("", limits.links);
        let own = self.links.enter(&name, limits.links_per_peer);
        match (all, own) {
            (Some(all), Some(own)) => Ok(vec![all, own]),
            _ => Err(Error::new(
                Kind::Limit,
                "protocol.link.too-many",
                format!(
                    "{name} has {} of {} links here",
                    self.links.count(&name),
                    self.links.count("")
                ),
            )
            .hint("wait until other work of this peer has ended")),
        }
    }

    async fn shake(&self, newcomer: Newcomer) -> Result<Link> {
        match (newcomer, &self.entry) {
            (Newcomer::Tcp(socket), Entry::Tls { acceptor, .. }) => {
                let _ = socket.set_nodelay(true);
                let acceptor = acceptor
                    .read()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone();
                let stream = acceptor.accept(socket).await.map_err(handshake_failed)?;
                let peer = certified(stream.get_ref().1.peer_certificates())?;
                let socket: Box<dyn Socket> = Box::new(stream);
                Link::welcome(socket, Peer::Certified(peer), self.options.timing).await
            }
            (Newcomer::Local(socket), Entry::Local { users }) => {
                let peer = local::peer_of(&socket, users)?;
                Link::welcome(Box::new(socket), peer, self.options.timing).await
            }
            _ => Err(Error::new(
                Kind::Bug,
                "protocol.link.door",
                "a door has the wrong lock",
            )),
        }
    }
}

enum Newcomer {
    Tcp(TcpStream),
    Local(UnixStream),
}

impl Door {
    /// A connection, and the name its handshake is counted under.
    async fn accept(&self) -> std::io::Result<(Newcomer, String)> {
        match self {
            Self::Tcp(socket) => {
                let (stream, from) = socket.accept().await?;
                Ok((Newcomer::Tcp(stream), network_of(from.ip())))
            }
            Self::Local(socket) => Ok((Newcomer::Local(socket.accept().await?), "local".into())),
        }
    }
}

/// One IPv4 address, or one IPv6 /64: whoever has one address of it has all of them.
fn network_of(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}
