//! Requests of many threads over one connection.
//!
//! Knows: the requests under way by their cookies, the bound on them, the thread that receives
//! replies, and how a dead or stalled connection fails all of them at once.
//! Refuses to know: what the requests are for.

use super::super::stream::{ByteStream, HangUp, Inbox, write_both};
use super::super::wire::reply::{Reply, SIMPLE_SIZE, header_size};
use super::super::wire::request::Request;
use super::super::wire::{reply, violation};
use super::fault::{Fault, broken_stream, closed};
use super::flight::{Flight, Outcome, Slot};
use base::{Error, Kind, Result};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Requests that are on the wire at one time.
const REQUESTS_MAX: usize = 64;
/// Bytes that are on the wire at one time.
const BYTES_MAX: u64 = 64 << 20;

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Without a single byte from the server.
    pub stall: Duration,
    /// For one request in all.
    pub request: Duration,
}

/// What both sides agreed on for the transmission.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// Replies may come in chunks.
    pub structured: bool,
    /// Headers have 64-bit lengths.
    pub extended: bool,
    /// Ids of the metadata contexts.
    pub contexts: Vec<u32>,
}

/// A request that is under way.
pub struct Ticket {
    slot: Arc<Slot>,
    started: Instant,
}

/// One connection in its transmission phase.
pub struct Pipeline {
    terms: Terms,
    patience: Patience,
    outbox: Mutex<Outbox>,
    board: Mutex<Board>,
    /// Told whenever a request leaves the board.
    room: Condvar,
    heard: Arc<Heard>,
    control: Arc<dyn HangUp>,
}

struct Outbox {
    writer: Option<Box<dyn Write + Send>>,
    header: Vec<u8>,
}

#[derive(Default)]
struct Board {
    flights: HashMap<u64, Flight>,
    /// Flights on the wire, also those that the receiver holds in its hands.
    count: usize,
    bytes: u64,
    next_cookie: u64,
    broken: Option<Fault>,
}

/// When the server was last heard of.
struct Heard {
    start: Instant,
    millis: AtomicU64,
}

impl Heard {
    fn stamp(&self) {
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.millis.store(millis, Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        self.start + Duration::from_millis(self.millis.load(Ordering::Relaxed))
    }
}

/// A reader that notes when bytes come.
struct Listening {
    reader: Box<dyn Read + Send>,
    heard: Arc<Heard>,
}

impl Read for Listening {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.heard.stamp();
        Ok(count)
    }
}

impl Pipeline {
    /// Takes over a stream after the handshake. The thread ends when the connection does.
    pub fn start(
        stream: ByteStream,
        terms: Terms,
        patience: Patience,
    ) -> Result<(Arc<Self>, JoinHandle<()>)> {
        let heard = Arc::new(Heard {
            start: Instant::now(),
            millis: AtomicU64::new(0),
        });
        let pipeline = Arc::new(Self {
            terms,
            patience,
            outbox: Mutex::new(Outbox {
                writer: Some(stream.writer),
                header: Vec::new(),
            }),
            board: Mutex::default(),
            room: Condvar::new(),
            heard: Arc::clone(&heard),
            control: stream.control,
        });
        let reader = Listening {
            reader: stream.reader,
            heard,
        };
        let receiving = Arc::clone(&pipeline);
        let thread = std::thread::Builder::new()
            .name("nbd-receive".to_owned())
            .spawn(move || receiving.receive_all(Inbox::new(Box::new(reader))))
            .map_err(|error| Error::io("cannot start the thread of an NBD connection", error))?;
        Ok((pipeline, thread))
    }

    /// Sends a request with its payload; waits only while too many are under way.
    pub fn submit(
        &self,
        mut request: Request,
        payload: &[u8],
        purpose: super::flight::Purpose,
        weight: u64,
    ) -> Result<Ticket> {
        let slot = Arc::new(Slot::default());
        let mut board = self.wait_for_room(weight)?;
        request.cookie = board.next_cookie;
        board.next_cookie += 1;
        board.count += 1;
        board.bytes += weight;
        let flight = Flight::new(request.offset, weight, purpose, Arc::clone(&slot));
        let started = flight.started;
        board.flights.insert(request.cookie, flight);
        drop(board);
        self.send(&request, payload)?;
        Ok(Ticket { slot, started })
    }

    /// Waits for what a request brings back.
    pub fn wait(&self, ticket: &Ticket) -> Result<Outcome> {
        loop {
            let now = Instant::now();
            let quiet_since = self.heard.last().max(ticket.started);
            let until =
                (quiet_since + self.patience.stall).min(ticket.started + self.patience.request);
            let left = until.saturating_duration_since(now);
            // At least one look, also when the time is over.
            if let Some(outcome) = ticket.slot.take(left) {
                return outcome.map_err(|fault| fault.error());
            }
            if left.is_zero() {
                return Err(self.give_up());
            }
        }
    }

    /// Says good-bye where that is still possible, and ends the connection.
    pub fn close(&self) {
        let broken = lock(&self.board).broken.is_some();
        if !broken {
            let command = super::super::wire::request::Command::DISC;
            let request = Request {
                flags: 0,
                command,
                cookie: 0,
                offset: 0,
                length: 0,
            };
            // The server may have gone; the good-bye is a courtesy.
            let _ = self.send(&request, &[]);
        }
        lock(&self.outbox).writer = None;
        self.break_with(&closed());
    }

    fn wait_for_room(&self, weight: u64) -> Result<MutexGuard<'_, Board>> {
        let started = Instant::now();
        let mut board = lock(&self.board);
        loop {
            if let Some(fault) = &board.broken {
                return Err(fault.error());
            }
            if board.count == 0 || (board.count < REQUESTS_MAX && board.bytes + weight <= BYTES_MAX)
            {
                return Ok(board);
            }
            let until = self.heard.last().max(started) + self.patience.stall;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(board);
                return Err(self.give_up());
            }
            board = self
                .room
                .wait_timeout(board, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn send(&self, request: &Request, payload: &[u8]) -> Result<()> {
        let mut outbox = lock(&self.outbox);
        let Outbox { writer, header } = &mut *outbox;
        let Some(writer) = writer else {
            return Err(closed());
        };
        header.clear();
        request.encode(self.terms.extended, header);
        if let Err(error) = write_both(&mut **writer, header, payload) {
            let error = broken_stream(error);
            drop(outbox);
            self.break_with(&error);
            return Err(error);
        }
        Ok(())
    }

    /// The server is silent for too long.
    fn give_up(&self) -> Error {
        let error = broken_stream(io::ErrorKind::TimedOut.into());
        self.break_with(&error);
        error
    }

    /// Ends the connection and fails every request under way. The first reason stays.
    fn break_with(&self, error: &Error) {
        let mut board = lock(&self.board);
        let fault = board.broken.get_or_insert_with(|| Fault::of(error)).clone();
        let flights: Vec<Flight> = board.flights.drain().map(|(_, flight)| flight).collect();
        drop(board);
        self.room.notify_all();
        self.control.hang_up();
        for flight in flights {
            flight.fail(fault.clone());
        }
    }

    fn receive_all(&self, mut inbox: Inbox) {
        loop {
            if let Err(error) = self.receive_one(&mut inbox) {
                self.break_with(&error);
                return;
            }
        }
    }

    /// Takes one reply, or one chunk of a reply.
    fn receive_one(&self, inbox: &mut Inbox) -> Result<()> {
        let mut header = [0; reply::EXTENDED_SIZE];
        // The shortest header is longer than the magic that tells the length.
        inbox
            .fill(&mut header[..SIMPLE_SIZE])
            .map_err(broken_stream)?;
        let start = [header[0], header[1], header[2], header[3]];
        let size = header_size(start, self.terms.extended)?;
        inbox
            .fill(&mut header[SIMPLE_SIZE..size])
            .map_err(broken_stream)?;
        let reply = Reply::decode(&header[..size])?;
        let (cookie, last) = match reply {
            Reply::Simple { cookie, .. } => (cookie, true),
            Reply::Chunk(_) if !self.terms.structured => {
                return Err(violation(
                    "a reply comes in chunks though that was not agreed on",
                ));
            }
            Reply::Chunk(chunk) => (chunk.cookie, chunk.is_last()),
        };
        let Some(mut flight) = lock(&self.board).flights.remove(&cookie) else {
            return Err(violation(format!(
                "a reply answers no request ({cookie:#x})"
            )));
        };
        let taken = match reply {
            Reply::Simple { error, .. } => flight.take_simple(error, self.terms.structured, inbox),
            Reply::Chunk(chunk) => {
                flight.take_chunk(&chunk, self.terms.extended, &self.terms.contexts, inbox)
            }
        };
        let complete = taken.and_then(|()| {
            if last {
                flight.check_complete(&self.terms.contexts)
            } else {
                Ok(())
            }
        });
        if let Err(error) = complete {
            // First the connection, then its request: who learns of it must not use it again.
            self.break_with(&error);
            flight.fail(Fault::of(&error));
            return Err(error);
        }
        if last {
            self.free(flight.weight);
            flight.finish();
            return Ok(());
        }
        let mut board = lock(&self.board);
        match &board.broken {
            None => {
                board.flights.insert(cookie, flight);
                Ok(())
            }
            Some(fault) => {
                let fault = fault.clone();
                drop(board);
                let error = fault.error();
                flight.fail(fault);
                Err(error)
            }
        }
    }

    fn free(&self, weight: u64) {
        let mut board = lock(&self.board);
        board.count = board.count.saturating_sub(1);
        board.bytes = board.bytes.saturating_sub(weight);
        drop(board);
        self.room.notify_all();
    }

    /// An error of the kind that a broken connection gives, if it is broken.
    pub fn check(&self) -> Result<()> {
        match &lock(&self.board).broken {
            Some(fault) => Err(fault.error()),
            None => Ok(()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An error for a request that this connection cannot carry.
pub fn unfit(code: &'static str, message: String) -> Error {
    Error::new(Kind::Invalid, code, message)
}
