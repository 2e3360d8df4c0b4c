use super::*;
use proptest::prelude::*;

fn runs(list: &[(u64, u64)]) -> Vec<StatusRun> {
    let mut at = 0;
    list.iter()
        .map(|(length, flags)| {
            let run = StatusRun {
                range: ByteRange::new(at, *length),
                flags: *flags,
            };
            at += length;
            run
        })
        .collect()
}

proptest! {
    /// The overlay agrees with a table of single bytes.
    #[test]
    fn every_byte_is_told_rightly(
        dirty in proptest::collection::vec((1u64..9, 0u64..2), 1..20),
        zeros in proptest::collection::vec((1u64..9, 0u64..4), 1..20),
    ) {
        let (dirty, zeros) = (runs(&dirty), runs(&zeros));
        let mut found = VecDeque::new();
        let end = overlay(&dirty, Some(&zeros), ByteOffset(0), |extent| push(&mut found, extent));
        let last = |runs: &[StatusRun]| runs.last().unwrap().range.end();
        prop_assert_eq!(end, last(&dirty).min(last(&zeros)));
        let flags = |runs: &[StatusRun], at: u64| {
            let byte = ByteRange::new(at, 1);
            runs.iter().find(|run| run.range.intersection(&byte).is_some()).unwrap().flags
        };
        for at in 0..end.0 {
            let byte = ByteRange::new(at, 1);
            let kind = found
                .iter()
                .find(|extent| extent.range.intersection(&byte).is_some())
                .map(|extent| extent.kind);
            let expected = (flags(&dirty, at) & 1 != 0).then(|| {
                if flags(&zeros, at) & 2 != 0 { ExtentKind::Zero } else { ExtentKind::Data }
            });
            prop_assert_eq!(kind, expected);
        }
    }
}
