//! The target's half of a restore over the network.
//!
//! Knows: every block that arrives is named anew and compared with what the repository's side says
//! it is, then written; every window must come. Refuses to know: the repository.

use super::message::{MessageKind, Terms, Totals, Window, decode, malformed, unpack};
use super::wires::{Message, guarded, receive};
use crate::pipeline::backup::processors;
use crate::pipeline::crew::{Crew, neighbour_gone};
use crate::pipeline::gauge::Gauge;
use crate::pipeline::restore::{StoredWindow, Target, check, extents_of, too_small};
use base::block::ExtentKind;
use base::cancel::Cancel;
use base::digest::Digest;
use base::size::{ByteCount, ByteRange};
use base::{Error, Kind, Result};
use crossbeam_channel::{Receiver, Sender, bounded};
use protocol::stream::{BulkHalves, BulkReceiver};
use protocol::words::counters::Stage;
use std::sync::atomic::{AtomicU64, Ordering};
use store::Cutter;

/// A disk to receive and write.
pub struct ReceiveImage<'a> {
    /// Its size.
    pub size: ByteCount,
    /// Where it is written.
    pub target: &'a Target<'a>,
    /// Live numbers; they cover both halves.
    pub gauge: &'a Gauge,
    /// Asks to stop.
    pub cancel: &'a Cancel,
}

/// A disk that was written and flushed, and whose sender waits for the last word.
pub struct Received {
    /// The root of what was written.
    pub root: Digest,
    receiver: BulkReceiver,
}

impl Received {
    /// Tells the sender that all is safe.
    ///
    /// # Errors
    /// Why the stream has failed meanwhile.
    pub fn acknowledge(self) -> Result<()> {
        self.receiver.finish().map(drop)
    }
}

/// Receives a disk and writes it. On return all is on stable storage; make it stay, then
/// acknowledge.
///
/// # Errors
/// The first error of any stage, or what the other side failed with; `Cancelled` on request.
pub fn receive_image(order: &ReceiveImage<'_>, stream: BulkHalves) -> Result<Received> {
    let (sender, mut receiver) = stream;
    let breaker = sender.breaker();
    // Nothing is said in this direction but the acknowledgement of the other.
    drop(sender);
    let crew = Crew::new(order.cancel);
    order.gauge.processed.add(order.size.0);
    let mut root = None;
    guarded(&crew, &breaker, || {
        crew.work(|| {
            let terms = hear_terms(order, &mut receiver)?;
            root = terms.root;
            let workers = processors();
            order.gauge.set_threads(Stage::Target, workers);
            let (heard, to_write) = bounded(workers);
            let missing = AtomicU64::new(order.size.0);
            std::thread::scope(|scope| {
                let (crew, cutter, missing) = (&crew, &terms.cutter, &missing);
                for _ in 0..workers {
                    let to_write = to_write.clone();
                    scope.spawn(move || {
                        crew.work(|| write_all(crew, order, cutter, missing, &to_write));
                    });
                }
                drop(to_write);
                crew.work(|| hear_all(crew, order, &mut receiver, cutter, &heard));
                drop(heard);
            });
            crew.check()?;
            if missing.load(Ordering::Acquire) > 0 {
                return Err(malformed("it ends before everything has come"));
            }
            order
                .gauge
                .busy(Stage::Target, || order.target.disk.flush())
        });
    });
    let done = crew.finish().and_then(|()| order.cancel.check());
    match (done, root) {
        (Ok(()), Some(root)) => Ok(Received { root, receiver }),
        (Ok(()), None) => Err(malformed("it does not name the disk's root")),
        (Err(error), _) => {
            receiver.abort(&error);
            Err(error)
        }
    }
}

fn hear_terms(order: &ReceiveImage<'_>, receiver: &mut BulkReceiver) -> Result<Terms> {
    let terms = match receive(receiver)? {
        Some(message) if message.kind == MessageKind::Terms => decode::<Terms>(&message.bytes)?.0,
        _ => return Err(malformed("it does not begin with its terms")),
    };
    terms.check()?;
    if terms.size != order.size {
        return Err(Error::new(
            Kind::Conflict,
            "mover.stream.size",
            format!(
                "the other agent sends a disk of {} bytes, this one expects {}",
                terms.size.0, order.size.0
            ),
        ));
    }
    if terms.root.is_none() {
        return Err(malformed("it does not name the disk's root"));
    }
    let room = order.target.disk.size();
    if room < order.size {
        Err(too_small(room, order.size))
    } else {
        Ok(terms)
    }
}

/// Hears everything, and hands each window on once.
fn hear_all(
    crew: &Crew,
    order: &ReceiveImage<'_>,
    receiver: &mut BulkReceiver,
    cutter: &Cutter,
    heard: &Sender<Message>,
) -> Result<()> {
    let mut seen = super::receive_disk::Seen::new(order.size, cutter.window_size());
    let mut ended = false;
    while let Some(message) = receive(receiver)? {
        crew.check()?;
        if ended {
            return Err(malformed("something came after the end"));
        }
        order.gauge.transferred.add(message.bytes.len() as u64);
        match message.kind {
            MessageKind::Stored => {
                seen.note(decode::<Window>(&message.bytes)?.0.index)?;
                heard.send(message).map_err(|_| neighbour_gone())?;
            }
            MessageKind::End => {
                let (totals, _) = decode::<Totals>(&message.bytes)?;
                order.gauge.read.set(totals.read.0);
                order.gauge.set_busy(Stage::Source, totals.busy.source);
                order.gauge.set_busy(Stage::Proxy, totals.busy.proxy);
                order.gauge.set_busy(Stage::Network, totals.busy.network);
                ended = true;
            }
            _ => return Err(malformed("a message that has no place here")),
        }
    }
    if ended {
        Ok(())
    } else {
        Err(malformed("it ends before everything has come"))
    }
}

fn write_all(
    crew: &Crew,
    order: &ReceiveImage<'_>,
    cutter: &Cutter,
    missing: &AtomicU64,
    to_write: &Receiver<Message>,
) -> Result<()> {
    let mut buffer = vec![0; cutter.window_size().as_usize()?];
    for message in to_write {
        crew.check()?;
        let range = order.gauge.busy(Stage::Target, || {
            write_window(order, cutter, &message.bytes, &mut buffer)
        })?;
        missing.fetch_sub(range.length.0, Ordering::AcqRel);
        order.gauge.done.add(range.length.0);
    }
    Ok(())
}

/// Checks and writes one window; its range.
fn write_window(
    order: &ReceiveImage<'_>,
    cutter: &Cutter,
    message: &[u8],
    buffer: &mut [u8],
) -> Result<ByteRange> {
    let (window, body) = decode::<Window>(message)?;
    let start = window.index * cutter.window_size().0;
    let length = ByteCount(cutter.window_size().0.min(order.size.0 - start));
    let range = ByteRange::new(start, length.0);
    let segments = window.checked(length)?;
    let extents = extents_of(window.index, length, &segments)?;
    let data: Vec<ByteRange> = extents
        .iter()
        .filter(|extent| extent.kind == ExtentKind::Data)
        .map(|extent| extent.range)
        .collect();
    let total: u64 = data.iter().map(|range| range.length.0).sum();
    let plain = unpack(window.packing, body, ByteCount(total).as_usize()?)?;
    let mut rest = &plain[..];
    for part in &data {
        let (bytes, after) = rest.split_at(part.length.as_usize()?);
        rest = after;
        let place = ByteCount(part.offset.0).as_usize()?..ByteCount(part.end().0).as_usize()?;
        let target = buffer
            .get_mut(place)
            .ok_or_else(|| malformed("a window is too long"))?;
        target.copy_from_slice(bytes);
    }
    check(cutter, window.index, &segments, buffer)?;
    let window = StoredWindow {
        index: window.index,
        range,
        extents: &extents,
        segments: &segments,
        bytes: buffer,
    };
    window.write(order.target)?;
    Ok(range)
}
