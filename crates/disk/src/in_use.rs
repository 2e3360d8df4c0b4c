//! Whether another program writes an image while we read it.
//!
//! Knows: the locks by which QEMU tells other programs what it does with an image (one byte a
//! permission, from byte 100 of the file on), and where Linux lists all locks.
//! Refuses to know: programs that lock nothing; silence proves nothing.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// QEMU holds a lock on this byte while it may write the image.
const WRITE_BYTE: u64 = 101;
/// The longest list of locks that is read.
const LIST_MAX: u64 = 4 << 20;

/// Whether a program that says so has the file at `path` open for writing.
pub(crate) fn is_written_by_others(path: &Path) -> bool {
    use std::io::Read;
    let Ok(metadata) = std::fs::metadata(path) else {
        return false;
    };
    let Ok(file) = std::fs::File::open("/proc/locks") else {
        return false;
    };
    let mut list = String::new();
    if file.take(LIST_MAX).read_to_string(&mut list).is_err() {
        return false;
    }
    let device = metadata.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    holds_write_lock(
        &list,
        &format!("{major:02x}:{minor:02x}:{}", metadata.ino()),
    )
}

/// Looks for QEMU's lock in a list such as `/proc/locks`:
/// `10: OFDLCK ADVISORY  READ -1 fe:00:10493958 100 103`.
fn holds_write_lock(list: &str, file: &str) -> bool {
    list.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "OFDLCK", _, _, _, place, start, end] = words[..] else {
            return false;
        };
        let start = start.parse::<u64>().unwrap_or(u64::MAX);
        let end = end.parse::<u64>().unwrap_or(u64::MAX);
        place == file && (start..=end).contains(&WRITE_BYTE)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_qemus_write_lock_on_this_file_counts() {
        let file = "fe:00:77";
        assert!(holds_write_lock(
            "1: OFDLCK ADVISORY  READ -1 fe:00:77 100 103\n",
            file
        ));
        assert!(holds_write_lock(
            "1: OFDLCK ADVISORY  READ -1 fe:00:77 101 101\n",
            file
        ));
        for other in [
            "1: OFDLCK ADVISORY  READ -1 fe:00:78 100 103",
            "1: OFDLCK ADVISORY  READ -1 fe:00:77 100 100",
            "1: OFDLCK ADVISORY  READ -1 fe:00:77 201 203",
            "1: POSIX  ADVISORY  WRITE 26 fe:00:77 0 EOF",
            "1: -> OFDLCK ADVISORY  READ -1 fe:00:77 100 103",
            "",
        ] {
            assert!(!holds_write_lock(other, file), "{other}");
        }
    }
}
