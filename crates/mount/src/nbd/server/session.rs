//! The transmission phase of one connection.
//!
//! Knows: some threads that take turns at receiving a request, work on it, and send its reply
//! when it is done, so that a slow request holds up no other and memory is bounded by the number
//! of threads. Refuses to know: what a request does.

use super::super::client::broken_stream;
use super::super::stream::{HangUp, Inbox, write_both};
use super::super::wire::reply::{CHUNK_DONE, Chunk, ChunkKind, Reply, encode_error};
use super::super::wire::request::{COMPACT_SIZE, Command, EXTENDED_SIZE, Request};
use super::super::wire::{Errno, PAYLOAD_MAX, violation};
use super::ServerLimits;
use super::budget::{Budget, Share};
use super::export::Export;
use super::handshake::Agreed;
use base::{Error, Result};
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;
use std::time::{Duration, Instant};

/// A thread's buffer is not kept beyond this length.
const BUFFER_KEPT: usize = 2 << 20;

/// One connection in its transmission phase.
pub struct Session<'env> {
    pub export: Export,
    pub structured: bool,
    pub extended: bool,
    pub contexts: Vec<usize>,
    budget: &'env Budget,
    intake: Mutex<Intake>,
    writer: Mutex<Box<dyn Write + Send>>,
    control: Arc<dyn HangUp>,
    message_timeout: Duration,
    threads_max: usize,
    threads: AtomicUsize,
    /// Threads that wait for their turn at the intake.
    waiting: AtomicUsize,
}

struct Intake {
    inbox: Inbox,
    over: bool,
}

/// A request with the bytes that came with it, and its part of the budget.
pub struct Work<'env> {
    pub request: Request,
    share: Option<Share<'env>>,
}

impl Work<'_> {
    /// Gives the part of the budget back early, to take another.
    pub fn release(&mut self) {
        self.share = None;
    }
}

/// Serves requests until the client says good-bye, leaves or breaks the protocol.
pub fn run(agreed: Agreed, budget: &Budget, limits: &ServerLimits) {
    let session = Session {
        export: agreed.export,
        structured: agreed.structured,
        extended: agreed.extended,
        contexts: agreed.contexts,
        budget,
        intake: Mutex::new(Intake {
            inbox: Inbox::new(agreed.stream.reader),
            over: false,
        }),
        writer: Mutex::new(agreed.stream.writer),
        control: agreed.stream.control,
        message_timeout: limits.message_timeout,
        threads_max: limits.requests.max(1),
        threads: AtomicUsize::new(1),
        waiting: AtomicUsize::new(0),
    };
    std::thread::scope(|scope| session.work(scope));
}

/// Ends the connection if its thread panics inside a disk: the client must not wait for ever.
struct EndOnPanic<'a>(&'a dyn HangUp);

impl Drop for EndOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.hang_up();
        }
    }
}

impl<'env> Session<'env> {
    /// Takes turns at the intake until the connection is over.
    fn work<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        let _guard = EndOnPanic(&*self.control);
        let mut buffer = Vec::new();
        loop {
            self.waiting.fetch_add(1, Ordering::AcqRel);
            let mut intake = lock(&self.intake);
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            if intake.over {
                return;
            }
            let work = match self.receive(&mut intake.inbox, &mut buffer) {
                Ok(Some(work)) => work,
                Ok(None) | Err(_) => {
                    intake.over = true;
                    return;
                }
            };
            if self.waiting.load(Ordering::Acquire) == 0 {
                self.add_thread(scope);
            }
            drop(intake);
            if self.perform(work, &mut buffer).is_err() {
                // The reply could not be sent whole: nothing sensible can follow it.
                self.control.hang_up();
                return;
            }
            buffer.truncate(BUFFER_KEPT);
            buffer.shrink_to(BUFFER_KEPT);
        }
    }

    /// One more thread to receive while this one works, within the bound.
    fn add_thread<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        // Only the holder of the intake comes here, so that the count cannot be overrun.
        if self.threads.load(Ordering::Acquire) >= self.threads_max {
            return;
        }
        let builder = std::thread::Builder::new().name("nbd-request".to_owned());
        if builder
            .spawn_scoped(scope, move || self.work(scope))
            .is_ok()
        {
            self.threads.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// The next request; `None` where the client has left. The bytes of a write are in `buffer`.
    fn receive(&self, inbox: &mut Inbox, buffer: &mut Vec<u8>) -> Result<Option<Work<'env>>> {
        // Between messages a client may be silent as long as it likes.
        if !inbox.wait().map_err(broken_stream)? {
            return Ok(None);
        }
        let mut header = [0; EXTENDED_SIZE];
        let header = &mut header[..if self.extended {
            EXTENDED_SIZE
        } else {
            COMPACT_SIZE
        }];
        self.fill(inbox, header)?;
        let request = Request::decode(self.extended, header)?;
        if request.command == Command::DISC {
            return Ok(None);
        }
        let payload = request.payload_length(self.extended);
        if payload > u64::from(PAYLOAD_MAX) {
            return Err(violation(format!("a request carries {payload} bytes")));
        }
        let writes = request.command == Command::WRITE && self.refusal(&request).is_none();
        let share = (payload > 0 && writes).then(|| self.budget.take(payload));
        self.control
            .read_until(Some(Instant::now() + self.message_timeout));
        if writes {
            // At most PAYLOAD_MAX, which fits.
            buffer.resize(usize::try_from(payload).unwrap_or(0), 0);
            self.fill(inbox, buffer)?;
        } else if payload > 0 {
            inbox.skip(payload).map_err(broken_stream)?;
        }
        self.control.read_until(None);
        Ok(Some(Work { request, share }))
    }

    /// Fills `target` within the time of one message.
    fn fill(&self, inbox: &mut Inbox, target: &mut [u8]) -> Result<()> {
        if inbox.ahead() >= target.len() {
            return inbox.fill(target).map_err(broken_stream);
        }
        self.control
            .read_until(Some(Instant::now() + self.message_timeout));
        let filled = inbox.fill(target).map_err(broken_stream);
        self.control.read_until(None);
        filled
    }

    /// A part of the budget for a reply's bytes.
    pub fn take_budget(&self, bytes: u64) -> Share<'env> {
        self.budget.take(bytes)
    }

    /// Sends one chunk: `fields` before `payload`.
    pub fn send_chunk(
        &self,
        request: &Request,
        kind: ChunkKind,
        last: bool,
        fields: &[u8],
        payload: &[u8],
    ) -> Result<()> {
        let flags = if last { CHUNK_DONE } else { 0 };
        let length = (fields.len() + payload.len()) as u64;
        let chunk = Chunk {
            flags,
            kind,
            cookie: request.cookie,
            offset: request.offset,
            length,
        };
        let mut header = Vec::with_capacity(64);
        Reply::Chunk(chunk).encode(self.extended, &mut header);
        header.extend_from_slice(fields);
        self.send(&header, payload)
    }

    /// Sends a simple reply, with the bytes of a read.
    pub fn send_simple(&self, request: &Request, error: Errno, payload: &[u8]) -> Result<()> {
        let mut header = Vec::with_capacity(16);
        Reply::Simple {
            error,
            cookie: request.cookie,
        }
        .encode(false, &mut header);
        self.send(&header, payload)
    }

    /// Sends word of success without bytes.
    pub fn send_done(&self, request: &Request) -> Result<()> {
        if self.structured {
            self.send_chunk(request, ChunkKind::NONE, true, &[], &[])
        } else {
            self.send_simple(request, Errno(0), &[])
        }
    }

    /// Sends an error, with words where the client can take them.
    pub fn send_error(&self, request: &Request, errno: Errno, text: &str) -> Result<()> {
        if !self.structured {
            return self.send_simple(request, errno, &[]);
        }
        let mut fields = Vec::new();
        encode_error(errno, text, &mut fields);
        self.send_chunk(request, ChunkKind::ERROR, true, &fields, &[])
    }

    /// Sends an error of a disk.
    pub fn send_failure(&self, request: &Request, error: &Error) -> Result<()> {
        self.send_error(request, Errno::of(error), &error.to_string())
    }

    fn send(&self, header: &[u8], payload: &[u8]) -> Result<()> {
        let mut writer = lock(&self.writer);
        self.control
            .write_until(Some(Instant::now() + self.message_timeout));
        let sent = write_both(&mut **writer, header, payload).map_err(broken_stream);
        self.control.write_until(None);
        sent
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
