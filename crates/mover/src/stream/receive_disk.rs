//! The repository's half of a backup over the network.
//!
//! Knows: offers are answered from the index in one batch a window, what arrives is named anew
//! before it is stored, and changed ranges are cut together with what the repository has. Refuses
//! to know: where the disk is read.

use super::message::{
    Blocks, Changed, MessageKind, Terms, Totals, VERSION, Want, Window, decode, malformed, unpack,
};
use super::wires::{Message, Outbox, guarded, receive, send_all};
use crate::pipeline::backup::{Intake, processors};
use crate::pipeline::crew::{Crew, neighbour_gone};
use crate::pipeline::gauge::Gauge;
use crate::pipeline::stored::StoredBase;
use base::cancel::Cancel;
use base::size::{ByteCount, ByteRange};
use base::{Error, Kind, Result};
use crossbeam_channel::{Receiver, Sender, bounded};
use protocol::stream::{BulkHalves, BulkReceiver};
use protocol::words::counters::Stage;
use std::collections::HashMap;
use store::{BlockId, NewBlock, Root, Segment, Writer};

/// Windows that may be offered and not yet be complete: more than any sender's buffers.
const OPEN_WINDOWS_MAX: usize = 4096;

/// A disk to receive.
pub struct ReceiveDisk<'a> {
    /// Its size.
    pub size: ByteCount,
    /// Where it is written.
    pub writer: &'a Writer,
    /// With this, only changes are wanted and the rest is as in the base.
    pub base: Option<&'a StoredBase>,
    /// Live numbers; they cover both halves.
    pub gauge: &'a Gauge,
    /// Asks to stop.
    pub cancel: &'a Cancel,
}

/// One window that is ready to be stored.
enum Ready {
    /// All its blocks are known, or in `body`.
    Blocks {
        index: u64,
        segments: Vec<Segment>,
        wanted: Vec<u32>,
        body: Option<Vec<u8>>,
    },
    /// Its changed ranges are in the body.
    Changed(Vec<u8>),
}

/// A window that was offered and whose blocks are on their way.
struct Open {
    segments: Vec<Segment>,
    wanted: Vec<u32>,
}

/// Receives a disk; the root of its tree. Nothing is visible before the writer commits. The sender
/// learns that all is safe before this returns.
///
/// # Errors
/// The first error of any stage, or what the other side failed with; `Cancelled` on request.
pub fn receive_disk(order: &ReceiveDisk<'_>, stream: BulkHalves) -> Result<Root> {
    let (sender, mut receiver) = stream;
    let breaker = sender.breaker();
    let crew = Crew::new(order.cancel);
    order.gauge.processed.add(order.size.0);
    let workers = processors();
    order.gauge.set_threads(Stage::Target, workers);
    let tree = order
        .writer
        .tree(order.size, order.base.map(|base| base.root))?;
    let intake = Intake {
        writer: order.writer,
        tree: &tree,
        base: order.base,
        gauge: order.gauge,
        compute: Stage::Target,
    };
    guarded(&crew, &breaker, || {
        let (outbox, queue) = Outbox::new();
        let (ready, to_store) = bounded(workers);
        std::thread::scope(|scope| {
            let (crew, intake) = (&crew, &intake);
            for _ in 0..workers {
                let to_store = to_store.clone();
                scope.spawn(move || crew.work(|| store_all(crew, order, intake, &to_store)));
            }
            drop(to_store);
            scope.spawn(move || crew.work(|| send_all(crew, sender, &queue, &Gauge::default())));
            crew.work(|| {
                outbox.send(MessageKind::Terms, &terms(order), &[])?;
                hear_all(crew, order, &mut receiver, &outbox, &ready)
            });
            drop((ready, outbox));
        });
    });
    let done = crew
        .finish()
        .and_then(|()| order.cancel.check())
        .and_then(|()| order.gauge.busy(Stage::Target, || tree.finish()));
    match done {
        Ok(root) => {
            // The sender waits for this word.
            receiver.finish()?;
            Ok(root)
        }
        Err(error) => {
            receiver.abort(&error);
            Err(error)
        }
    }
}

fn terms(order: &ReceiveDisk<'_>) -> Terms {
    Terms {
        version: VERSION,
        cutter: order.writer.cutter().clone(),
        size: order.size,
        changed_since: order.base.map(|base| base.size),
        root: None,
    }
}

/// Hears everything the other side says, answers offers, and hands complete windows on.
fn hear_all(
    crew: &Crew,
    order: &ReceiveDisk<'_>,
    receiver: &mut BulkReceiver,
    outbox: &Outbox,
    ready: &Sender<Ready>,
) -> Result<()> {
    let seen = Seen::new(order.size, order.writer.cutter().window_size());
    let mut hearing = Hearing {
        order,
        open: HashMap::new(),
        seen,
    };
    let mut ended = false;
    while let Some(message) = receive(receiver)? {
        crew.check()?;
        if ended {
            return Err(malformed("something came after the end"));
        }
        order.gauge.transferred.add(message.bytes.len() as u64);
        let window = match message.kind {
            MessageKind::Offer => hearing.offer(&message, outbox)?,
            MessageKind::Blocks => Some(hearing.blocks(message)?),
            MessageKind::Changed => Some(hearing.changed(message)?),
            MessageKind::Tally => {
                hearing.totals(&message)?;
                None
            }
            MessageKind::End => {
                hearing.totals(&message)?;
                ended = true;
                None
            }
            _ => return Err(malformed("a message that has no place here")),
        };
        if let Some(window) = window {
            ready.send(window).map_err(|_| neighbour_gone())?;
        }
    }
    if !ended || !hearing.open.is_empty() {
        return Err(malformed("it ends before everything has come"));
    }
    // What was not sent is as in the base, or zero.
    order.gauge.done.set(order.size.0);
    Ok(())
}

/// What was heard so far.
struct Hearing<'a> {
    order: &'a ReceiveDisk<'a>,
    open: HashMap<u64, Open>,
    seen: Seen,
}

/// Which windows have come: each may come once.
pub(super) struct Seen {
    bits: Vec<u64>,
    window: u64,
    size: u64,
}

impl Seen {
    pub(super) fn new(size: ByteCount, window: ByteCount) -> Self {
        let count = size.0.div_ceil(window.0);
        let words = usize::try_from(count.div_ceil(64)).unwrap_or(usize::MAX);
        Self {
            bits: vec![0; words],
            window: window.0,
            size: size.0,
        }
    }

    /// Takes note of a window; its length.
    pub(super) fn note(&mut self, index: u64) -> Result<ByteCount> {
        let outside = || malformed("a window lies outside the disk");
        let start = index
            .checked_mul(self.window)
            .filter(|start| *start < self.size);
        let start = start.ok_or_else(outside)?;
        let word = usize::try_from(index / 64).map_err(|_| outside())?;
        let word = self.bits.get_mut(word).ok_or_else(outside)?;
        let bit = 1 << (index % 64);
        if *word & bit != 0 {
            return Err(malformed("a window comes twice"));
        }
        *word |= bit;
        Ok(ByteCount(self.window.min(self.size - start)))
    }
}

impl Hearing<'_> {
    /// Says which blocks of a window are lacking; the window, where none is.
    fn offer(&mut self, message: &Message, outbox: &Outbox) -> Result<Option<Ready>> {
        let (window, _) = decode::<Window>(&message.bytes)?;
        let length = self.seen.note(window.index)?;
        if self.order.base.is_some() || self.open.len() >= OPEN_WINDOWS_MAX {
            return Err(malformed("a window is offered that nobody asked for"));
        }
        let segments = window.checked(length)?;
        let index = window.index;
        let ids: Vec<BlockId> = segments
            .iter()
            .filter_map(|segment| segment.block)
            .collect();
        let have = self
            .order
            .gauge
            .busy(Stage::Target, || self.order.writer.have(&ids))?;
        let positions = segments
            .iter()
            .zip(0_u32..)
            .filter(|(segment, _)| segment.block.is_some());
        let lacking = positions.zip(have).filter(|(_, have)| !have);
        let wanted: Vec<u32> = lacking.map(|((_, position), _)| position).collect();
        outbox.send(
            MessageKind::Want,
            &Want {
                index,
                segments: wanted.clone(),
            },
            &[],
        )?;
        if wanted.is_empty() {
            return Ok(Some(Ready::Blocks {
                index,
                segments,
                wanted,
                body: None,
            }));
        }
        self.open.insert(index, Open { segments, wanted });
        Ok(None)
    }

    fn blocks(&mut self, message: Message) -> Result<Ready> {
        let (blocks, _) = decode::<Blocks>(&message.bytes)?;
        let open = self.open.remove(&blocks.index);
        let Open { segments, wanted } =
            open.ok_or_else(|| malformed("blocks came that nobody asked for"))?;
        Ok(Ready::Blocks {
            index: blocks.index,
            segments,
            wanted,
            body: Some(message.bytes),
        })
    }

    fn changed(&mut self, message: Message) -> Result<Ready> {
        let (changed, _) = decode::<Changed>(&message.bytes)?;
        self.seen.note(changed.index)?;
        if self.order.base.is_none() {
            return Err(malformed("changes came that nobody asked for"));
        }
        Ok(Ready::Changed(message.bytes))
    }

    /// Takes over the sender's numbers.
    fn totals(&self, message: &Message) -> Result<()> {
        let (totals, _) = decode::<Totals>(&message.bytes)?;
        let gauge = self.order.gauge;
        gauge.done.set(totals.done.0.min(self.order.size.0));
        gauge.read.set(totals.read.0);
        gauge.changed.set(totals.changed.0);
        for (stage, micros) in [
            (Stage::Source, totals.busy.source),
            (Stage::Proxy, totals.busy.proxy),
            (Stage::Network, totals.busy.network),
        ] {
            gauge.set_busy(stage, micros);
        }
        Ok(())
    }
}

fn store_all(
    crew: &Crew,
    order: &ReceiveDisk<'_>,
    intake: &Intake<'_>,
    to_store: &Receiver<Ready>,
) -> Result<()> {
    for window in to_store {
        crew.check()?;
        match window {
            Ready::Blocks {
                index,
                segments,
                wanted,
                body,
            } => {
                if let Some(message) = body {
                    store_blocks(order, intake, &segments, &wanted, &message)?;
                }
                order
                    .gauge
                    .busy(Stage::Target, || intake.tree.set_window(index, &segments))?;
            }
            Ready::Changed(message) => store_changed(order, intake, &message)?,
        }
    }
    Ok(())
}

/// Stores the wanted blocks of a window, each named anew from its bytes.
fn store_blocks(
    order: &ReceiveDisk<'_>,
    intake: &Intake<'_>,
    segments: &[Segment],
    wanted: &[u32],
    message: &[u8],
) -> Result<()> {
    let (blocks, body) = decode::<Blocks>(message)?;
    let lacking = || {
        let segment = |position: &u32| {
            usize::try_from(*position)
                .ok()
                .and_then(|p| segments.get(p))
        };
        wanted.iter().filter_map(segment)
    };
    let length = lacking().map(|segment| segment.length as usize).sum();
    let plain = order
        .gauge
        .busy(Stage::Target, || unpack(blocks.packing, body, length))?;
    let cutter = order.writer.cutter();
    let mut rest = &plain[..];
    let mut new = Vec::with_capacity(wanted.len());
    for segment in lacking() {
        let (bytes, after) = rest.split_at(segment.length as usize);
        rest = after;
        let id = order.gauge.busy(Stage::Target, || cutter.block_id(bytes));
        if segment.block != Some(id) {
            return Err(Error::corrupt(
                "mover.stream.block",
                "a block arrived with other bytes than were offered",
            )
            .hint("run a memory test on both hosts if this happens again"));
        }
        new.push(NewBlock { id, bytes });
    }
    intake.put_lacking(&new).map(drop)
}

fn store_changed(order: &ReceiveDisk<'_>, intake: &Intake<'_>, message: &[u8]) -> Result<()> {
    let (changed, body) = decode::<Changed>(message)?;
    let window = order.writer.cutter().window_size();
    let start = changed.index * window.0;
    let length = ByteCount(window.0.min(order.size.0 - start));
    let ranges: Vec<ByteRange> = changed.checked(length)?;
    let total: u64 = ranges.iter().map(|range| range.length.0).sum();
    let total = ByteCount(total).as_usize()?;
    let plain = order
        .gauge
        .busy(Stage::Target, || unpack(changed.packing, body, total))?;
    let mut bytes = vec![0; length.as_usize()?];
    let mut rest = &plain[..];
    for range in &ranges {
        let (part, after) = rest.split_at(range.length.as_usize()?);
        rest = after;
        let place = ByteCount(range.offset.0).as_usize()?..ByteCount(range.end().0).as_usize()?;
        let target = bytes.get_mut(place).ok_or_else(|| {
            Error::new(
                Kind::Bug,
                "mover.stream.window",
                "a range lies outside its window",
            )
        })?;
        target.copy_from_slice(part);
    }
    intake
        .store(changed.index, length, &ranges, &bytes)
        .map(drop)
}
