//! Room kept back so that deleting works on a full disk.
//!
//! Knows: one file of useless bytes, given up when deleting meets a full disk and made again when
//! there is room. Refuses to know: what is deleted.

use crate::layout::RESERVE;
use crate::publish::remove_if_there;
use base::files::{Files, Path};
use base::random::Random;
use base::size::{ByteCount, KIB};
use base::{Kind, Result};

/// Bytes written at once.
const CHUNK: u64 = 256 * KIB;

/// Makes the reserve where it is missing and the disk has room for it twice. A disk that turns out
/// full is no error: the reserve is made later.
pub(crate) fn fill(files: &dyn Files, random: &dyn Random, size: ByteCount) -> Result<()> {
    let path = Path::new(RESERVE)?;
    if size.0 == 0 || files.space()?.free.0 < size.0.saturating_mul(2) {
        return Ok(());
    }
    match files.open(&path) {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == Kind::NotFound => {}
        Err(error) => return Err(error),
    }
    match write(files, &path, random, size) {
        Err(error) if error.kind() == Kind::Full => {
            remove_if_there(files, &path)?;
            Ok(())
        }
        other => other,
    }
}

/// Random bytes, so that no file system stores them as nothing; one chunk over and over, altered a
/// little, is enough for that.
fn write(files: &dyn Files, path: &Path, random: &dyn Random, size: ByteCount) -> Result<()> {
    let mut file = files.create(path)?;
    let mut chunk = vec![0; CHUNK.min(size.0) as usize];
    random.fill(&mut chunk);
    let mut left = size.0;
    while left > 0 {
        let take = left.min(CHUNK) as usize;
        file.append(&chunk[..take])?;
        left -= take as u64;
        for word in chunk.chunks_exact_mut(512) {
            word[0] = word[0].wrapping_add(1);
        }
    }
    file.sync()?;
    files.sync_folder(&Path::root())
}

/// Gives the reserve up. Whether there was one.
pub(crate) fn release(files: &dyn Files) -> Result<bool> {
    remove_if_there(files, &Path::new(RESERVE)?)
}

/// Does something that frees room; where the disk is full, gives the reserve up and tries again.
pub(crate) fn with<T>(files: &dyn Files, mut deed: impl FnMut() -> Result<T>) -> Result<T> {
    match deed() {
        Err(error) if error.kind() == Kind::Full && release(files)? => deed(),
        other => other,
    }
}
