//! Every seed in `sim/seeds` is right.

use sim::catalogue::Run;

#[test]
fn every_kept_seed_is_right() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/seeds");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let mut count = 0;
    for path in paths {
        if path
            .extension()
            .is_some_and(|extension| extension == "seed")
        {
            let run = Run::parse(&std::fs::read_to_string(&path).unwrap()).unwrap();
            let tally = run.run().unwrap();
            super::right(&path.display().to_string(), &tally, 1);
            count += 1;
        }
    }
    assert!(count >= 2, "{count} seeds only");
}
