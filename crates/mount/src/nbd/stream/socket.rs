//! Sockets of the operating system as byte streams.
//!
//! Knows: connecting within a time, deadlines by the socket's own timeout, shutting down.
//! Refuses to know: what is sent.

use super::{ByteStream, HangUp};
use crate::nbd::{NbdAddress, NbdSocket};
use base::{Error, Kind, Result};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What Unix and TCP sockets have in common.
trait Socket: Send + Sync {
    fn limit_read(&self, timeout: Option<Duration>) -> io::Result<()>;
    fn end(&self, how: Shutdown);
}

impl Socket for UnixStream {
    fn limit_read(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.set_read_timeout(timeout)
    }
    fn end(&self, how: Shutdown) {
        // Fails only where the peer has gone already, which is what is wanted.
        let _ = self.shutdown(how);
    }
}

impl Socket for TcpStream {
    fn limit_read(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.set_read_timeout(timeout)
    }
    fn end(&self, how: Shutdown) {
        // As above.
        let _ = self.shutdown(how);
    }
}

/// A socket, shared by its two halves and its control.
struct Shared<S> {
    socket: S,
    read_deadline: Mutex<Option<Instant>>,
    write_deadline: Mutex<Option<Instant>>,
}

struct ReadHalf<S> {
    shared: Arc<Shared<S>>,
    /// Whether the socket has a timeout of an earlier deadline.
    limited: bool,
}

struct WriteHalf<S>(Arc<Shared<S>>);

impl<S: Socket> HangUp for Shared<S> {
    fn hang_up(&self) {
        self.socket.end(Shutdown::Both);
    }

    fn stop_reading(&self) {
        self.socket.end(Shutdown::Read);
    }

    fn read_until(&self, deadline: Option<Instant>) {
        *self
            .read_deadline
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = deadline;
    }

    fn write_until(&self, deadline: Option<Instant>) {
        *self
            .write_deadline
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = deadline;
    }
}

impl<S: Socket> Read for ReadHalf<S>
where
    for<'a> &'a S: Read,
{
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let deadline = *self
            .shared
            .read_deadline
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(deadline) = deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.shared.socket.limit_read(Some(left))?;
            self.limited = true;
        } else if self.limited {
            self.shared.socket.limit_read(None)?;
            self.limited = false;
        }
        loop {
            match (&self.shared.socket).read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                result => return result,
            }
        }
    }
}

impl<S> WriteHalf<S> {
    fn check_deadline(&self) -> io::Result<()> {
        let deadline = *self
            .0
            .write_deadline
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match deadline {
            Some(deadline) if Instant::now() >= deadline => Err(io::ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }
}

impl<S: Socket> Write for WriteHalf<S>
where
    for<'a> &'a S: Write,
{
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.check_deadline()?;
        timed((&self.0.socket).write(bytes))
    }

    fn write_vectored(&mut self, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.check_deadline()?;
        timed((&self.0.socket).write_vectored(parts))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A socket's send timeout shows as `WouldBlock`.
fn timed(result: io::Result<usize>) -> io::Result<usize> {
    result.map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    })
}

fn split<S: Socket + 'static>(socket: S) -> ByteStream
where
    for<'a> &'a S: Read + Write,
{
    let shared = Arc::new(Shared {
        socket,
        read_deadline: Mutex::default(),
        write_deadline: Mutex::default(),
    });
    ByteStream {
        reader: Box::new(ReadHalf {
            shared: Arc::clone(&shared),
            limited: false,
        }),
        writer: Box::new(WriteHalf(Arc::clone(&shared))),
        control: shared,
    }
}

pub(super) fn split_unix(socket: UnixStream, stall: Duration) -> io::Result<ByteStream> {
    socket.set_write_timeout(Some(stall.max(Duration::from_millis(1))))?;
    Ok(split(socket))
}

pub(super) fn split_tcp(socket: TcpStream, stall: Duration) -> io::Result<ByteStream> {
    socket.set_nodelay(true)?;
    socket.set_write_timeout(Some(stall.max(Duration::from_millis(1))))?;
    Ok(split(socket))
}

/// Connects to a server's socket before `deadline`.
pub fn connect(address: &NbdAddress, deadline: Instant, stall: Duration) -> Result<ByteStream> {
    let stream = match &address.socket {
        NbdSocket::Unix(path) => {
            UnixStream::connect(path).and_then(|socket| split_unix(socket, stall))
        }
        NbdSocket::Tcp(host, port) => {
            connect_tcp(host, *port, deadline).and_then(|socket| split_tcp(socket, stall))
        }
    };
    stream.map_err(|error| unreachable_error(address, error))
}

/// Tries each address of the host in turn.
fn connect_tcp(host: &str, port: u16, deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in (host, port).to_socket_addrs()? {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Nobody answers: one code for all the ways, so that callers need not guess; `Denied` and
/// `Timeout` keep their kinds.
fn unreachable_error(address: &NbdAddress, error: io::Error) -> Error {
    let (kind, hint) = match error.kind() {
        io::ErrorKind::PermissionDenied => (
            Kind::Denied,
            "run as a user who may open the socket, or use TCP",
        ),
        io::ErrorKind::TimedOut => (Kind::Timeout, "check the network and firewalls"),
        _ => (
            Kind::Unreachable,
            "check that the NBD server runs and the address is right",
        ),
    };
    Error::new(
        kind,
        "mount.nbd.unreachable",
        format!("cannot connect to {address}"),
    )
    .hint(hint)
    .caused_by(error)
}
