//! One connection to a libvirt daemon: questions from many threads, answers in any order.
//!
//! Knows: how answers find their questions, how long a question may wait, pings, and what happens to
//! everybody when the connection ends. Refuses to know: what is asked; `remote` does.

use super::event::{self, Event};
use super::frame::{self, Header, MessageType};
use super::procedure::keepalive;
use super::refusal::Refusal;
use super::transport::{Helper, Transport};
use base::{Error, Kind, Result};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How many events wait for a slow listener before the newest are dropped.
const EVENTS_WAITING_MAX: usize = 1024;

/// Why a question has no answer.
#[derive(Debug)]
pub enum Failure {
    /// The daemon refused, and says why.
    Refused(Refusal),
    /// The connection is of no use any more, or the answer made no sense.
    Broken(Error),
}

/// A connection.
pub struct Connection {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
    peer: Option<(u32, u32)>,
}

struct Shared {
    writer: Mutex<UnixStream>,
    /// The same socket once more, to be shut down while a writer that stands still holds the lock.
    closer: UnixStream,
    state: Mutex<State>,
    helper: Mutex<Option<Helper>>,
}

#[derive(Default)]
struct State {
    serial: u32,
    waiting: HashMap<u32, Waiting>,
    listeners: Vec<SyncSender<Event>>,
    /// Why the connection ended, once it has.
    ended: Option<String>,
}

struct Waiting {
    program: u32,
    procedure: i32,
    answer: SyncSender<(Header, Vec<u8>)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connection {
    /// Speaks over an open transport. Nothing is sent yet.
    pub fn new(transport: Transport) -> Result<Self> {
        let doing = "preparing the connection to libvirt";
        let reading = transport
            .stream
            .try_clone()
            .map_err(|error| Error::io(doing, error))?;
        let closer = transport
            .stream
            .try_clone()
            .map_err(|error| Error::io(doing, error))?;
        let peer = transport.peer;
        let shared = Arc::new(Shared {
            closer,
            writer: Mutex::new(transport.stream),
            state: Mutex::new(State::default()),
            helper: Mutex::new(transport.helper),
        });
        let listening = Arc::clone(&shared);
        let reader = std::thread::Builder::new()
            .name("libvirt".to_owned())
            .spawn(move || listening.read_until_end(reading))
            .map_err(|error| Error::io(doing, error))?;
        Ok(Self {
            shared,
            reader: Some(reader),
            peer,
        })
    }

    /// User and group of the daemon, where it is on this machine.
    pub const fn peer(&self) -> Option<(u32, u32)> {
        self.peer
    }

    /// Whether the connection has ended.
    pub fn is_ended(&self) -> bool {
        lock(&self.shared.state).ended.is_some()
    }

    /// A listener for events from now on.
    pub fn listen(&self) -> Receiver<Event> {
        let (sender, receiver) = sync_channel(EVENTS_WAITING_MAX);
        lock(&self.shared.state).listeners.push(sender);
        receiver
    }

    /// Asks, and waits at most `timeout` for the answer's payload.
    pub fn call(
        &self,
        program: u32,
        procedure: i32,
        payload: &[u8],
        timeout: Duration,
    ) -> Result<Vec<u8>, Failure> {
        let (answer, arrival) = sync_channel(1);
        let serial = self.shared.enter(program, procedure, answer)?;
        let message = Header::call(program, procedure, serial).message(payload);
        if let Err(error) = self.shared.send(&message) {
            self.shared.end(&format!("sending failed: {error}"));
            return Err(Failure::Broken(self.shared.broken()));
        }
        match arrival.recv_timeout(timeout) {
            Ok((header, payload)) => judge(header, payload),
            Err(RecvTimeoutError::Disconnected) => Err(Failure::Broken(self.shared.broken())),
            Err(RecvTimeoutError::Timeout) => {
                lock(&self.shared.state).waiting.remove(&serial);
                let what = format!(
                    "libvirt did not answer within {} s",
                    timeout.as_secs().max(1)
                );
                Err(Failure::Broken(
                    Error::new(Kind::Timeout, "platform.libvirt.timeout", what)
                        .hint("see whether libvirtd on that host hangs: try `virsh list` there"),
                ))
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.end("it was closed");
        if let Some(reader) = self.reader.take() {
            // The reader ends because its socket is shut; a panic in it has nothing to add here.
            let _ = reader.join();
        }
    }
}

/// An answer's payload, or the refusal in it.
fn judge(header: Header, payload: Vec<u8>) -> Result<Vec<u8>, Failure> {
    match header.status {
        0 => Ok(payload),
        1 => Err(match Refusal::decode(&payload) {
            Ok(refusal) => Failure::Refused(refusal),
            Err(error) => Failure::Broken(error),
        }),
        status => Err(Failure::Broken(Error::corrupt(
            "platform.libvirt.malformed",
            format!("libvirt answered with the unknown status {status}"),
        ))),
    }
}

impl Shared {
    /// Notes a question and gives it a serial number.
    fn enter(
        &self,
        program: u32,
        procedure: i32,
        answer: SyncSender<(Header, Vec<u8>)>,
    ) -> Result<u32, Failure> {
        let mut state = lock(&self.state);
        if state.ended.is_some() {
            drop(state);
            return Err(Failure::Broken(self.broken()));
        }
        state.serial = state.serial.wrapping_add(1);
        let serial = state.serial;
        state.waiting.insert(
            serial,
            Waiting {
                program,
                procedure,
                answer,
            },
        );
        Ok(serial)
    }

    fn send(&self, message: &[u8]) -> std::io::Result<()> {
        lock(&self.writer).write_all(message)
    }

    /// Ends the connection: everybody who waits learns it at once.
    fn end(&self, why: &str) {
        let mut state = lock(&self.state);
        state.ended.get_or_insert_with(|| why.to_owned());
        state.waiting.clear();
        state.listeners.clear();
        drop(state);
        // It may be shut down already.
        let _ = self.closer.shutdown(Shutdown::Both);
    }

    /// What to say about a connection that ended.
    fn broken(&self) -> Error {
        let why = lock(&self.state).ended.clone().unwrap_or_default();
        let words = lock(&self.helper)
            .as_mut()
            .map(Helper::last_words)
            .unwrap_or_default();
        let mut message = format!("the connection to libvirt ended: {why}");
        if !words.is_empty() {
            message = format!("{message} (ssh: {words})");
        }
        Error::new(
            Kind::Unreachable,
            "platform.libvirt.connection-lost",
            message,
        )
        .hint("see that libvirtd runs on that host and that the network is up")
    }

    fn read_until_end(&self, mut stream: UnixStream) {
        let why = loop {
            match read_message(&mut stream).and_then(|body| self.take(&body)) {
                Ok(()) => {}
                Err(error) => break error.to_string(),
            }
        };
        self.end(&why);
    }

    /// Hands one message to whom it is for.
    fn take(&self, body: &[u8]) -> Result<()> {
        let (header, payload) = frame::split(body)?;
        if header.version != frame::VERSION {
            return Err(Error::corrupt(
                "platform.libvirt.malformed",
                format!("libvirt speaks version {} of its protocol", header.version),
            ));
        }
        match (header.program, header.kind) {
            (frame::PROGRAM_KEEPALIVE, _) => self.pong(&header),
            (frame::PROGRAM_REMOTE | frame::PROGRAM_QEMU, MessageType::Reply) => {
                self.answer(header, payload)
            }
            (frame::PROGRAM_REMOTE, MessageType::Event) => {
                if let Some(event) = event::decode(header.procedure, payload)? {
                    // A listener that went away is forgotten; one that is slow misses the event and
                    // must not rely on events alone (see `event`).
                    lock(&self.state).listeners.retain(|listener| {
                        !matches!(
                            listener.try_send(event.clone()),
                            Err(std::sync::mpsc::TrySendError::Disconnected(_))
                        )
                    });
                }
                Ok(())
            }
            // Streams and programs that were never asked for.
            _ => Ok(()),
        }
    }

    fn answer(&self, header: Header, payload: &[u8]) -> Result<()> {
        let Some(waiting) = lock(&self.state).waiting.remove(&header.serial) else {
            // The question was given up; its answer came too late.
            return Ok(());
        };
        if (waiting.program, waiting.procedure) != (header.program, header.procedure) {
            return Err(Error::corrupt(
                "platform.libvirt.malformed",
                format!(
                    "libvirt answered question {} with procedure {} instead of {}",
                    header.serial, header.procedure, waiting.procedure
                ),
            ));
        }
        // Who asked may have given up just now.
        let _ = waiting.answer.try_send((header, payload.to_vec()));
        Ok(())
    }

    fn pong(&self, header: &Header) -> Result<()> {
        if header.procedure != keepalive::PING {
            return Ok(());
        }
        let pong = Header {
            program: frame::PROGRAM_KEEPALIVE,
            version: frame::VERSION,
            procedure: keepalive::PONG,
            kind: MessageType::Event,
            serial: 0,
            status: 0,
        };
        self.send(&pong.message(&[]))
            .map_err(|error| Error::io("answering a ping", error))
    }
}

/// The next message without its length. Memory grows with what arrives, not with what is announced.
fn read_message(stream: &mut UnixStream) -> Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).map_err(ended)?;
    let length = frame::body_length(length)?;
    let mut body = Vec::with_capacity(length.min(64 * 1024));
    let count = stream
        .take(length as u64)
        .read_to_end(&mut body)
        .map_err(ended)?;
    if count < length {
        return Err(ended(std::io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(body)
}

fn ended(error: std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::UnexpectedEof {
        Error::new(
            Kind::Unreachable,
            "platform.libvirt.connection-lost",
            "the other side closed it",
        )
    } else {
        Error::io("reading from it failed", error)
    }
}
