//! Golden cuts, and the law that a recut is a full cut.

use super::*;
use base::random::SeededRandom;
use base::size::ByteRange;
use proptest::prelude::*;
use std::collections::HashMap;

fn parameters() -> CutParameters {
    CutParameters {
        window: 256 << 10,
        min: 8 << 10,
        avg: 16 << 10,
        max: 32 << 10,
        zero_run: 4,
    }
}

fn cutter() -> Cutter {
    let key = std::array::from_fn(|i| (i * 37 + 11) as u8);
    Cutter::new(parameters(), &key, [7; 32]).unwrap()
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    base::random::Random::fill(&SeededRandom::new(seed), &mut bytes);
    bytes
}

#[test]
fn the_page_hash_is_frozen() {
    let key = PageKey::from_bytes(&std::array::from_fn(|i| i as u8));
    let counting: [u8; PAGE] = std::array::from_fn(|i| (i % 251) as u8);
    assert_eq!(key.hash(&[0; PAGE]), GOLDEN_ZERO);
    assert_eq!(key.hash(&counting), GOLDEN_COUNTING);
    assert_eq!(key.hash_padded(&counting[..100]), {
        let mut padded = [0; PAGE];
        padded[..100].copy_from_slice(&counting[..100]);
        key.hash(&padded)
    });
}
const GOLDEN_ZERO: u64 = 15_195_216_598_887_176_262;
const GOLDEN_COUNTING: u64 = 12_367_165_316_317_469_611;

#[test]
fn the_cuts_are_frozen() {
    let mut window = noise(1, 256 << 10);
    window[40 << 10..60 << 10].fill(0); // five pages: a run
    window[100 << 10..112 << 10].fill(0); // three pages: data
    let ends: Vec<(usize, bool)> = cutter()
        .cut(&window)
        .iter()
        .map(|piece| (piece.range.end >> 10, piece.zero))
        .collect();
    assert_eq!(ends, GOLDEN_ENDS);
}
const GOLDEN_ENDS: &[(usize, bool)] = &[
    (12, false),
    (40, false),
    (60, true),
    (76, false),
    (84, false),
    (92, false),
    (120, false),
    (132, false),
    (164, false),
    (172, false),
    (192, false),
    (208, false),
    (220, false),
    (252, false),
    (256, false),
];

#[test]
fn short_and_zero_windows() {
    let cutter = cutter();
    assert!(cutter.cut(&[]).is_empty());
    assert_eq!(
        cutter.cut(&[0; 100]),
        [Piece {
            range: 0..100,
            zero: true
        }]
    );
    assert_eq!(
        cutter.cut(&[0; 9000]),
        [Piece {
            range: 0..9000,
            zero: true
        }]
    );
    assert_eq!(
        cutter.cut(&[1; 100]),
        [Piece {
            range: 0..100,
            zero: false
        }]
    );
    let mut tail = vec![1; 4096];
    tail.extend([0; 4096 * 3]);
    assert_eq!(
        cutter.cut(&tail),
        [Piece {
            range: 0..16384,
            zero: false
        }]
    );
    tail.extend([0; 1]);
    assert_eq!(
        cutter.cut(&tail),
        [
            Piece {
                range: 0..4096,
                zero: false
            },
            Piece {
                range: 4096..16385,
                zero: true
            }
        ]
    );
}

#[test]
fn blocks_match_wherever_they_lie() {
    let cutter = cutter();
    let file = noise(5, 150 << 10);
    let ids = |shift: usize| -> std::collections::HashSet<BlockId> {
        let mut window = noise(shift as u64 + 100, 256 << 10);
        window[shift..shift + file.len()].copy_from_slice(&file);
        let pieces = cutter.cut(&window);
        pieces
            .iter()
            .map(|piece| cutter.block_id(&window[piece.range.clone()]))
            .collect()
    };
    assert!(ids(8 << 10).intersection(&ids(64 << 10)).count() >= 4);
}

#[test]
fn parameters_are_checked() {
    for bad in [
        CutParameters {
            window: 3 << 20,
            ..parameters()
        },
        CutParameters {
            min: 5000,
            ..parameters()
        },
        CutParameters {
            min: 64 << 10,
            ..parameters()
        },
        CutParameters {
            avg: 24 << 10,
            ..parameters()
        },
        CutParameters {
            max: 2 << 20,
            window: 4 << 20,
            ..parameters()
        },
        CutParameters {
            zero_run: 0,
            ..parameters()
        },
    ] {
        assert_eq!(bad.check().unwrap_err().code(), "store.cut.parameters");
    }
}

/// A window of runs: zeros, noise, and pages repeated.
fn window(length: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec((0u8..4, 1usize..12, any::<u64>()), 1..40).prop_map(move |runs| {
        let mut bytes = Vec::new();
        for (kind, pages, seed) in runs {
            match kind {
                0 => bytes.resize(bytes.len() + pages * PAGE, 0),
                1 => bytes.extend(noise(seed % 5, PAGE).repeat(pages)),
                _ => bytes.extend(noise(seed, pages * PAGE)),
            }
        }
        bytes.resize(length, 0);
        bytes
    })
}

fn lengths() -> impl Strategy<Value = usize> {
    prop_oneof![
        Just(256usize << 10),
        1usize..(256 << 10),
        (1usize..64).prop_map(|n| n * PAGE)
    ]
}

fn full_cut(cutter: &Cutter, bytes: &[u8], blocks: &mut HashMap<BlockId, Vec<u8>>) -> Vec<Segment> {
    let mut segments = Vec::new();
    for piece in cutter.cut(bytes) {
        let length = piece.range.len() as u32;
        let block = (!piece.zero).then(|| {
            let id = cutter.block_id(&bytes[piece.range.clone()]);
            blocks.insert(id, bytes[piece.range.clone()].to_vec());
            id
        });
        segments.push(Segment { length, block });
    }
    segments
}

/// Recuts and checks that only dirty pages were asked of the source.
fn recut_as_segments(
    cutter: &Cutter,
    old: &[Segment],
    new: &[u8],
    dirty: &[ByteRange],
    blocks: &HashMap<BlockId, Vec<u8>>,
    allowed: &dyn Fn(usize) -> bool,
) -> Vec<Segment> {
    let pieces = cutter
        .recut(
            old,
            new.len() as u32,
            dirty,
            &mut |range, buffer| {
                let start = range.offset.0 as usize;
                let end = start + range.length.0 as usize;
                for page in start / PAGE..end.div_ceil(PAGE) {
                    assert!(allowed(page), "clean page {page} read from the source");
                }
                buffer.copy_from_slice(&new[start..end]);
                Ok(())
            },
            &mut |id, buffer| {
                buffer.copy_from_slice(&blocks[id]);
                Ok(())
            },
        )
        .unwrap();
    pieces
        .into_iter()
        .map(|piece| match piece {
            RecutPiece::Kept(segment) => segment,
            RecutPiece::Zero(length) => Segment {
                length,
                block: None,
            },
            RecutPiece::New(bytes) => Segment {
                length: bytes.len() as u32,
                block: Some(cutter.block_id(&bytes)),
            },
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn pieces_cover_the_window_and_keep_the_limits(
        bytes in lengths().prop_flat_map(window)
    ) {
        let cutter = cutter();
        let pieces = cutter.cut(&bytes);
        let mut at = 0;
        for piece in &pieces {
            prop_assert_eq!(piece.range.start, at);
            at = piece.range.end;
            if piece.zero {
                prop_assert!(is_zero_slice(&bytes[piece.range.clone()]));
            } else {
                prop_assert!(piece.range.len() <= parameters().max as usize);
            }
        }
        prop_assert_eq!(at, bytes.len());
        prop_assert!(pieces.windows(2).all(|two| !(two[0].zero && two[1].zero)));
    }

    #[test]
    fn a_recut_is_a_full_cut(
        old in lengths().prop_flat_map(window),
        resize in prop_oneof![3 => Just(None), 1 => lengths().prop_map(Some)],
        edits in prop::collection::vec((any::<u32>(), 1usize..30_000, 0u8..3, any::<u64>()), 0..5),
    ) {
        let cutter = cutter();
        let mut blocks = HashMap::new();
        let segments = full_cut(&cutter, &old, &mut blocks);
        let mut new = old.clone();
        let length = resize.unwrap_or(old.len());
        if length > old.len() {
            new.extend(noise(9, length - old.len()));
        }
        new.truncate(length);
        let mut dirty = Vec::new();
        for (place, size, kind, seed) in edits {
            let start = place as usize % length;
            let end = (start + size).min(length);
            match kind {
                0 => new[start..end].fill(0),
                1 => new[start..end].copy_from_slice(&noise(seed, end - start)),
                _ => {} // marked, but not changed
            }
            dirty.push(ByteRange::new(start as u64, (end - start) as u64));
        }
        let expected = full_cut(&cutter, &new, &mut HashMap::new());
        let allowed = |page: usize| {
            (page + 1) * PAGE > old.len()
                || dirty.iter().any(|range| {
                    let first = range.offset.0 as usize / PAGE;
                    (first..(range.end().0 as usize).div_ceil(PAGE)).contains(&page)
                })
        };
        let got = recut_as_segments(&cutter, &segments, &new, &dirty, &blocks, &allowed);
        prop_assert_eq!(got, expected);
    }
}

fn is_zero_slice(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}
