//! What is longer than one message: lists in pages, files in pieces.
//!
//! Knows: how much one message carries, and how an agent is asked until all has come or gone.
//! Refuses to know: who asks, over which link, and what lists and files are for.
//!
//! Each deed asks through a closure, so that a manager over a link and a person's client in the
//! agent's own process use the same ones.

use crate::words::agent::{AgentRequest as Q, AgentResponse as A, Piece};
use crate::words::point::{Point, PointFile};
use crate::words::span::Span;
use base::id::PointId;
use base::limit::POINT_FILE_SIZE_MAX;
use base::size::{ByteCount, MIB};
use base::{Error, Kind, Result};
use serde::Serialize;

/// The most bytes of a file in one message.
pub const PIECE_SIZE: usize = MIB as usize;
/// The encoded items of one page have at most so many bytes, unless a single one has more: well
/// below [`base::limit::MESSAGE_SIZE_MAX`], so that no item of any sense makes a message too large.
pub const PAGE_SIZE: usize = MIB as usize;
/// How often a file is read anew that changes while it is read.
const READ_TRIES: u32 = 3;

/// A part of a list that fits into one message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Whether the list goes on.
    pub more: bool,
}

/// How many bytes a word has on the wire.
///
/// # Errors
/// `Bug` (`protocol.message.unsendable`) for what cannot be sent at all.
pub fn encoded_size<T: Serialize>(word: &T) -> Result<usize> {
    postcard::experimental::serialized_size(word).map_err(|error| {
        Error::new(
            Kind::Bug,
            "protocol.message.unsendable",
            "a message cannot be encoded",
        )
        .caused_by(error)
    })
}

/// The first page of a list; items beyond it are not looked at, except for the first of them.
///
/// # Errors
/// Those of the list.
pub fn page<T: Serialize>(list: impl IntoIterator<Item = Result<T>>) -> Result<Page<T>> {
    let mut items = Vec::new();
    let mut size = 0;
    for item in list {
        let item = item?;
        size += encoded_size(&item)?;
        if size > PAGE_SIZE && !items.is_empty() {
            return Ok(Page { items, more: true });
        }
        items.push(item);
    }
    Ok(Page { items, more: false })
}

/// A list as its pages: at least one, of which only the last has no more.
///
/// # Errors
/// `Bug` for what cannot be sent at all.
pub fn pages<T: Serialize>(list: Vec<T>) -> Result<Vec<Page<T>>> {
    let mut pages = Vec::new();
    let mut rest = list.into_iter().peekable();
    loop {
        let mut items = Vec::new();
        let mut size = 0;
        while let Some(next) = rest.peek() {
            size += encoded_size(next)?;
            if size > PAGE_SIZE && !items.is_empty() {
                break;
            }
            items.extend(rest.next());
        }
        let more = rest.peek().is_some();
        pages.push(Page { items, more });
        if !more {
            return Ok(pages);
        }
    }
}

/// All points of an agent's repository in order of their ids, page by page. The span says of which
/// ids a page tells: what lies in it and is not on the page does not exist.
///
/// # Errors
/// Those of the agent and of `each`; `Bug` for pages out of order.
pub fn point_pages(
    ask: impl Fn(&Q) -> Result<A>,
    mut each: impl FnMut(Vec<Point>, Span<PointId>) -> Result<()>,
) -> Result<()> {
    let mut after: Option<PointId> = None;
    loop {
        let (points, more) = match ask(&Q::ListPoints { after })? {
            A::Points { points, more } => (points, more),
            other => return Err(unexpected(&other)),
        };
        let ids = after.into_iter().chain(points.iter().map(|point| point.id));
        let last = points.last().map(|point| point.id);
        // Without progress the list would never end.
        if !ids.is_sorted_by(|a, b| a < b) || (more && last.is_none()) {
            return Err(Error::new(
                Kind::Bug,
                "protocol.paging.order",
                "an agent lists restore points out of order",
            ));
        }
        let to = last.filter(|_| more);
        each(points, Span { after, to })?;
        if !more {
            return Ok(());
        }
        after = last;
    }
}

/// All points of an agent's repository, oldest first.
///
/// # Errors
/// Those of [`point_pages`].
pub fn points(ask: impl Fn(&Q) -> Result<A>) -> Result<Vec<Point>> {
    let mut all = Vec::new();
    point_pages(ask, |points, _| {
        all.extend(points);
        Ok(())
    })?;
    all.sort_by_key(|point: &Point| (point.created, point.id));
    Ok(all)
}

/// All of a small file of a point.
///
/// # Errors
/// Those of the agent; `Limit` (`protocol.file.too-large`) beyond [`POINT_FILE_SIZE_MAX`].
pub fn read_file(ask: impl Fn(&Q) -> Result<A>, point: PointId, path: &str) -> Result<Vec<u8>> {
    let request = |from| Q::ReadFile {
        point,
        path: path.to_owned(),
        from,
    };
    read(ask, path, request)
}

/// All of a small file of the agent's host.
///
/// # Errors
/// Those of the agent; `Limit` (`protocol.file.too-large`) beyond [`POINT_FILE_SIZE_MAX`];
/// `Conflict` (`protocol.file.changed`) for a file that changes whenever it is read.
pub fn read_host_file(ask: impl Fn(&Q) -> Result<A>, path: &str) -> Result<Vec<u8>> {
    let request = |from| Q::ReadHostFile {
        path: path.to_owned(),
        from,
    };
    let mut tries = 1;
    loop {
        match read(&ask, path, request) {
            Err(error) if error.code() == CHANGED && tries < READ_TRIES => tries += 1,
            other => return other,
        }
    }
}

const CHANGED: &str = "protocol.file.changed";

fn read(
    ask: impl Fn(&Q) -> Result<A>,
    path: &str,
    request: impl Fn(ByteCount) -> Q,
) -> Result<Vec<u8>> {
    let mut bytes: Vec<u8> = Vec::new();
    let mut first = None;
    loop {
        let from = ByteCount(bytes.len() as u64);
        let Piece {
            bytes: piece,
            total,
            revision,
        } = match ask(&request(from))? {
            A::Piece(piece) => piece,
            other => return Err(unexpected(&other)),
        };
        if total.0 > POINT_FILE_SIZE_MAX {
            return Err(too_large(path));
        }
        let same = *first.get_or_insert((total, revision)) == (total, revision);
        let has = from + ByteCount(piece.len() as u64);
        if !same || has > total || (piece.is_empty() && has < total) {
            return Err(Error::new(
                Kind::Conflict,
                CHANGED,
                format!("the file {path} changed while it was read"),
            )
            .hint("try again when nothing writes to it"));
        }
        bytes.extend(piece);
        if has == total {
            return Ok(bytes);
        }
    }
}

/// Puts a small file into the point that an agent makes.
///
/// # Errors
/// Those of the agent; `Limit` (`protocol.file.too-large`).
pub fn put_file(ask: impl Fn(&Q) -> Result<A>, path: &str, bytes: &[u8]) -> Result<PointFile> {
    let request = |from, bytes, more| Q::PutFile {
        path: path.to_owned(),
        from,
        bytes,
        more,
    };
    match write(ask, path, bytes, request)? {
        A::File(file) => Ok(file),
        other => Err(unexpected(&other)),
    }
}

/// Writes a small file of the agent's host that must not exist.
///
/// # Errors
/// Those of the agent; `Limit` (`protocol.file.too-large`).
pub fn write_host_file(ask: impl Fn(&Q) -> Result<A>, path: &str, bytes: &[u8]) -> Result<()> {
    let request = |from, bytes, more| Q::WriteHostFile {
        path: path.to_owned(),
        from,
        bytes,
        more,
    };
    match write(ask, path, bytes, request)? {
        A::Done => Ok(()),
        other => Err(unexpected(&other)),
    }
}

/// Sends all pieces; the answer to the last.
fn write(
    ask: impl Fn(&Q) -> Result<A>,
    path: &str,
    bytes: &[u8],
    request: impl Fn(ByteCount, Vec<u8>, bool) -> Q,
) -> Result<A> {
    if bytes.len() as u64 > POINT_FILE_SIZE_MAX {
        return Err(too_large(path));
    }
    let mut at = 0;
    loop {
        let end = bytes.len().min(at + PIECE_SIZE);
        let more = end < bytes.len();
        let piece = bytes.get(at..end).unwrap_or_default().to_vec();
        let answer = ask(&request(ByteCount(at as u64), piece, more))?;
        if !more {
            return Ok(answer);
        }
        if answer != A::Done {
            return Err(unexpected(&answer));
        }
        at = end;
    }
}

fn too_large(path: &str) -> Error {
    Error::new(
        Kind::Limit,
        "protocol.file.too-large",
        format!(
            "the file {path} has more than {}",
            ByteCount(POINT_FILE_SIZE_MAX)
        ),
    )
    .hint("only small files are kept with a point: configuration, kernels, NVRAM")
}

fn unexpected(answer: &A) -> Error {
    let shown: String = format!("{answer:?}").chars().take(200).collect();
    Error::new(
        Kind::Bug,
        "protocol.paging.answer",
        format!("an agent's answer does not fit the question: {shown}"),
    )
}

#[cfg(test)]
mod tests;
