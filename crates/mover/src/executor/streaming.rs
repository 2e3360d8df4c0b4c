//! Disks and images from and to other agents.
//!
//! Knows: which half of which stream a command is. Refuses to know: what the two halves say.

use super::{Executor, Network};
use crate::pipeline::restore::StoredDisk;
use crate::sink::Sink;
use crate::source::Source;
use crate::stream::receive_disk::{ReceiveDisk, receive_disk};
use crate::stream::receive_image::{ReceiveImage, receive_image};
use crate::stream::send_disk::{SendDisk, send_disk};
use crate::stream::send_image::send_image;
use base::id::PointId;
use base::size::ByteCount;
use base::{Error, Kind, Result};
use protocol::words::agent::{
    AgentResponse, DiskOrder, ImageTarget, ReadMode, StreamTicket, TaskEnd,
};

impl Executor {
    fn network(&self) -> Result<&Network> {
        self.network.as_ref().ok_or_else(|| {
            Error::new(
                Kind::Unsupported,
                "mover.stream.no-network",
                "this process has no identity to speak to other agents with",
            )
            .hint("start it as an agent of a mover service")
        })
    }

    pub(super) fn receive_disk(
        &self,
        order: DiskOrder,
        ticket: &StreamTicket,
    ) -> Result<AgentResponse> {
        // First, so that nothing listens for a disk that has no place to go.
        self.making()?;
        let expected = self.network()?.expect(ticket)?;
        let address = expected.address.clone();
        let number = self.start_disk(order, move |making, order, task| {
            // Also where all is read: a base is pinned then, but not built upon.
            let pinned = making.base(order)?;
            let base = pinned.filter(|_| order.mode == ReadMode::Changed);
            let stream = expected.wait(&task.cancel)?;
            let receiving = ReceiveDisk {
                size: order.size,
                writer: &making.writer,
                base: base.as_ref(),
                gauge: &task.gauge,
                cancel: &task.cancel,
            };
            receive_disk(&receiving, stream)
        })?;
        Ok(AgentResponse::Listening(number, address))
    }

    pub(super) fn send_disk(
        &self,
        order: DiskOrder,
        to: String,
        ticket: &StreamTicket,
    ) -> Result<AgentResponse> {
        let (network, ticket) = (self.network()?.clone(), ticket.clone());
        let number = self
            .tasks
            .start(&format!("send {}", order.name), move |task| {
                let source = super::making::open_source(&order, task)?;
                let changes = match order.mode {
                    ReadMode::All => None,
                    ReadMode::Changed => Some(Source::changes(&source)?),
                };
                let sending = SendDisk {
                    disk: source.disk(),
                    changes,
                    gauge: &task.gauge,
                    cancel: &task.cancel,
                };
                send_disk(&sending, network.dial(&to, &ticket)?)?;
                Ok(TaskEnd::Sent)
            })?;
        Ok(AgentResponse::Started(number))
    }

    pub(super) fn send_point_disk(
        &self,
        point: PointId,
        disk: String,
        to: String,
        ticket: &StreamTicket,
    ) -> Result<AgentResponse> {
        let (network, ticket) = (self.network()?.clone(), ticket.clone());
        let repository = self.repository()?;
        let point = repository.point(point)?;
        let root = point.disk(&disk)?.root;
        let number = self.tasks.start(&format!("send {disk}"), move |task| {
            let reader = repository.open_disk(&point, &disk)?;
            let stored = StoredDisk {
                repository: &repository,
                root,
                reader: &reader,
            };
            let stream = network.dial(&to, &ticket)?;
            send_image(&stored, &task.gauge, &task.cancel, stream)?;
            Ok(TaskEnd::Sent)
        })?;
        Ok(AgentResponse::Started(number))
    }

    pub(super) fn receive_image(
        &self,
        size: ByteCount,
        target: ImageTarget,
        ticket: &StreamTicket,
    ) -> Result<AgentResponse> {
        let expected = self.network()?.expect(ticket)?;
        let address = expected.address.clone();
        let number = self
            .tasks
            .start(&format!("receive {}", target.path), move |task| {
                let stream = expected.wait(&task.cancel)?;
                let sink = Sink::open(&target, size)?;
                let receiving = ReceiveImage {
                    size,
                    target: &sink.target()?,
                    gauge: &task.gauge,
                    cancel: &task.cancel,
                };
                let received = receive_image(&receiving, stream)?;
                sink.keep()?;
                let root = received.root;
                received.acknowledge()?;
                Ok(TaskEnd::Restored { root })
            })?;
        Ok(AgentResponse::Listening(number, address))
    }
}
