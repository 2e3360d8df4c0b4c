//! Checking points: every range of every disk leads to a good block.
//!
//! Knows: a walk over trees that goes through clean subtrees once, and names damage for each point
//! that has it. Refuses to know: why a block is not good.

use super::Check;
use crate::cut::Segment;
use crate::id::{BlockId, Root};
use crate::layout::Content;
use crate::point::Point;
use crate::report::{Damage, PointList};
use crate::tree::{FAN_OUT, Node, Nodes, RootRecord, check_leaf};
use base::id::PointId;
use base::size::{ByteCount, ByteRange};
use base::{Error, Kind, Result};
use std::collections::HashSet;

/// A disk or file being checked.
struct Subject<'a> {
    point: PointId,
    name: &'a str,
    record: RootRecord,
}

/// What was found clean before: node bits are kept in memory by id.
#[derive(Default)]
struct Clean {
    nodes: HashSet<BlockId>,
}

impl Check<'_> {
    pub(super) fn inner_points(&mut self) -> Result<PointList> {
        let list = crate::point::list(self.inner)?;
        for damaged in &list.damaged {
            let (name, reason) = (damaged.name.clone(), damaged.reason.clone());
            self.damage(Damage::Point { name, reason });
        }
        Ok(list)
    }

    pub(super) fn check_points(&mut self, list: &PointList) -> Result<()> {
        let chosen: Vec<&Point> = list
            .points
            .iter()
            .filter(|point| {
                self.options.points.is_empty() || self.options.points.contains(&point.id)
            })
            .collect();
        let mut clean = Clean::default();
        for (done, point) in chosen.iter().enumerate() {
            self.step("points", done as u64, chosen.len() as u64)?;
            self.report.points += 1;
            let before = self.report.damage.len();
            for disk in &point.disks {
                self.check_content(point.id, &disk.name, disk.root, disk.size, &mut clean)?;
            }
            for file in &point.files {
                self.check_content(point.id, &file.path, file.root, file.size, &mut clean)?;
            }
            // Deleted while we looked: what is missing then is nobody's loss.
            if self.report.damage.len() > before && self.is_gone(point.id)? {
                self.report.damage.truncate(before);
            }
        }
        Ok(())
    }

    fn is_gone(&self, id: PointId) -> Result<bool> {
        match self.inner.files.open(&crate::layout::point(id)?) {
            Ok(_) => Ok(false),
            Err(error) if error.kind() == Kind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn check_content(
        &mut self,
        point: PointId,
        name: &str,
        root: Root,
        size: ByteCount,
        clean: &mut Clean,
    ) -> Result<()> {
        let whole = ByteRange::new(0, size.0.max(1));
        let record = match self.node(&root.block()) {
            Ok(Node::Root(record)) if record.size == size.0 => record,
            Ok(_) => {
                let reason = "its root is of another tree".to_owned();
                let name = name.to_owned();
                self.damage(Damage::Range {
                    point,
                    name,
                    range: whole,
                    reason,
                });
                return Ok(());
            }
            Err(error) if stops(&error) => return Err(error),
            Err(error) => {
                let (name, reason) = (name.to_owned(), error.to_string());
                self.damage(Damage::Range {
                    point,
                    name,
                    range: whole,
                    reason,
                });
                return Ok(());
            }
        };
        let subject = Subject {
            point,
            name,
            record,
        };
        if let Some(top) = record.top {
            self.check_node(&subject, &top, record.levels, 0, clean)?;
        }
        Ok(())
    }

    /// A node, if its place is good and it reads well.
    fn node(&mut self, id: &BlockId) -> Result<Node> {
        self.report.nodes += 1;
        if let Some(reason) = self.problem(Content::Tree, id)? {
            return Err(Error::corrupt("store.verify.node", reason));
        }
        self.inner.blocks.node(id).map(|node| (*node).clone())
    }

    /// Checks all below a node; whether it is clean. At most seven deep.
    fn check_node(
        &mut self,
        subject: &Subject<'_>,
        id: &BlockId,
        level: u8,
        first: u64,
        clean: &mut Clean,
    ) -> Result<bool> {
        if clean.nodes.contains(id) {
            return Ok(true);
        }
        self.options.cancel.check()?;
        let node = match self.node(id) {
            Ok(node) => node,
            Err(error) if stops(&error) => return Err(error),
            Err(error) => {
                self.range(subject, first, level, &error.to_string());
                return Ok(false);
            }
        };
        let all = match node {
            Node::Leaf(segments) if level == 0 => self.check_leaf(subject, first, &segments)?,
            Node::Inner {
                level: found,
                children,
            } if found == level && level > 0 => {
                let step = FAN_OUT.pow(u32::from(level) - 1);
                let mut all = true;
                for (place, child) in children {
                    let first = first + u64::from(place) * step;
                    all &= self.check_node(subject, &child, level - 1, first, clean)?;
                }
                all
            }
            _ => {
                self.range(
                    subject,
                    first,
                    level,
                    "a node is not what its place asks for",
                );
                false
            }
        };
        if all {
            clean.nodes.insert(*id);
        }
        Ok(all)
    }

    fn check_leaf(
        &mut self,
        subject: &Subject<'_>,
        window: u64,
        segments: &[Segment],
    ) -> Result<bool> {
        if let Err(error) = check_leaf(segments, subject.record.window_length(window)) {
            self.range(subject, window, 0, error.message());
            return Ok(false);
        }
        let mut at = window * u64::from(subject.record.window);
        let mut all = true;
        for segment in segments {
            let range = ByteRange::new(at, u64::from(segment.length));
            at += u64::from(segment.length);
            let Some(id) = &segment.block else { continue };
            self.report.blocks += 1;
            if let Some(reason) = self.problem(Content::Data, id)? {
                all = false;
                let (point, name) = (subject.point, subject.name.to_owned());
                self.damage(Damage::Range {
                    point,
                    name,
                    range,
                    reason,
                });
            }
        }
        Ok(all)
    }

    /// Notes that all windows below a node are lost.
    fn range(&mut self, subject: &Subject<'_>, first: u64, level: u8, reason: &str) {
        let window = u64::from(subject.record.window);
        let start = first.saturating_mul(window).min(subject.record.size);
        let span = FAN_OUT
            .saturating_pow(u32::from(level))
            .saturating_mul(window);
        let length = span.min(subject.record.size - start);
        self.damage(Damage::Range {
            point: subject.point,
            name: subject.name.to_owned(),
            range: ByteRange::new(start, length),
            reason: reason.to_owned(),
        });
    }

    /// Why a block cannot be had; `None` where one of its places is good.
    fn problem(&mut self, content: Content, id: &BlockId) -> Result<Option<String>> {
        let mut reason = None;
        for segment in self
            .index
            .segments
            .iter()
            .filter(|segment| segment.content == content)
        {
            match segment.locate(id) {
                Ok(Some((number, entry))) => {
                    let pack = segment.pack(&entry)?.id;
                    let bad = self.bad_packs.get(&pack);
                    let good = match self.options.read_data {
                        true => self.good.has(segment.id, number),
                        false => bad.is_none(),
                    };
                    if good {
                        return Ok(None);
                    }
                    let why = bad.map_or("its frame is damaged", String::as_str);
                    reason = Some(format!("pack {}: {why}", pack.0.short()));
                }
                Ok(None) => {}
                Err(error) if stops(&error) => return Err(error),
                Err(error) => {
                    self.bad_segments.insert(segment.id, error.to_string());
                    reason = Some(error.to_string());
                }
            }
        }
        // A block that only a pack without a segment has, or one whose list is damaged: read it.
        match self.inner.blocks.read(content, id) {
            Ok(_) => Ok(None),
            Err(error) if stops(&error) => Err(error),
            Err(error) => Ok(Some(reason.unwrap_or_else(|| error.to_string()))),
        }
    }
}

/// Whether an error ends the verification in place of being its finding.
fn stops(error: &Error) -> bool {
    matches!(error.kind(), Kind::Cancelled)
}
