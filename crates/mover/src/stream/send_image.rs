//! The repository's half of a restore over the network.
//!
//! Knows: windows are read, checked against the tree, packed and sent. Refuses to know: where the
//! other side writes them.

use super::message::{MessageKind, Terms, Totals, VERSION, Window, malformed, pack};
use super::wires::{Outbox, guarded, receive, send_all};
use crate::pipeline::crew::Crew;
use crate::pipeline::gauge::Gauge;
use crate::pipeline::restore::{StoredDisk, StoredWindow, read_windows};
use base::Result;
use base::block::{BlockRead, ExtentKind};
use base::cancel::Cancel;
use base::size::ByteCount;
use protocol::stream::BulkHalves;
use protocol::words::counters::Stage;

/// Sends a disk of a point. Returns when the other side has it on stable storage.
///
/// # Errors
/// The first error of any stage, or what the other side failed with; `Cancelled` on request.
pub fn send_image(
    stored: &StoredDisk<'_>,
    gauge: &Gauge,
    cancel: &Cancel,
    stream: BulkHalves,
) -> Result<()> {
    let (sender, mut receiver) = stream;
    let breaker = sender.breaker();
    let crew = Crew::new(cancel);
    let cutter = stored.repository.cutter();
    gauge.processed.add(stored.reader.size().0);
    guarded(&crew, &breaker, || {
        let (outbox, queue) = Outbox::new();
        std::thread::scope(|scope| {
            let crew = &crew;
            scope.spawn(move || crew.work(|| send_all(crew, sender, &queue, gauge)));
            // The other side has nothing to say; this thread learns of its end or failure.
            scope.spawn(move || {
                crew.work(|| match receive(&mut receiver) {
                    Ok(None) => receiver.finish().map(drop),
                    other => {
                        let misplaced = || malformed("a message that has no place here");
                        let error = other.err().unwrap_or_else(misplaced);
                        receiver.abort(&crew.reason_for(&error));
                        Err(error)
                    }
                });
            });
            crew.work(|| {
                let terms = Terms {
                    version: VERSION,
                    cutter: cutter.clone(),
                    size: stored.reader.size(),
                    changed_since: None,
                    root: Some(stored.root.0),
                };
                outbox.send(MessageKind::Terms, &terms, &[])
            });
            read_windows(crew, stored, &cutter, gauge, &|window| {
                send_window(window, gauge, &outbox)?;
                gauge.done.add(window.range.length.0);
                Ok(())
            });
            crew.work(|| {
                crew.check()?;
                let counters = gauge.counters();
                let totals = Totals {
                    done: counters.done,
                    read: counters.read,
                    changed: ByteCount::ZERO,
                    busy: counters.busy,
                };
                outbox.send(MessageKind::End, &totals, &[])
            });
            drop(outbox);
        });
    });
    crew.finish()?;
    cancel.check()
}

fn send_window(window: &StoredWindow<'_>, gauge: &Gauge, outbox: &Outbox) -> Result<()> {
    let (head, body) = gauge.busy(Stage::Proxy, || {
        let mut data = Vec::new();
        for extent in window
            .extents
            .iter()
            .filter(|extent| extent.kind == ExtentKind::Data)
        {
            data.extend_from_slice(window.part(extent.range)?);
        }
        let (packing, packed) = pack(&data)?;
        let head = Window::new(window.index, window.segments, packing);
        Ok::<_, base::Error>((head, packed.into_owned()))
    })?;
    outbox.send(MessageKind::Stored, &head, &body)
}
