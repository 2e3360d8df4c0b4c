//! Making disks with random sparse content, and comparing an image with what it must hold.

use base::block::{BlockRead, ExtentKind, all_extents, is_zero};
use base::random::{Random, SeededRandom};
use base::size::{ByteOffset, ByteRange, KIB};
use std::path::{Path, PathBuf};

/// Random sparse content: most is zeros, the rest noise, text or single bytes, in pieces from one
/// sector to some hundred KiB.
pub fn content(seed: u64, size: u64) -> Vec<u8> {
    let random = SeededRandom::new(seed);
    let mut bytes = vec![0; size as usize];
    for _ in 0..size / (400 * KIB) + 3 {
        let at = random.below(size / 512) * 512;
        let longest = if random.one_in(3) { 300 * KIB } else { 5 * KIB };
        let length = ((1 + random.below(longest / 512)) * 512).min(size - at);
        let piece = &mut bytes[at as usize..(at + length) as usize];
        match random.below(3) {
            0 => random.fill(piece),
            1 => piece.fill(1 + random.below(255) as u8),
            _ => piece
                .iter_mut()
                .enumerate()
                .for_each(|(i, b)| *b = b"backstay "[i % 9]),
        }
    }
    // The first and last sector are where formats go wrong.
    random.fill(&mut bytes[..512]);
    bytes[size as usize - 512..].fill(0xee);
    bytes
}

/// Writes bytes as a sparse raw file.
pub fn write_raw(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    use base::block::BlockWrite;
    let path = folder.join(name);
    let size = base::size::ByteCount(bytes.len() as u64);
    let disk = disk::raw::create(&path, size).unwrap();
    for (index, page) in bytes.chunks(4096).enumerate() {
        if !is_zero(page) {
            disk.write_at(ByteOffset(index as u64 * 4096), page)
                .unwrap();
        }
    }
    path
}

/// The image holds exactly `expected`, read in one piece, in random pieces, and by many threads;
/// and no extent that it calls zero holds anything.
pub fn assert_holds(image: &dyn BlockRead, expected: &[u8], what: &str) {
    assert_eq!(image.size().0, expected.len() as u64, "{what}: size");
    let mut bytes = vec![0xaa; expected.len()];
    image.read_at(ByteOffset::ZERO, &mut bytes).unwrap();
    let differs = bytes.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!(differs, None, "{what}: first difference of a full read");
    std::thread::scope(|scope| {
        for thread in 0..3 {
            scope.spawn(move || {
                let random = SeededRandom::new(thread);
                for _ in 0..150 {
                    let at = random.below(expected.len() as u64) as usize;
                    let longest = if random.one_in(4) { 300_000 } else { 6_000 };
                    let end = (at + random.below(longest) as usize).min(expected.len());
                    let mut bytes = vec![0xaa; end - at];
                    image.read_at(ByteOffset(at as u64), &mut bytes).unwrap();
                    assert!(bytes == expected[at..end], "{what}: read at {at}..{end}");
                }
            });
        }
    });
    assert!(
        image
            .read_at(ByteOffset(expected.len() as u64 - 1), &mut [0; 2])
            .is_err()
    );
    assert_extents(image, expected, what);
}

fn assert_extents(image: &dyn BlockRead, expected: &[u8], what: &str) {
    let all = ByteRange::new(0, expected.len() as u64);
    for extent in all_extents(image, all).unwrap() {
        let place = extent.range.offset.0 as usize..extent.range.end().0 as usize;
        if extent.kind == ExtentKind::Zero {
            assert!(is_zero(&expected[place]), "{what}: {extent:?} holds data");
        }
    }
    // Asked from the middle it says the same.
    let random = SeededRandom::new(5);
    for _ in 0..50 {
        let at = random.below(expected.len() as u64);
        let rest = ByteRange::new(at, expected.len() as u64 - at);
        let first = image.extents(rest).unwrap()[0];
        assert_eq!(first.range.offset.0, at);
        let place = at as usize..first.range.end().0 as usize;
        assert!(
            first.kind == ExtentKind::Data || is_zero(&expected[place]),
            "{what}: at {at}"
        );
    }
}

/// Everything QEMU knows to be zeros we know too: images stay sparse on their way through us.
pub fn assert_as_sparse_as(image: &dyn BlockRead, map: &[(u64, u64, bool)], what: &str) {
    let size = image.size().0;
    for (start, length, zero) in map {
        let length = (*length).min(size.saturating_sub(*start));
        if !zero || length == 0 {
            continue;
        }
        for extent in all_extents(image, ByteRange::new(*start, length)).unwrap() {
            assert_eq!(
                extent.kind,
                ExtentKind::Zero,
                "{what}: {extent:?} is zero for QEMU"
            );
        }
    }
}
