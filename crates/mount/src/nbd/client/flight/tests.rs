use super::*;
use proptest::prelude::*;

proptest! {
    /// Pieces agree with a plain table of bytes, whatever comes.
    #[test]
    fn pieces_find_every_overlap_and_gap(
        list in proptest::collection::vec((0u64..40, 1u64..12), 1..30),
    ) {
        let mut pieces = Pieces::default();
        let mut seen = [false; 64];
        for (from, length) in list {
            let range = from as usize..(from + length) as usize;
            let clash = range.end > 48 || seen[range.clone()].contains(&true);
            let placed = pieces.place(1000, 1000 + from, length, 48);
            prop_assert_eq!(placed.is_err(), clash);
            if !clash {
                prop_assert_eq!(placed.unwrap(), range.clone());
                seen[range].fill(true);
            }
        }
        prop_assert_eq!(pieces.check_complete(48).is_ok(), !seen[..48].contains(&false));
    }
}

#[test]
fn bytes_outside_of_the_request_are_refused() {
    let mut pieces = Pieces::default();
    assert!(pieces.place(100, 99, 1, 10).is_err());
    assert!(pieces.place(100, 110, 1, 10).is_err());
    assert!(pieces.place(100, 105, 6, 10).is_err());
    assert!(pieces.place(100, 101, u64::MAX, 10).is_err());
    assert!(pieces.place(100, 100, 10, 10).is_ok());
}

#[test]
fn a_reply_in_too_many_pieces_is_refused() {
    let mut pieces = Pieces::default();
    let refused = (0..20_000u64).find(|i| pieces.place(0, i * 2, 1, 1 << 20).is_err());
    assert_eq!(refused, Some(PIECES_MAX as u64));
}
