//! The simulated disk is a folder like the real one, until it crashes.

use super::*;
use base::Kind;
use base::files::{Files, Path, read_all};
use base::os::OsFiles;
use base::random::SeededRandom;

fn path(text: &str) -> Path {
    Path::new(text).unwrap()
}

fn write(files: &dyn Files, at: &str, bytes: &[u8], sync: bool) {
    let mut file = files.create(&path(at)).unwrap();
    file.append(bytes).unwrap();
    if sync {
        file.sync().unwrap();
    }
}

fn read(disk: &SimDisk, at: &str) -> Option<Vec<u8>> {
    read_all(&disk.process(), &path(at), 1 << 20).ok()
}

/// One random call, and what it answered in a form that can be compared.
fn random_call(files: &dyn Files, random: &SeededRandom) -> String {
    const PATHS: [&str; 8] = ["a", "b", "a/x", "a/y", "b/x", "a/c", "a/c/x", "a/c/d"];
    let pick = || path(PATHS[random.below(PATHS.len() as u64) as usize]);
    let (one, two) = (pick(), pick());
    let content = random.next_u64().to_le_bytes();
    let say = |result: base::Result<()>| result.err().map(|error| error.kind());
    match random.below(10) {
        0 | 1 => say(files
            .create(&one)
            .and_then(|mut file| file.append(&content))),
        2 => say(files.publish(&one, &two)),
        3 => say(files.replace(&one, &two)),
        4 => say(files.rename_folder(&one, &two)),
        5 => say(files.remove(&one)),
        6 | 7 => say(files.make_folder(&one)),
        8 => say(files.remove_folder(&one)),
        _ => {
            let listed = files.list(&one).map_err(|error| error.kind());
            let bytes = read_all(files, &one, 100).ok();
            return format!("{one} {listed:?} {bytes:?}");
        }
    }
    .map_or_else(|| "done".to_owned(), |kind| format!("{kind:?}"))
}

#[test]
fn answers_as_the_real_folder_does() {
    let mut done = 0;
    for seed in 0..300 {
        let temp = tempfile::tempdir().unwrap();
        let real = OsFiles::open(temp.path()).unwrap();
        let disk = SimDisk::new();
        let simulated = disk.process();
        let (one, two) = (SeededRandom::new(seed), SeededRandom::new(seed));
        for step in 0..60 {
            let expected = random_call(&real, &one);
            let found = random_call(&simulated, &two);
            assert_eq!(found, expected, "seed {seed} step {step}");
            done += u32::from(found == "done");
        }
    }
    assert!(done > 2000, "most calls must get somewhere: {done}");
}

#[test]
fn bytes_and_names_need_their_own_sync() {
    let disk = SimDisk::new();
    let files = disk.process();
    write(&files, "synced", b"1", true);
    write(&files, "named", b"2", false);
    files.sync_folder(&Path::root()).unwrap();
    write(&files, "unnamed", b"3", true);
    let lost = disk.crash(Outcome::Nothing);
    assert_eq!(lost.files(), ["named", "synced"]);
    assert_eq!(read(&lost, "synced").unwrap(), b"1");
    assert_eq!(read(&lost, "named").unwrap(), b"");
    let kept = disk.crash(Outcome::Everything);
    assert_eq!(read(&kept, "named").unwrap(), b"2");
    assert_eq!(read(&kept, "unnamed").unwrap(), b"3");
    assert_eq!(
        read(&disk.crash(Outcome::NamesOnly), "unnamed").unwrap(),
        b"3"
    );
    assert_eq!(disk.crash(Outcome::AllBut(0)).files(), ["named", "synced"]);
}

#[test]
fn a_rename_is_whole_or_not_at_all() {
    let disk = SimDisk::new();
    let files = disk.process();
    for folder in ["w", "p"] {
        files.make_folder(&path(folder)).unwrap();
    }
    for name in ["w/a", "w/b"] {
        write(&files, name, b"x", true);
    }
    files.sync_folder(&path("w")).unwrap();
    files.sync_folder(&Path::root()).unwrap();
    files.publish(&path("w/a"), &path("p/a")).unwrap();
    files.rename_folder(&path("w"), &path("v")).unwrap();
    files.rename_folder(&path("v"), &path("u")).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..300 {
        let found = disk.crash(Outcome::Random(seed)).files();
        assert_eq!(
            found.iter().filter(|name| name.ends_with("/a")).count(),
            1,
            "{found:?}"
        );
        assert_eq!(
            found.iter().filter(|name| name.ends_with("/b")).count(),
            1,
            "{found:?}"
        );
        seen.insert(found);
    }
    assert_eq!(
        seen.len(),
        6,
        "two places of a, three of the folder: {seen:?}"
    );
}

#[test]
fn syncing_one_folder_keeps_what_its_names_stand_on_and_no_more() {
    let disk = SimDisk::new();
    let files = disk.process();
    for folder in ["w", "p"] {
        files.make_folder(&path(folder)).unwrap();
    }
    files.sync_folder(&Path::root()).unwrap();
    write(&files, "w/old", b"1", true);
    files.publish(&path("w/old"), &path("p/one")).unwrap();
    write(&files, "w/other", b"2", true);
    write(&files, "w/new", b"3", true);
    files.replace(&path("w/new"), &path("p/one")).unwrap();
    files.sync_folder(&path("p")).unwrap();
    let lost = disk.crash(Outcome::Nothing);
    assert_eq!(lost.files(), ["p/one"]);
    assert_eq!(read(&lost, "p/one").unwrap(), b"3");
}

#[test]
fn locks_vanish_with_their_process_and_the_dead_do_nothing_more() {
    let disk = SimDisk::new();
    let (one, two) = (disk.process(), disk.process());
    let held = one.try_lock(&path("lock")).unwrap();
    assert!(held.is_some());
    assert!(two.try_lock(&path("lock")).unwrap().is_none());
    let mut file = one.create(&path("f")).unwrap();
    disk.kill(one.process());
    assert!(two.try_lock(&path("lock")).unwrap().is_some());
    let later = two.try_lock(&path("lock")).unwrap();
    assert!(
        later.is_some(),
        "the lock taken in between was dropped at once"
    );
    drop(held);
    assert!(
        two.try_lock(&path("lock")).unwrap().is_none(),
        "a dead lock frees nothing"
    );
    assert_eq!(file.append(b"x").unwrap_err().code(), "sim.process.killed");
    assert!(one.list(&Path::root()).is_err());
}

#[test]
fn faults_strike_their_call() {
    let disk = SimDisk::new();
    let files = disk.process();
    let only = |call| Injection::at(0, Fault::Io).of(&[call]);
    disk.inject(only(Call::Sync));
    let mut file = files.create(&path("f")).unwrap();
    file.append(&[1; 600]).unwrap();
    assert_eq!(file.sync().unwrap_err().kind(), Kind::Io);
    file.sync().unwrap();
    files.sync_folder(&Path::root()).unwrap();
    assert_eq!(read(&disk.crash(Outcome::NamesOnly), "f").unwrap(), b"");
    disk.inject(Injection::at(1, Fault::Full).of(&[Call::Append]).on("g"));
    let mut file = files.create(&path("g")).unwrap();
    file.append(b"ab").unwrap();
    assert_eq!(file.append(b"cd").unwrap_err().kind(), Kind::Full);
    assert_eq!(read(&disk, "g").unwrap(), b"abc");
    disk.inject(Injection::at(0, Fault::IoAfter).of(&[Call::Remove]));
    assert_eq!(files.remove(&path("g")).unwrap_err().kind(), Kind::Io);
    assert!(read(&disk, "g").is_none());
    disk.inject(Injection::at(0, Fault::Phantom).of(&[Call::Append]));
    write(&files, "h", b"phantom", true);
    files.sync_folder(&Path::root()).unwrap();
    assert_eq!(read(&disk, "h").unwrap(), b"phantom");
    assert_ne!(
        read(&disk.crash(Outcome::Nothing), "h").unwrap(),
        b"phantom"
    );
    assert_eq!(disk.faults_struck(), 4);
}

#[test]
fn a_full_disk_takes_what_fits() {
    let disk = SimDisk::new();
    let files = disk.process();
    disk.set_quota(Some(512 + 1024));
    let mut file = files.create(&path("f")).unwrap();
    assert_eq!(file.append(&[1; 4096]).unwrap_err().kind(), Kind::Full);
    assert_eq!(read(&disk, "f").unwrap().len(), 1024);
    assert_eq!(files.space().unwrap().free, base::size::ByteCount(0));
    assert_eq!(
        files.make_folder(&path("d")).unwrap_err().kind(),
        Kind::Full
    );
    files.remove(&path("f")).unwrap();
    files.make_folder(&path("d")).unwrap();
}

#[test]
fn moments_are_kept_before_each_change_and_the_log_tells_runs_apart() {
    let run = |last: &[u8]| {
        let disk = SimDisk::new();
        let files = disk.process();
        disk.record();
        write(&files, "f", last, true);
        files.list(&Path::root()).unwrap();
        files.sync_folder(&Path::root()).unwrap();
        disk
    };
    let disk = run(b"same");
    let moments = disk.moments();
    let lengths: Vec<_> = moments
        .iter()
        .map(|moment| read(&moment.crash(Outcome::Nothing), "f").map(|bytes| bytes.len()))
        .collect();
    assert_eq!(lengths, [None, None, None, None, Some(4)]);
    assert_eq!(run(b"same").log_digest(), run(b"same").log_digest());
    assert_ne!(run(b"same").log_digest(), run(b"diff").log_digest());
}
