//! The first half of every backup: a disk's windows, read and handed to workers.
//!
//! Knows: zeros are never read, with a change map only what it marks is read, several reads are in
//! flight, and memory is bounded by a pool of buffers. Refuses to know: what the workers do with a
//! window.

use super::buffer::{Buffer, BufferPool};
use super::crew::{Crew, neighbour_gone};
use super::gauge::Gauge;
use super::pages::WindowPages;
use base::block::{BlockRead, Extent, all_extents};
use base::size::{ByteCount, ByteOffset, ByteRange};
use base::{Kind, Result};
use crossbeam_channel::{Receiver, Sender, bounded};
use protocol::words::counters::Stage;
use std::time::Duration;

/// Reads in flight at once.
const READERS: usize = 4;
/// How much of a disk is asked about at once: bounds the list of its extents.
const MAP_STRIDE: u64 = 1 << 30;
/// How often a failed read is tried before it is believed.
const READ_TRIES: u32 = 3;
/// The pause before a failed read is tried again.
const READ_PAUSE: Duration = Duration::from_millis(100);

/// What a tracker says has changed.
pub trait ChangeMap: Send + Sync {
    /// The changed parts of `range`, in order; those that are zero now are marked so.
    ///
    /// # Errors
    /// Those of the tracker's home.
    fn changed(&self, range: ByteRange) -> Result<Vec<Extent>>;
}

impl ChangeMap for Vec<Extent> {
    fn changed(&self, range: ByteRange) -> Result<Vec<Extent>> {
        let part = |extent: &Extent| {
            Some(Extent {
                range: extent.range.intersection(&range)?,
                kind: extent.kind,
            })
        };
        Ok(self.iter().filter_map(part).collect())
    }
}

/// What to read and how.
#[derive(Clone, Copy)]
pub struct Reading<'a> {
    /// The disk.
    pub disk: &'a dyn BlockRead,
    /// Bytes of one window.
    pub window: ByteCount,
    /// Read only what this map marks.
    pub changes: Option<Changes<'a>>,
    /// Live numbers.
    pub gauge: &'a Gauge,
}

/// A change map and what it is relative to.
#[derive(Clone, Copy)]
pub struct Changes<'a> {
    /// What is marked.
    pub map: &'a dyn ChangeMap,
    /// The disk's size at the time the map counts from. What lies beyond it is always read, and
    /// the window that it ends in is handed on even where nothing in it is marked.
    pub old_size: ByteCount,
}

/// One window as it was read.
pub struct Loaded {
    /// Its number.
    pub index: u64,
    /// Its bytes within the disk.
    pub range: ByteRange,
    /// What is not as in the base, within the window: all of it where there is no change map.
    pub dirty: Vec<ByteRange>,
    buffer: Buffer,
}

impl Loaded {
    /// Its bytes. Only those in `dirty` mean anything.
    pub fn bytes(&self) -> &[u8] {
        let length = usize::try_from(self.range.length.0).unwrap_or(usize::MAX);
        &self.buffer[..length.min(self.buffer.len())]
    }

    /// Whether every byte was read.
    pub fn is_whole(&self) -> bool {
        matches!(self.dirty[..], [all] if all.length == self.range.length)
    }
}

/// One window to be read.
struct Order {
    index: u64,
    range: ByteRange,
    pages: WindowPages,
}

/// Reads a disk and hands its windows to `workers` threads that run `consume`. Windows that need no
/// work (zero without a base, clean with one) are counted as done and not handed on. Returns when
/// all threads are gone; errors are in the crew.
pub fn load(
    crew: &Crew,
    reading: Reading<'_>,
    workers: usize,
    consume: &(dyn Fn(Loaded) -> Result<()> + Sync),
) {
    let workers = workers.max(1);
    let window = usize::try_from(reading.window.0).unwrap_or(usize::MAX);
    let budget = usize::try_from(base::limit::SOURCE_MEMORY_MAX / 2).unwrap_or(usize::MAX);
    let count = (READERS + 3 * workers).min(budget / window.max(1)).max(2);
    let pool = BufferPool::new(window, count);
    reading.gauge.set_threads(Stage::Source, READERS);
    let (order_in, order_out) = bounded::<Order>(2 * READERS);
    let (loaded_in, loaded_out) = bounded::<Loaded>(workers);
    std::thread::scope(|scope| {
        scope.spawn(move || crew.work(|| plan(crew, reading, &order_in)));
        for _ in 0..READERS {
            let (orders, loaded, pool) = (order_out.clone(), loaded_in.clone(), pool.clone());
            scope.spawn(move || crew.work(|| read(crew, reading, &pool, &orders, &loaded)));
        }
        // The threads' own copies alone keep the channels open.
        drop((order_out, loaded_in));
        for _ in 0..workers {
            let loaded = loaded_out.clone();
            scope.spawn(move || {
                crew.work(|| {
                    for window in &loaded {
                        crew.check()?;
                        consume(window)?;
                    }
                    Ok(())
                });
            });
        }
        drop(loaded_out);
    });
}

/// Decides which windows are to be read.
fn plan(crew: &Crew, reading: Reading<'_>, orders: &Sender<Order>) -> Result<()> {
    let size = reading.disk.size().0;
    let window = reading.window.0;
    let stride = (MAP_STRIDE / window).max(1) * window;
    let mut start = 0;
    while start < size {
        crew.check()?;
        let part = ByteRange::new(start, stride.min(size - start));
        let extents = ask(reading, part)?;
        let mut rest = &extents[..];
        let mut at = start;
        while at < part.end().0 {
            let range = ByteRange::new(at, window.min(size - at));
            let order = judge(reading, range, &mut rest);
            at = range.end().0;
            match order {
                Some(order) => orders.send(order).map_err(|_| neighbour_gone())?,
                None => reading.gauge.done.add(range.length.0),
            }
        }
        start = part.end().0;
    }
    Ok(())
}

/// The extents of a part of the disk that matter.
fn ask(reading: Reading<'_>, part: ByteRange) -> Result<Vec<Extent>> {
    reading.gauge.busy(Stage::Source, || match reading.changes {
        None => {
            reading.gauge.changed.add(part.length.0);
            all_extents(reading.disk, part)
        }
        Some(changes) => {
            let old = ByteRange::new(0, changes.old_size.0);
            let mut extents = match part.intersection(&old) {
                Some(known) => changes.map.changed(known)?,
                None => Vec::new(),
            };
            let new = ByteRange::new(old.end().0, u64::MAX - old.end().0);
            if let Some(grown) = part.intersection(&new) {
                extents.extend(all_extents(reading.disk, grown)?);
            }
            let marked: u64 = extents.iter().map(|extent| extent.range.length.0).sum();
            reading.gauge.changed.add(marked);
            Ok(extents)
        }
    })
}

/// What is to be done for one window; `None` where nothing is. `extents` are those from this window
/// on and lose what ends in it.
fn judge(reading: Reading<'_>, range: ByteRange, extents: &mut &[Extent]) -> Option<Order> {
    let mut pages = match reading.changes {
        None => WindowPages::zero(range),
        Some(_) => WindowPages::clean(range),
    };
    while let Some((extent, rest)) = extents.split_first() {
        if extent.range.offset >= range.end() {
            break;
        }
        pages.note(extent);
        if extent.range.end() > range.end() {
            break;
        }
        *extents = rest;
    }
    let needed = match reading.changes {
        None => !pages.to_read().is_empty(),
        Some(changes) => !pages.dirty().is_empty() || cut_short(changes, reading, range),
    };
    let index = range.offset.0 / reading.window.0;
    needed.then_some(Order {
        index,
        range,
        pages,
    })
}

/// Whether this is the last window of a disk that has become smaller, so that the base's window is
/// longer.
fn cut_short(changes: Changes<'_>, reading: Reading<'_>, range: ByteRange) -> bool {
    let size = reading.disk.size();
    size < changes.old_size && range.end().0 == size.0 && range.length < reading.window
}

fn read(
    crew: &Crew,
    reading: Reading<'_>,
    pool: &BufferPool,
    orders: &Receiver<Order>,
    loaded: &Sender<Loaded>,
) -> Result<()> {
    for order in orders {
        crew.check()?;
        let mut buffer = pool.take(crew)?;
        let to_read = order.pages.to_read();
        let dirty = order.pages.dirty();
        reading.gauge.busy(Stage::Source, || {
            fill(reading, order.range, &to_read, &dirty, &mut buffer)
        })?;
        let window = Loaded {
            index: order.index,
            range: order.range,
            dirty,
            buffer,
        };
        loaded.send(window).map_err(|_| neighbour_gone())?;
    }
    Ok(())
}

/// Fills the dirty parts of a buffer: zeros first where nothing is read, then what is read.
fn fill(
    reading: Reading<'_>,
    window: ByteRange,
    to_read: &[ByteRange],
    dirty: &[ByteRange],
    buffer: &mut [u8],
) -> Result<()> {
    let length = |ranges: &[ByteRange]| ranges.iter().map(|r| r.length.0).sum::<u64>();
    if length(to_read) < length(dirty) {
        for range in dirty {
            slice(buffer, *range)?.fill(0);
        }
    }
    for range in to_read {
        let place = ByteOffset(window.offset.0 + range.offset.0);
        read_patiently(reading.disk, place, slice(buffer, *range)?)?;
        reading.gauge.read.add(range.length.0);
    }
    Ok(())
}

/// The part of a window's buffer that a range names.
fn slice(buffer: &mut [u8], range: ByteRange) -> Result<&mut [u8]> {
    let place = ByteCount(range.offset.0).as_usize()?..ByteCount(range.end().0).as_usize()?;
    buffer.get_mut(place).ok_or_else(|| {
        base::Error::new(
            Kind::Bug,
            "mover.pipeline.window",
            "a range lies outside its window",
        )
    })
}

/// Reads, and tries again where the source stumbles.
fn read_patiently(disk: &dyn BlockRead, place: ByteOffset, buffer: &mut [u8]) -> Result<()> {
    let mut tries = 0;
    loop {
        tries += 1;
        match disk.read_at(place, buffer) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == Kind::Io && tries < READ_TRIES => {
                tracing::warn!(%place, "reading the source failed, trying again: {error}");
                std::thread::sleep(READ_PAUSE);
            }
            Err(error) => {
                let range = ByteRange::new(place.0, buffer.len() as u64);
                return Err(error.context(format!("reading {range} of the source")));
            }
        }
    }
}
