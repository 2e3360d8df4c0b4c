//! The real folder keeps the promises of the door.

use super::*;
use crate::files::read_all;

fn folder() -> (tempfile::TempDir, OsFiles) {
    let temp = tempfile::tempdir().unwrap();
    let files = OsFiles::open(temp.path()).unwrap();
    (temp, files)
}

fn path(text: &str) -> Path {
    Path::new(text).unwrap()
}

fn write(files: &dyn Files, at: &str, bytes: &[u8]) {
    let mut file = files.create(&path(at)).unwrap();
    file.append(bytes).unwrap();
    file.sync().unwrap();
}

#[test]
fn publishes_once_and_reads_back() {
    let (_temp, files) = folder();
    files.make_folder(&path("a")).unwrap();
    files.make_folder(&path("a")).unwrap();
    write(&files, "a/one", b"first");
    write(&files, "a/two", b"second");
    files.publish(&path("a/one"), &path("done")).unwrap();
    let refused = files.publish(&path("a/two"), &path("done")).unwrap_err();
    assert_eq!(refused.kind(), Kind::Exists);
    assert_eq!(read_all(&files, &path("done"), 100).unwrap(), b"first");
    assert_eq!(
        read_all(&files, &path("done"), 3).unwrap_err().kind(),
        Kind::Limit
    );
    files.replace(&path("a/two"), &path("done")).unwrap();
    assert_eq!(read_all(&files, &path("done"), 100).unwrap(), b"second");
    files.sync_folder(&Path::root()).unwrap();
    assert_eq!(
        files.create(&path("done")).err().unwrap().kind(),
        Kind::Exists
    );
    assert_eq!(
        files.open(&path("gone")).err().unwrap().kind(),
        Kind::NotFound
    );
    assert_eq!(
        files.list(&path("gone")).err().unwrap().kind(),
        Kind::NotFound
    );
}

#[test]
fn a_moved_folder_takes_its_files_away() {
    let (_temp, files) = folder();
    files.make_folder(&path("writers")).unwrap();
    files.make_folder(&path("writers/w")).unwrap();
    write(&files, "writers/w/point", b"p");
    files
        .rename_folder(&path("writers/w"), &path("fenced"))
        .unwrap();
    let late = files
        .publish(&path("writers/w/point"), &path("point"))
        .unwrap_err();
    assert_eq!(late.kind(), Kind::NotFound);
    let again = files
        .rename_folder(&path("writers/w"), &path("other"))
        .unwrap_err();
    assert_eq!(again.kind(), Kind::NotFound);
    let names: Vec<_> = files
        .list(&Path::root())
        .unwrap()
        .into_iter()
        .map(|e| e.name)
        .collect();
    assert_eq!(names, ["fenced", "writers"]);
}

#[test]
fn a_lock_is_held_once_and_freed_by_its_holder() {
    let (_temp, files) = folder();
    let held = files.try_lock(&path("lock")).unwrap();
    assert!(held.is_some());
    assert!(files.try_lock(&path("lock")).unwrap().is_none());
    drop(held);
    assert!(files.try_lock(&path("lock")).unwrap().is_some());
}

#[test]
fn links_planted_in_the_folder_are_not_followed() {
    let (temp, files) = folder();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "s").unwrap();
    std::os::unix::fs::symlink(outside.path(), temp.path().join("link")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("secret"), temp.path().join("file")).unwrap();
    for bad in ["link/secret", "file"] {
        assert_eq!(
            files.open(&path(bad)).err().unwrap().code(),
            "base.files.link"
        );
    }
    assert_eq!(
        files.create(&path("link/new")).err().unwrap().code(),
        "base.files.link"
    );
    assert!(files.remove(&path("link/secret")).is_err());
    let old = files.open_at_old(
        "opening",
        &path("link/secret"),
        OFlags::RDONLY,
        Mode::empty(),
    );
    assert!(old.is_err());
    assert!(files.list(&Path::root()).unwrap().is_empty());
}

#[test]
fn short_files_are_corrupt_and_never_a_short_read() {
    let (_temp, files) = folder();
    write(&files, "f", b"abc");
    let file = files.open(&path("f")).unwrap();
    let mut buffer = [0; 4];
    assert_eq!(
        file.read_at(ByteOffset(0), &mut buffer).unwrap_err().code(),
        "base.files.short"
    );
    file.read_at(ByteOffset(1), &mut buffer[..2]).unwrap();
    assert_eq!(&buffer[..2], b"bc");
    assert!(files.space().unwrap().total >= files.space().unwrap().free);
}
