//! A part of an ordered list.
//!
//! Knows: its two ends. Refuses to know: what is listed.

use serde::{Deserialize, Serialize};

/// All that is greater than `after` and at most `to`; without bound where none is given. A page of
/// a list that says of which span it tells replaces just that part of what was known: nothing has
/// to be kept between two pages, and a list that breaks off has said nothing wrong.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Span<T> {
    /// The last one before it.
    pub after: Option<T>,
    /// The last one in it.
    pub to: Option<T>,
}

impl<T> Span<T> {
    /// All there is.
    pub const fn all() -> Self {
        Self {
            after: None,
            to: None,
        }
    }
}
