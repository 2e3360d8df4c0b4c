//! Writing disks of points to images and devices of this host.
//!
//! Knows: which reader and which target belong together. Refuses to know: what is done with the
//! image afterwards.

use super::Executor;
use crate::pipeline::restore::{StoredDisk, restore};
use crate::sink::Sink;
use base::Result;
use base::block::BlockRead;
use base::id::PointId;
use protocol::words::agent::{AgentResponse, ImageTarget, TaskEnd};

impl Executor {
    pub(super) fn restore_disk(
        &self,
        point: PointId,
        disk: String,
        target: ImageTarget,
    ) -> Result<AgentResponse> {
        let repository = self.repository()?;
        let point = repository.point(point)?;
        let root = point.disk(&disk)?.root;
        let number = self.tasks.start(&format!("restore {disk}"), move |task| {
            let reader = repository.open_disk(&point, &disk)?;
            let sink = Sink::open(&target, reader.size())?;
            let stored = StoredDisk {
                repository: &repository,
                root,
                reader: &reader,
            };
            let root = restore(&stored, &sink.target()?, &task.gauge, &task.cancel)?;
            sink.keep()?;
            Ok(TaskEnd::Restored { root: root.0 })
        })?;
        Ok(AgentResponse::Started(number))
    }
}
