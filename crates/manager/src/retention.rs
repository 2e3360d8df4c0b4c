//! Which points of a machine go: a pure function.
//!
//! Knows: the rule "keep the newest N". Refuses to know: the repository, the clock, the database.

use base::clock::Timestamp;
use base::id::PointId;

/// What the rule needs to know of a point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// Its id.
    pub id: PointId,
    /// When the repository received it. Times that clients chose do not count.
    pub created: Timestamp,
}

/// The points of one machine beyond the newest `keep`, oldest first. At least one is always kept.
pub fn expired(points: &[Candidate], keep: u32) -> Vec<PointId> {
    let mut points = points.to_vec();
    points.sort_by_key(|point| (point.created, point.id));
    let keep = usize::try_from(keep.max(1)).unwrap_or(usize::MAX);
    let gone = points.len().saturating_sub(keep);
    points[..gone].iter().map(|point| point.id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(n: u8, created: i64) -> Candidate {
        Candidate {
            id: PointId::new(u64::from(n), [n; 10]),
            created: Timestamp(created),
        }
    }

    #[test]
    fn the_newest_are_kept_whatever_order_they_come_in() {
        let points = [point(3, 30), point(1, 10), point(2, 20)];
        assert_eq!(expired(&points, 2), [points[1].id]);
        assert_eq!(expired(&points, 1), [points[1].id, points[2].id]);
        assert_eq!(expired(&points, 3), []);
        assert_eq!(
            expired(&points, 0),
            expired(&points, 1),
            "one is always kept"
        );
        assert_eq!(expired(&[], 1), []);
    }

    #[test]
    fn clocks_that_jumped_decide_by_id_among_equals() {
        let points = [point(2, 10), point(1, 10)];
        assert_eq!(expired(&points, 1), [points[1].id]);
    }
}
