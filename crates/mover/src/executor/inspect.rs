//! Looking into points.
//!
//! Knows: small files, bytes, maps and differences of disks. Refuses to know: what a guest's file
//! system is.

use super::Executor;
use base::block::{BlockRead, ExtentKind, check_range};
use base::id::PointId;
use base::size::{ByteCount, ByteOffset, ByteRange, MIB};
use base::{Error, Kind, Result};
use protocol::paging::PIECE_SIZE;
use protocol::words::agent::{AgentResponse, Piece};

/// The most bytes of one `ReadDisk`.
const READ_MAX: u64 = MIB;
/// The most ranges of one answer.
const RANGES_MAX: usize = 65_536;

impl Executor {
    pub(super) fn read_file(
        &self,
        point: PointId,
        path: &str,
        from: ByteCount,
    ) -> Result<AgentResponse> {
        let repository = self.repository()?;
        let file = repository.open_file(&repository.point(point)?, path)?;
        let total = file.size();
        let length = PIECE_SIZE.min(
            total
                .0
                .saturating_sub(from.0)
                .try_into()
                .unwrap_or(PIECE_SIZE),
        );
        let mut bytes = vec![0; length];
        if length > 0 {
            file.read_at(ByteOffset(from.0), &mut bytes)?;
        }
        Ok(AgentResponse::Piece(Piece {
            bytes,
            total,
            // A point never changes.
            revision: 0,
        }))
    }

    pub(super) fn read_disk(
        &self,
        point: PointId,
        disk: &str,
        range: ByteRange,
    ) -> Result<AgentResponse> {
        if range.length.0 > READ_MAX {
            return Err(Error::new(
                Kind::Limit,
                "mover.read.too-large",
                format!(
                    "{} were asked for, one answer holds {}",
                    range.length,
                    ByteCount(READ_MAX)
                ),
            )
            .hint("read in smaller pieces"));
        }
        let repository = self.repository()?;
        let reader = repository.open_disk(&repository.point(point)?, disk)?;
        check_range(range, reader.size())?;
        let mut bytes = vec![0; range.length.as_usize()?];
        reader.read_at(range.offset, &mut bytes)?;
        Ok(AgentResponse::Bytes(bytes))
    }

    pub(super) fn map_disk(
        &self,
        point: PointId,
        disk: &str,
        from: ByteCount,
    ) -> Result<AgentResponse> {
        let repository = self.repository()?;
        let reader = repository.open_disk(&repository.point(point)?, disk)?;
        let size = reader.size();
        let mut ranges: Vec<ByteRange> = Vec::new();
        let mut at = ByteOffset(from.0);
        while at.0 < size.0 {
            let rest = ByteRange {
                offset: at,
                length: ByteOffset(size.0) - at,
            };
            for extent in reader.extents(rest)? {
                at = extent.range.end();
                if extent.kind == ExtentKind::Zero {
                    continue;
                }
                let full = ranges.len() == RANGES_MAX;
                match ranges.last_mut() {
                    Some(last) if last.end() == extent.range.offset => {
                        last.length += extent.range.length;
                    }
                    _ if full => {
                        let next = ByteCount(extent.range.offset.0);
                        return Ok(AgentResponse::Ranges(ranges, Some(next)));
                    }
                    _ => ranges.push(extent.range),
                }
            }
        }
        Ok(AgentResponse::Ranges(ranges, None))
    }

    pub(super) fn diff_disk(
        &self,
        point: PointId,
        other: PointId,
        disk: &str,
        from: ByteCount,
    ) -> Result<AgentResponse> {
        let repository = self.repository()?;
        let (point, other) = (repository.point(point)?, repository.point(other)?);
        let all = repository.diff(&point.disk(disk)?.root, &other.disk(disk)?.root)?;
        let rest = ByteRange::new(from.0, u64::MAX - from.0);
        let mut ranges: Vec<ByteRange> = all
            .iter()
            .filter_map(|range| range.intersection(&rest))
            .collect();
        let next = ranges
            .get(RANGES_MAX)
            .map(|range| ByteCount(range.offset.0));
        ranges.truncate(RANGES_MAX);
        Ok(AgentResponse::Ranges(ranges, next))
    }
}
