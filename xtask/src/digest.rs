//! A digest of what a disk holds, computed without Backstay.
//!
//! Knows: that a disk image of any format is first turned into a raw one by `qemu-img`, and how a
//! sparse file is hashed without reading its holes.
//! Refuses to know: Backstay's own digests. This one is plain BLAKE3 over all bytes of the disk, as
//! `b3sum` prints it.

use crate::command::Run;
use base::cancel::Cancel;
use base::digest::Digest;
use base::{Error, Result};
use rustix::fs::{SeekFrom, seek};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

const PIECE: usize = 1 << 20;
const CONVERT_DEADLINE: Duration = Duration::from_secs(60 * 60);

/// The digest of the bytes of a raw image, holes read as zeros.
pub fn of_raw(path: &Path, cancel: &Cancel) -> Result<Digest> {
    let failed = |error| Error::io(format!("reading {}", path.display()), error);
    let mut file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; PIECE];
    let zeros = vec![0; PIECE];
    let mut at = 0;
    while at < size {
        cancel.check()?;
        let data = data_from(&file, at, size).map_err(failed)?;
        let mut hole = data - at;
        while hole > 0 {
            cancel.check()?;
            let length = usize::try_from(hole).map_or(PIECE, |hole| hole.min(PIECE));
            hasher.update(&zeros[..length]);
            hole -= length as u64;
        }
        if data == size {
            break;
        }
        // Finding the data has put the file's own position there.
        let left = usize::try_from(size - data).map_or(PIECE, |left| left.min(PIECE));
        file.read_exact(&mut piece[..left]).map_err(failed)?;
        hasher.update(&piece[..left]);
        at = data + left as u64;
    }
    Ok(Digest(*hasher.finalize().as_bytes()))
}

/// Where data begins at or after `at`; the end of the file where only a hole is left.
fn data_from(file: &File, at: u64, size: u64) -> std::io::Result<u64> {
    match seek(file, SeekFrom::Data(at)) {
        Ok(data) => Ok(data.min(size)),
        Err(rustix::io::Errno::NXIO) => Ok(size),
        // A file system without holes: everything is data.
        Err(rustix::io::Errno::INVAL) => {
            seek(file, SeekFrom::Start(at)).map_err(std::io::Error::from)
        }
        Err(error) => Err(error.into()),
    }
}

/// The digest of the disk inside an image of any format that `qemu-img` reads. `scratch` holds a
/// raw copy meanwhile.
pub fn of_image(image: &Path, scratch: &Path, cancel: &Cancel) -> Result<Digest> {
    let raw = to_raw(image, scratch, cancel)?;
    let digest = of_raw(&raw, cancel);
    let _ = std::fs::remove_file(&raw);
    digest
}

/// A raw copy of the disk inside an image, in the folder `scratch`.
pub fn to_raw(image: &Path, scratch: &Path, cancel: &Cancel) -> Result<PathBuf> {
    let name = image
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let raw = scratch.join(format!("{name}.content"));
    Run::new("qemu-img")
        .args(["convert", "-U", "-O", "raw"])
        .args([image, &raw])
        .deadline(CONVERT_DEADLINE)
        .capture(cancel)?;
    Ok(raw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};

    #[test]
    fn holes_count_as_zeros() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        let mut file = File::create(&path).unwrap();
        file.seek(std::io::SeekFrom::Start(5 << 20)).unwrap();
        file.write_all(b"content").unwrap();
        file.set_len((9 << 20) + 17).unwrap();
        drop(file);
        let whole = std::fs::read(&path).unwrap();
        let expected = Digest(*blake3::hash(&whole).as_bytes());
        assert_eq!(of_raw(&path, &Cancel::new()).unwrap(), expected);
        std::fs::write(&path, b"").unwrap();
        let empty = Digest(*blake3::hash(b"").as_bytes());
        assert_eq!(of_raw(&path, &Cancel::new()).unwrap(), empty);
    }
}
