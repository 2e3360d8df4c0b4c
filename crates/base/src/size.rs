//! Sizes and offsets that do not mix.
//!
//! Knows: a count of bytes, a place in a byte string, and a range made of both; how they are shown
//! to people. Refuses to know: what the bytes are.

use crate::error::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::{Add, AddAssign, Sub};

/// A number of bytes.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct ByteCount(pub u64);

/// A place in a byte string, counted from its start.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct ByteOffset(pub u64);

/// `length` bytes from `offset` on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, Serialize, Deserialize)]
pub struct ByteRange {
    /// First byte.
    pub offset: ByteOffset,
    /// How many bytes.
    pub length: ByteCount,
}

/// One kibibyte.
pub const KIB: u64 = 1024;
/// One mebibyte.
pub const MIB: u64 = 1024 * KIB;
/// One gibibyte.
pub const GIB: u64 = 1024 * MIB;

impl ByteCount {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// The count as a length in memory; an error where it does not fit.
    pub fn as_usize(self) -> Result<usize> {
        usize::try_from(self.0).map_err(|_| {
            Error::new(
                Kind::Limit,
                "base.size.too-large",
                format!("{self} do not fit in memory"),
            )
        })
    }

    /// The sum, or an error where it overflows.
    pub fn checked_add(self, other: Self) -> Result<Self> {
        self.0.checked_add(other.0).map(Self).ok_or_else(overflow)
    }
}

impl ByteOffset {
    /// The start.
    pub const ZERO: Self = Self(0);

    /// The place `count` further on, or an error where it overflows.
    pub fn checked_add(self, count: ByteCount) -> Result<Self> {
        self.0.checked_add(count.0).map(Self).ok_or_else(overflow)
    }
}

fn overflow() -> Error {
    Error::new(
        Kind::Invalid,
        "base.size.overflow",
        "an offset or size is larger than 2^64 bytes",
    )
}

impl ByteRange {
    /// `length` bytes from `offset` on.
    pub const fn new(offset: u64, length: u64) -> Self {
        Self {
            offset: ByteOffset(offset),
            length: ByteCount(length),
        }
    }

    /// The first byte after the range. Ranges are validated where they enter; one that leaves the
    /// 64-bit space ends at its border.
    pub const fn end(&self) -> ByteOffset {
        ByteOffset(self.offset.0.saturating_add(self.length.0))
    }

    /// Whether the range covers nothing.
    pub const fn is_empty(&self) -> bool {
        self.length.0 == 0
    }

    /// The part that both ranges cover, if any.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let start = self.offset.max(other.offset);
        let end = self.end().min(other.end());
        (start < end).then(|| Self::new(start.0, end.0 - start.0))
    }
}

impl Add for ByteCount {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for ByteCount {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for ByteCount {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl std::iter::Sum for ByteCount {
    fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
        items.fold(Self::ZERO, |sum, item| sum + item)
    }
}

impl Add<ByteCount> for ByteOffset {
    type Output = Self;
    fn add(self, count: ByteCount) -> Self {
        Self(self.0.saturating_add(count.0))
    }
}

impl Sub for ByteOffset {
    type Output = ByteCount;
    fn sub(self, other: Self) -> ByteCount {
        ByteCount(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for ByteCount {
    /// As people read it: `0 B`, `1.5 KiB`, `20.0 GiB`.
    #[allow(clippy::cast_precision_loss)]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        let (mut value, mut unit) = (self.0 as f64, 0);
        while value >= 1024.0 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        if unit == 0 {
            write!(f, "{} B", self.0)
        } else {
            write!(f, "{value:.1} {}", UNITS[unit])
        }
    }
}

impl fmt::Display for ByteOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.offset, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_shown_as_people_read_them() {
        assert_eq!(ByteCount(0).to_string(), "0 B");
        assert_eq!(ByteCount(1023).to_string(), "1023 B");
        assert_eq!(ByteCount(1536).to_string(), "1.5 KiB");
        assert_eq!(ByteCount(20 * GIB).to_string(), "20.0 GiB");
        assert_eq!(ByteCount(u64::MAX).to_string(), "16.0 EiB");
    }

    #[test]
    fn ranges_intersect_and_never_overflow() {
        let all = ByteRange::new(0, u64::MAX);
        let tail = ByteRange::new(u64::MAX - 4, 100);
        assert_eq!(tail.end(), ByteOffset(u64::MAX));
        assert_eq!(
            all.intersection(&tail),
            Some(ByteRange::new(u64::MAX - 4, 4))
        );
        assert_eq!(
            ByteRange::new(0, 4).intersection(&ByteRange::new(4, 4)),
            None
        );
        assert!(ByteOffset(u64::MAX).checked_add(ByteCount(1)).is_err());
    }
}
