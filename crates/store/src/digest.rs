//! The digest of a file's bytes, read piece by piece.
//!
//! Knows: ranges of files. Refuses to know: what the digest is compared with.

use base::Result;
use base::files::FileRead;
use base::size::ByteOffset;

/// Bytes read at once.
const CHUNK: usize = 1 << 20;

/// Feeds a range of a file to a hasher; the digest of all it was fed so far.
pub(crate) fn hash_range(
    file: &dyn FileRead,
    start: u64,
    end: u64,
    hasher: &mut blake3::Hasher,
) -> Result<[u8; 32]> {
    let mut chunk = vec![0; CHUNK.min(end.saturating_sub(start) as usize)];
    let mut at = start;
    while at < end {
        let take = (end - at).min(CHUNK as u64) as usize;
        file.read_at(ByteOffset(at), &mut chunk[..take])?;
        hasher.update(&chunk[..take]);
        at += take as u64;
    }
    Ok(*hasher.finalize().as_bytes())
}
