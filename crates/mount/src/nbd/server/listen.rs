//! The socket a server listens on.
//!
//! Knows: making it with the right permissions, replacing a stale one, and waiting for a client
//! or for the order to stop. Refuses to know: what a client wants.

use super::super::stream::ByteStream;
use base::{Error, Kind, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a server listens.
#[derive(Clone, Debug)]
pub enum Listen {
    /// A Unix socket. A stale socket file in its place is removed, a living one is not.
    Unix(PathBuf),
    /// A TCP address; port 0 takes a free one.
    Tcp(SocketAddr),
}

/// A socket that listens.
pub enum Listener {
    Unix(UnixListener, PathBuf),
    Tcp(TcpListener),
}

/// A pair of sockets by which one thread wakes another out of its wait.
pub struct Wake {
    ours: UnixStream,
    theirs: Option<UnixStream>,
}

impl Wake {
    pub fn new() -> Result<Self> {
        let failed = |error| Error::io("cannot make a pair of sockets", error);
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        Ok(Self {
            ours,
            theirs: Some(theirs),
        })
    }

    /// The end for the thread that waits.
    pub fn other_end(&self) -> Result<Self> {
        let failed = |error| Error::io("cannot share a pair of sockets", error);
        let theirs = self.theirs.as_ref().map(UnixStream::try_clone).transpose();
        match theirs.map_err(failed)? {
            Some(ours) => Ok(Self { ours, theirs: None }),
            None => Err(Error::new(
                Kind::Bug,
                "mount.nbd-server.wake",
                "only one end is left",
            )),
        }
    }

    pub fn wake(&self) {
        // A full or closed pair has woken already.
        let _ = (&self.ours).write_all(&[1]);
    }
}

impl Listener {
    pub fn open(listen: &Listen, mode: u32) -> Result<Self> {
        match listen {
            Listen::Unix(path) => {
                remove_stale(path)?;
                let listener = bind_unix(path, mode)
                    .map_err(|error| Error::io(format!("cannot listen on {path:?}"), error))?;
                Ok(Self::Unix(listener, path.clone()))
            }
            Listen::Tcp(address) => {
                let listener = TcpListener::bind(address);
                let nonblocking = |listener: TcpListener| {
                    listener.set_nonblocking(true)?;
                    Ok(listener)
                };
                listener
                    .and_then(nonblocking)
                    .map(Self::Tcp)
                    .map_err(|error| {
                        Error::io(format!("cannot listen on {address}"), error)
                            .hint("choose another address or port, or stop who uses it")
                    })
            }
        }
    }

    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Unix(..) => None,
            Self::Tcp(listener) => listener.local_addr().ok(),
        }
    }

    /// Waits for a client; `None` where the thread was woken instead.
    pub fn accept(&self, wake: &Wake, stall: Duration) -> io::Result<Option<ByteStream>> {
        loop {
            let woken = {
                let mut waiting = [
                    PollFd::from_borrowed_fd(wake.ours.as_fd(), PollFlags::IN),
                    PollFd::from_borrowed_fd(self.fd(), PollFlags::IN),
                ];
                match poll(&mut waiting, None) {
                    Err(rustix::io::Errno::INTR) => continue,
                    result => result?,
                };
                !waiting[0].revents().is_empty()
            };
            if woken {
                return Ok(None);
            }
            let accepted = match self {
                Self::Unix(listener, _) => listener.accept().and_then(|(socket, _)| {
                    socket.set_nonblocking(false)?;
                    ByteStream::unix(socket, stall)
                }),
                Self::Tcp(listener) => listener.accept().and_then(|(socket, _)| {
                    socket.set_nonblocking(false)?;
                    ByteStream::tcp(socket, stall)
                }),
            };
            match accepted {
                // The client left between the two calls.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result.map(Some),
            }
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(listener, _) => listener.as_fd(),
            Self::Tcp(listener) => listener.as_fd(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            // Somebody may have removed it already.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Removes a socket that nobody listens on.
fn remove_stale(path: &Path) -> Result<()> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Err(Error::new(
            Kind::Exists,
            "mount.nbd-server.path-taken",
            format!("{path:?} is there already and is no socket"),
        )
        .hint("choose another path for the NBD socket"));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
                .map_err(|error| Error::io(format!("cannot remove the stale {path:?}"), error))
        }
        _ => Err(Error::new(
            Kind::Conflict,
            "mount.nbd-server.socket-in-use",
            format!("another program listens on {path:?}"),
        )
        .hint("stop it, or choose another path for the NBD socket")),
    }
}

/// Binds a socket whose file never has wider permissions than `mode`, not even for a moment: on
/// Linux the file takes those that the socket had before.
fn bind_unix(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(mode))?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, 128)?;
    Ok(UnixListener::from(socket))
}
