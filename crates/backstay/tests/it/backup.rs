//! Image jobs from end to end: backup, what changed, restore, verify, delete, collect.

use crate::images::{self, MIB};
use crate::site::Site;
use serde_json::Value;
use std::path::Path;

/// Bytes in all files of a folder.
fn bytes_in(folder: &Path) -> u64 {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.metadata().unwrap();
        bytes += if kind.is_dir() {
            bytes_in(&entry.path())
        } else {
            kind.len()
        };
    }
    bytes
}

/// Full, change, again, restore both in both formats, verify, delete, collect.
fn whole_story(site: &Site, repository: &Path) {
    let raw = images::raw(&site.path("a.raw"), 64 * MIB, 12, 1);
    let source = images::raw(&site.path("b.raw"), 40 * MIB + 512, 6, 2);
    let qcow2 = images::qcow2_of(&source, &site.path("b.qcow2"));
    site.job("nightly", "main", "web", &[&raw, &qcow2]);

    let first = site.back_up("nightly");
    assert_eq!(first["counters"]["processed"], 104 * MIB + 512, "{first}");
    let read = first["counters"]["read"].as_u64().unwrap();
    assert!(
        (18 * MIB..=19 * MIB).contains(&read),
        "only what is allocated is read: {first}"
    );
    let after_first = bytes_in(&repository.join("packs"));
    assert!(
        after_first >= 18 * MIB,
        "noise cannot be made smaller: {after_first}"
    );
    let old = images::copy(&raw, &site.path("a-old.raw"));

    images::scribble(&raw, 2, MIB, 3);
    let second = site.back_up("nightly");
    let grown = bytes_in(&repository.join("packs")) - after_first;
    // At most two pieces, each in a window of its own, whose borders are cut anew.
    assert!(
        (2 * MIB..3 * MIB).contains(&grown),
        "grown by {grown} for 2 MiB: {second}"
    );

    let points = site.points();
    let [new_point, old_point] = &points[..] else {
        panic!("two points, not {points:?}")
    };
    let shown = site.json(&["point", "show", new_point]);
    assert_eq!(shown["disks"].as_array().unwrap().len(), 2, "{shown}");
    assert_eq!(shown["draft"]["machine"]["name"], "web");

    restored_equal(site, new_point, &raw, &source);
    restored_equal(site, old_point, &old, &source);

    site.ok(&["verify", "main"]);
    let read_all = site
        .ok(&["verify", "main", "--read-data", "--json"])
        .json_lines();
    let outcome = &read_all.last().unwrap()["session"]["outcome"]["verified"];
    assert_eq!(outcome["whole"], 2, "{outcome}");
    assert_eq!(outcome["damages"], Value::Array(Vec::new()), "{outcome}");

    site.ok(&["point", "delete", old_point]);
    site.run(&["point", "show", old_point]).expect(3);
    assert_eq!(site.points(), std::slice::from_ref(new_point));
    collected(site, repository);
    restored_equal(site, new_point, &raw, &source);
    site.ok(&["verify", "main", "--read-data"]);
    site.ok(&["repository", "rescan", "main"]);
    assert_eq!(site.points(), std::slice::from_ref(new_point));
}

/// What only a deleted point needed comes free.
fn collected(site: &Site, repository: &Path) {
    let image = images::raw(&site.path("passing.raw"), 16 * MIB, 6, 4);
    site.job("passing", "main", "passing", &[&image]);
    site.back_up("passing");
    let point = site.json(&["point", "list", "--machine", "passing"])[0]["id"].clone();
    let before = bytes_in(&repository.join("packs"));
    site.ok(&["point", "delete", point.as_str().unwrap()]);
    // What is marked by one collection is swept by the next at the latest.
    site.ok(&["repository", "collect", "main"]);
    site.ok(&["repository", "collect", "main"]);
    let after = bytes_in(&repository.join("packs"));
    assert!(
        after + 6 * MIB <= before,
        "{before} bytes before, {after} after"
    );
}

/// Restores both disks in both formats and compares with their sources.
fn restored_equal(site: &Site, point: &str, raw: &Path, other: &Path) {
    for (disk, source) in [("disk0", raw), ("disk1", other)] {
        for format in ["raw", "qcow2"] {
            let name = format!("restored-{point}-{disk}.{format}");
            let restored = site.restore(point, disk, &name, format);
            images::assert_equal(source, "raw", &restored, format);
            if format == "qcow2" {
                images::qemu("qemu-img", &["check", "-q", restored.to_str().unwrap()]);
            } else {
                assert!(std::fs::read(source).unwrap() == std::fs::read(&restored).unwrap());
            }
            std::fs::remove_file(restored).unwrap();
        }
    }
}

#[test]
fn without_encryption() {
    let mut site = Site::up();
    let repository = site.repository("main");
    whole_story(&site, &repository);
    site.end();
}

#[test]
fn with_a_password() {
    let mut site = Site::up();
    let password = site.password("password", "correct horse");
    let (file, repository) = (password.to_str().unwrap(), site.path("main"));
    let path = repository.to_str().unwrap();
    site.ok(&[
        "repository",
        "create",
        "main",
        "--path",
        path,
        "--password-file",
        file,
    ]);
    let listed = site.json(&["repository", "list"]);
    assert_eq!(listed[0]["encrypted"], true, "{listed}");
    whole_story(&site, &repository);
    // The password lies nowhere in the site's state in clear.
    for name in ["server/backstay.db", "server/backstay.db-wal"] {
        let bytes = std::fs::read(site.state().join(name)).unwrap_or_default();
        assert!(
            !bytes.windows(13).any(|window| window == b"correct horse"),
            "{name}"
        );
    }
    site.end();
}

#[test]
fn two_machines_of_one_job_and_what_is_kept() {
    let mut site = Site::up();
    let repository = site.repository("main");
    let one = images::raw(&site.path("one.raw"), 32 * MIB, 8, 11);
    let two = images::raw(&site.path("two.raw"), 32 * MIB, 4, 12);
    let [a, b] = [("one", &one), ("two", &two)].map(|(n, p)| format!("{n}={}", p.display()));
    site.ok(&[
        "job",
        "create",
        "both",
        "--repository",
        "main",
        "--image",
        &a,
        "--image",
        &b,
        "--keep",
        "2",
    ]);
    site.back_up("both");
    let stored = bytes_in(&repository.join("packs"));
    assert!(
        (12 * MIB..13 * MIB).contains(&stored),
        "{stored} bytes for 12 MiB"
    );
    // A third machine with the contents of the first costs next to nothing.
    let three = images::copy(&one, &site.path("three.raw"));
    site.job("third", "main", "three", &[&three]);
    let session = site.back_up("third");
    let stored = session["counters"]["stored"].as_u64().unwrap();
    assert!(stored < 64 << 10, "{session}");
    for seed in [1, 2, 3] {
        images::scribble(&two, 1, MIB, seed);
        site.back_up("both");
    }
    for machine in ["one", "two"] {
        let points = site.json(&["point", "list", "--machine", machine]);
        assert_eq!(points.as_array().unwrap().len(), 2, "--keep 2: {points}");
    }
    let machines = site.json(&["machine", "list"]);
    assert_eq!(machines.as_array().unwrap().len(), 3, "{machines}");
    let newest = site.json(&["point", "list", "--machine", "two"])[0]["id"].clone();
    let restored = site.restore(newest.as_str().unwrap(), "disk0", "restored.raw", "raw");
    images::assert_equal(&two, "raw", &restored, "raw");
    site.end();
}
