//! Disks between two agents on different hosts.
//!
//! Knows: that the receiver listens first, that both ends get one ticket, and that both must end
//! well. Refuses to know: frames.

use crate::agents::Agent;
use crate::desk::Desk;
use base::Result;
use base::id::StreamId;
use protocol::words::agent::{AgentRequest, DiskOrder, ImageTarget, StreamTicket, TaskReport};
use protocol::words::secret::Secret;

/// A fresh ticket for one stream.
pub fn ticket(desk: &Desk) -> StreamTicket {
    let mut token = [0; 32];
    desk.random().fill(&mut token);
    let text = token
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>();
    StreamTicket {
        id: StreamId::generate(desk.clock(), desk.random()),
        token: Secret::new(text),
    }
}

/// Sends a disk from `source` into the point that `target` makes. The receiver's report, with the
/// reader's counters merged in.
pub fn send_disk(
    desk: &Desk,
    source: &Agent,
    target: &Agent,
    order: DiskOrder,
    mut progress: impl FnMut(&TaskReport),
) -> Result<TaskReport> {
    let ticket = ticket(desk);
    let received = DiskOrder {
        source: None,
        ..order.clone()
    };
    let receive = AgentRequest::ReceiveDisk {
        order: received,
        stream: ticket.clone(),
    };
    let (receiving, to) = target.listen(&receive)?;
    let sending = source.start(&AgentRequest::SendDisk {
        order,
        to,
        stream: ticket,
    });
    let sending = match sending {
        Ok(task) => task,
        Err(error) => {
            target.done(&AgentRequest::Cancel { task: receiving })?;
            return Err(error);
        }
    };
    let sent = source.wait(sending, |report| progress(report));
    if sent.is_err() {
        // The receiver learns it from the stream too; this only makes it quicker.
        let _ = target.done(&AgentRequest::Cancel { task: receiving });
    }
    let received = target.wait(receiving, |_| {});
    // The sender's error is the cause where both failed.
    let sent = sent?;
    let mut end = received?;
    end.counters.read = sent.counters.read;
    end.counters.changed = sent.counters.changed;
    end.counters.transferred = sent.counters.transferred;
    end.counters.busy.source = sent.counters.busy.source;
    end.counters.busy.proxy = end.counters.busy.proxy.max(sent.counters.busy.proxy);
    end.counters.busy.network = end.counters.busy.network.max(sent.counters.busy.network);
    end.warnings.extend(sent.warnings);
    progress(&end);
    Ok(end)
}

/// A disk of a point, to be written on another host than the repository's.
pub struct PointDisk<'a> {
    /// The request that sends it, without address and ticket.
    pub point: base::id::PointId,
    /// Its name.
    pub disk: &'a str,
    /// Its size.
    pub size: base::size::ByteCount,
}

/// Sends a disk of a point from the repository's agent to a file that `writer` makes.
pub fn send_point_disk(
    desk: &Desk,
    repository: &Agent,
    writer: &Agent,
    disk: &PointDisk<'_>,
    target: ImageTarget,
    progress: impl FnMut(&TaskReport),
) -> Result<TaskReport> {
    let ticket = ticket(desk);
    let receive = AgentRequest::ReceiveImage {
        size: disk.size,
        target,
        stream: ticket.clone(),
    };
    let (receiving, to) = writer.listen(&receive)?;
    let sending = repository.start(&AgentRequest::SendPointDisk {
        point: disk.point,
        disk: disk.disk.to_owned(),
        to,
        stream: ticket,
    });
    let sending = match sending {
        Ok(task) => task,
        Err(error) => {
            writer.done(&AgentRequest::Cancel { task: receiving })?;
            return Err(error);
        }
    };
    let received = writer.wait(receiving, progress);
    if received.is_err() {
        let _ = repository.done(&AgentRequest::Cancel { task: sending });
    }
    let sent = repository.wait(sending, |_| {});
    let received = received?;
    sent?;
    Ok(received)
}
