//! The source's half of a backup over the network.
//!
//! Knows: reading, cutting and naming happen here; blocks are offered by window and only those that
//! the other side lacks are sent. Refuses to know: the repository.
//!
//! Offers run ahead of their answers, as far as the pool of buffers allows, so a long line costs no
//! time per window.

use super::message::{
    Blocks, Changed, MessageKind, Packing, Terms, Totals, Want, Window, decode, malformed, pack,
};
use super::wires::{Outbox, guarded, receive, send_all};
use crate::pipeline::backup::{cut, processors};
use crate::pipeline::crew::{Crew, neighbour_gone};
use crate::pipeline::gauge::Gauge;
use crate::pipeline::load::{ChangeMap, Changes, Loaded, Reading, load};
use base::block::BlockRead;
use base::cancel::Cancel;
use base::size::{ByteCount, ByteRange};
use base::{Error, Kind, Result};
use crossbeam_channel::{Receiver, Sender, unbounded};
use protocol::stream::{BulkHalves, BulkReceiver};
use protocol::words::counters::Stage;
use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use store::{Cutter, Segment};

/// How often the other side is told how far the reading is.
const TALLY_EVERY: Duration = Duration::from_millis(500);
/// How often a waiting thread looks whether its crew is to stop.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A disk to send.
pub struct SendDisk<'a> {
    /// Where it is read.
    pub disk: &'a dyn BlockRead,
    /// What marks changes; needed where the other side wants changes only.
    pub changes: Option<&'a dyn ChangeMap>,
    /// Live numbers.
    pub gauge: &'a Gauge,
    /// Asks to stop.
    pub cancel: &'a Cancel,
}

/// Windows that were offered and are not answered yet, and answers that are not carried out yet.
struct Offered {
    state: Mutex<State>,
    settled: Condvar,
}

struct State {
    windows: HashMap<u64, Offer>,
    /// Answers handed to the queue and not carried out yet.
    owed: usize,
    /// Gone once nothing more is to be sent.
    queue: Option<Sender<Wanted>>,
}

struct Offer {
    window: Loaded,
    segments: Vec<Segment>,
}

/// Blocks that the other side has asked for.
struct Wanted {
    offer: Offer,
    positions: Vec<u32>,
}

/// Sends a disk. Returns when the other side has declared all of it safe.
///
/// # Errors
/// The first error of any stage, or what the other side failed with; `Cancelled` on request.
pub fn send_disk(order: &SendDisk<'_>, stream: BulkHalves) -> Result<()> {
    let (sender, mut receiver) = stream;
    let breaker = sender.breaker();
    let crew = Crew::new(order.cancel);
    guarded(&crew, &breaker, || {
        crew.work(|| {
            let terms = match hear_terms(order, &mut receiver) {
                Ok(terms) => terms,
                Err(error) => {
                    receiver.abort(&error);
                    return Err(error);
                }
            };
            order.gauge.processed.add(terms.size.0);
            let (outbox, queue) = Outbox::new();
            let (asked, to_send) = unbounded();
            let offered = Offered::new(asked);
            std::thread::scope(|scope| {
                let (crew, offered, terms) = (&crew, &offered, &terms);
                scope.spawn(move || {
                    crew.work(|| send_all(crew, sender, &queue, order.gauge));
                });
                scope.spawn(move || crew.work(|| hear_wants(crew, receiver, offered)));
                for _ in 0..processors() {
                    let (to_send, outbox) = (to_send.clone(), outbox.clone());
                    scope.spawn(move || {
                        crew.work(|| send_wanted(crew, order.gauge, offered, &to_send, &outbox));
                    });
                }
                drop(to_send);
                read_all(crew, order, terms, offered, &outbox);
                crew.work(|| {
                    offered.wait_until_settled(crew)?;
                    outbox.send(MessageKind::End, &totals(order.gauge), &[])
                });
                drop(outbox);
                offered.close();
            });
            Ok(())
        });
    });
    crew.finish()?;
    order.cancel.check()
}

fn hear_terms(order: &SendDisk<'_>, receiver: &mut BulkReceiver) -> Result<Terms> {
    let terms = match receive(receiver)? {
        Some(message) if message.kind == MessageKind::Terms => decode::<Terms>(&message.bytes)?.0,
        _ => return Err(malformed("it does not begin with its terms")),
    };
    terms.check()?;
    let size = order.disk.size();
    if terms.size != size {
        return Err(Error::new(
            Kind::Conflict,
            "mover.stream.size",
            format!(
                "the other agent expects a disk of {} bytes, this one has {}",
                terms.size.0, size.0
            ),
        ));
    }
    Ok(terms)
}

/// Reads the disk and offers its windows.
fn read_all(crew: &Crew, order: &SendDisk<'_>, terms: &Terms, offered: &Offered, outbox: &Outbox) {
    let changes = match (terms.changed_since, order.changes) {
        (None, _) => None,
        (Some(old_size), Some(map)) => Some(Changes { map, old_size }),
        (Some(_), None) => {
            crew.fail(Error::invalid(
                "mover.source.no-tracker",
                "only changes are wanted, but the source has nothing that marks them",
            ));
            return;
        }
    };
    let workers = processors();
    order.gauge.set_threads(Stage::Proxy, workers);
    let reading = Reading {
        disk: order.disk,
        window: terms.cutter.window_size(),
        changes,
        gauge: order.gauge,
    };
    let told = Mutex::new(Instant::now());
    load(crew, reading, workers, &|window| {
        tell_totals(&told, order.gauge, outbox)?;
        if changes.is_some() {
            send_changed(order.gauge, &window, outbox)
        } else {
            offer(&terms.cutter, order.gauge, window, offered, outbox)
        }
    });
}

fn totals(gauge: &Gauge) -> Totals {
    let counters = gauge.counters();
    Totals {
        done: counters.done,
        read: counters.read,
        changed: counters.changed,
        busy: counters.busy,
    }
}

fn tell_totals(told: &Mutex<Instant>, gauge: &Gauge, outbox: &Outbox) -> Result<()> {
    {
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.elapsed() < TALLY_EVERY {
            return Ok(());
        }
        *told = Instant::now();
    }
    outbox.send(MessageKind::Tally, &totals(gauge), &[])
}

fn offer(
    cutter: &Cutter,
    gauge: &Gauge,
    window: Loaded,
    offered: &Offered,
    outbox: &Outbox,
) -> Result<()> {
    let segments: Vec<Segment> = gauge.busy(Stage::Proxy, || {
        cut(cutter, window.bytes())
            .iter()
            .map(|piece| piece.segment)
            .collect()
    });
    let index = window.index;
    let head = Window::new(index, &segments, Packing::Plain);
    // Before it is sent: the answer may come at once.
    offered
        .state()
        .windows
        .insert(index, Offer { window, segments });
    outbox.send(MessageKind::Offer, &head, &[])
}

fn send_changed(gauge: &Gauge, window: &Loaded, outbox: &Outbox) -> Result<()> {
    let changed = gauge.busy(Stage::Proxy, || {
        let body = gather(window.bytes(), &window.dirty)?;
        let (packing, packed) = pack(&body)?;
        let ranges = window
            .dirty
            .iter()
            .map(|range| Ok((short(range.offset.0)?, short(range.length.0)?)));
        let ranges = ranges.collect::<Result<_>>()?;
        Ok::<_, Error>((
            Changed {
                index: window.index,
                ranges,
                packing,
            },
            packed.into_owned(),
        ))
    })?;
    outbox.send(MessageKind::Changed, &changed.0, &changed.1)?;
    gauge.done.add(window.range.length.0);
    Ok(())
}

/// The bytes of several ranges one after the other.
fn gather(bytes: &[u8], ranges: &[ByteRange]) -> Result<Vec<u8>> {
    let mut gathered = Vec::new();
    for range in ranges {
        let place = ByteCount(range.offset.0).as_usize()?..ByteCount(range.end().0).as_usize()?;
        gathered.extend_from_slice(bytes.get(place).ok_or_else(outside)?);
    }
    Ok(gathered)
}

fn short(number: u64) -> Result<u32> {
    u32::try_from(number).map_err(|_| outside())
}

fn outside() -> Error {
    Error::new(
        Kind::Bug,
        "mover.stream.window",
        "a range lies outside its window",
    )
}

/// Hears which blocks are wanted, until the other side has nothing more to say.
fn hear_wants(crew: &Crew, mut receiver: BulkReceiver, offered: &Offered) -> Result<()> {
    let mut hear = || {
        while let Some(message) = receive(&mut receiver)? {
            if message.kind != MessageKind::Want {
                return Err(malformed("something else than an answer came"));
            }
            offered.answer(decode::<Want>(&message.bytes)?.0)?;
        }
        Ok(())
    };
    match hear() {
        Ok(()) => receiver.finish().map(drop),
        Err(error) => {
            receiver.abort(&crew.reason_for(&error));
            Err(error)
        }
    }
}

/// Sends wanted blocks, window by window, until the queue is closed.
fn send_wanted(
    crew: &Crew,
    gauge: &Gauge,
    offered: &Offered,
    to_send: &Receiver<Wanted>,
    outbox: &Outbox,
) -> Result<()> {
    for wanted in to_send {
        crew.check()?;
        if !wanted.positions.is_empty() {
            let (head, body) = gauge.busy(Stage::Proxy, || pack_wanted(&wanted))?;
            outbox.send(MessageKind::Blocks, &head, &body)?;
        }
        gauge.done.add(wanted.offer.window.range.length.0);
        drop(wanted);
        offered.settle();
    }
    Ok(())
}

fn pack_wanted(wanted: &Wanted) -> Result<(Blocks, Vec<u8>)> {
    let mut ranges = Vec::with_capacity(wanted.positions.len());
    let mut next = wanted.positions.iter().peekable();
    let mut at = 0;
    for (position, segment) in wanted.offer.segments.iter().enumerate() {
        if next
            .next_if(|wanted| usize::try_from(**wanted) == Ok(position))
            .is_some()
        {
            ranges.push(ByteRange::new(at, u64::from(segment.length)));
        }
        at += u64::from(segment.length);
    }
    let body = gather(wanted.offer.window.bytes(), &ranges)?;
    let (packing, packed) = pack(&body)?;
    Ok((
        Blocks {
            index: wanted.offer.window.index,
            packing,
        },
        packed.into_owned(),
    ))
}

impl Offered {
    fn new(queue: Sender<Wanted>) -> Self {
        let state = State {
            windows: HashMap::new(),
            owed: 0,
            queue: Some(queue),
        };
        Self {
            state: Mutex::new(state),
            settled: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an answer and queues what is to be sent because of it.
    fn answer(&self, want: Want) -> Result<()> {
        let not_offered = || malformed("blocks are wanted that were not offered");
        let mut state = self.state();
        let offer = state.windows.remove(&want.index).ok_or_else(not_offered)?;
        let rising = want.segments.is_sorted_by(|a, b| a < b);
        let blocks = want.segments.iter().all(|position| {
            let segment = usize::try_from(*position)
                .ok()
                .and_then(|p| offer.segments.get(p));
            segment.is_some_and(|segment| segment.block.is_some())
        });
        if !rising || !blocks {
            return Err(not_offered());
        }
        state.owed += 1;
        let wanted = Wanted {
            offer,
            positions: want.segments,
        };
        let queue = state.queue.as_ref().ok_or_else(neighbour_gone)?;
        queue.send(wanted).map_err(|_| neighbour_gone())
    }

    /// An answer was carried out.
    fn settle(&self) {
        let mut state = self.state();
        state.owed = state.owed.saturating_sub(1);
        self.settled.notify_all();
    }

    fn wait_until_settled(&self, crew: &Crew) -> Result<()> {
        let mut state = self.state();
        while !state.windows.is_empty() || state.owed > 0 {
            crew.check()?;
            let waited = self.settled.wait_timeout(state, LOOK_EVERY);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        crew.check()
    }

    /// Nothing more is to be sent.
    fn close(&self) {
        self.state().queue = None;
    }
}
