//! Nodes read back, and broken ones are refused.

use super::*;
use crate::cut::Segment;
use base::random::{Random, SeededRandom};
use proptest::prelude::*;
use std::collections::HashMap;

/// Nodes in memory, named by a counter.
#[derive(Default)]
struct Shelf(HashMap<BlockId, Arc<Node>>);

impl Shelf {
    fn put(&mut self, bytes: &[u8]) -> BlockId {
        let id = BlockId::from_bytes(*blake3::hash(bytes).as_bytes());
        self.0.insert(id, Arc::new(Node::parse(bytes).unwrap()));
        id
    }
}

impl Nodes for Shelf {
    fn node(&self, id: &BlockId) -> Result<Arc<Node>> {
        self.0
            .get(id)
            .cloned()
            .ok_or_else(|| crate::fields::malformed("a shelf", "not there"))
    }
}

fn leaf(number: u8, length: u32) -> Vec<u8> {
    leaf_bytes(&[
        Segment {
            length: 4096,
            block: Some(BlockId::from_bytes([number; 32])),
        },
        Segment {
            length: length - 4096,
            block: None,
        },
    ])
}

#[test]
fn shapes_follow_from_sizes() {
    let levels = |windows| levels_for(windows);
    assert_eq!(
        [levels(0), levels(1), levels(2), levels(128), levels(129)],
        [0, 0, 1, 1, 2]
    );
    assert_eq!(levels(1 << 40), 6);
}

#[test]
fn nodes_read_back_and_every_cut_is_refused() {
    let id = BlockId::from_bytes([5; 32]);
    let root = RootRecord {
        levels: 1,
        window: 65536,
        size: 100_000,
        top: Some(id),
    };
    let inner = inner_bytes(1, &[(0, id), (127, id)]);
    for bytes in [leaf(1, 65536), inner, root.bytes()] {
        Node::parse(&bytes).unwrap();
        for length in 0..bytes.len() {
            assert!(Node::parse(&bytes[..length]).is_err());
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(Node::parse(&longer).is_err());
    }
    for wrong in [
        RootRecord { levels: 2, ..root },
        RootRecord {
            window: 65535,
            ..root
        },
        RootRecord {
            size: u64::MAX,
            ..root
        },
        RootRecord {
            size: 0,
            levels: 0,
            ..root
        },
    ] {
        assert!(Node::parse(&wrong.bytes()).is_err(), "{wrong:?}");
    }
}

#[test]
fn walks_and_diffs_visit_what_is_there() {
    let mut shelf = Shelf::default();
    let one = shelf.put(&leaf(1, 65536));
    let two = shelf.put(&leaf(2, 65536));
    let a = shelf.put(&inner_bytes(1, &[(0, one), (5, one)]));
    let b = shelf.put(&inner_bytes(1, &[(0, one), (5, two), (6, one)]));
    let size = 10 * 65536;
    let a = RootRecord {
        levels: 1,
        window: 65536,
        size,
        top: Some(a),
    };
    let b = RootRecord { top: Some(b), ..a };
    assert_eq!(leaf_of(&shelf, &a, 5).unwrap().len(), 2);
    assert!(leaf_of(&shelf, &a, 6).unwrap().is_empty());
    let found = diff(&shelf, &a, &b).unwrap();
    let expected = [(5 * 65536, 4096), (6 * 65536, 4096)];
    let expected: Vec<_> = expected
        .iter()
        .map(|(at, length)| base::size::ByteRange::new(*at, *length))
        .collect();
    assert_eq!(found, expected);
    assert_eq!(diff(&shelf, &b, &a).unwrap(), expected);
    let longer = RootRecord {
        size: size + 100,
        ..a
    };
    let tail = diff(&shelf, &a, &longer).unwrap();
    assert_eq!(tail, [base::size::ByteRange::new(size, 100)]);
}

#[test]
fn a_node_in_the_wrong_place_is_refused() {
    let mut shelf = Shelf::default();
    let short = shelf.put(&leaf(1, 8192));
    let root = RootRecord {
        levels: 0,
        window: 65536,
        size: 65536,
        top: Some(short),
    };
    assert!(leaf_of(&shelf, &root, 0).is_err());
    let level_two = shelf.put(&inner_bytes(2, &[(0, short)]));
    let root = RootRecord {
        levels: 1,
        window: 65536,
        size: 655_360,
        top: Some(level_two),
    };
    assert!(leaf_of(&shelf, &root, 0).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_fall(seed in any::<u64>(), length in 0usize..300, kind in 0u8..4) {
        let mut bytes = vec![0; length];
        SeededRandom::new(seed).fill(&mut bytes);
        if length > 2 {
            bytes[0] = 1;
            bytes[1] = kind;
        }
        if let Ok(node) = Node::parse(&bytes) {
            let again = match &node {
                Node::Leaf(segments) => leaf_bytes(segments),
                Node::Inner { level, children } => {
                    let mut again = inner_bytes(*level, children);
                    again[3] = bytes[3];
                    again
                }
                Node::Root(record) => record.bytes(),
            };
            prop_assert_eq!(again, bytes);
        }
    }
}
