//! (being built: signatures are final, bodies follow)

use super::NbdClient;
use base::Result;
use base::block::Extent;
use base::size::ByteRange;

/// The dirty parts of a range, in order, asked from the server piece by piece.
pub struct ChangedExtents<'a> {
    _client: &'a NbdClient,
}

impl<'a> ChangedExtents<'a> {
    pub(super) fn new(client: &'a NbdClient, _bitmap: &str, _range: ByteRange) -> Self {
        Self { _client: client }
    }
}

impl Iterator for ChangedExtents<'_> {
    type Item = Result<Extent>;
    fn next(&mut self) -> Option<Self::Item> {
        None
    }
}
