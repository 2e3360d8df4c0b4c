//! Hostile and damaged bytes, and a full disk: each hurts only what it must, and says what it is.

use crate::command;
use crate::images::{self, MIB};
use crate::refusals::{fails, failure};
use crate::site::Site;
use serde_json::Value;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Writes bytes into the header of an image.
fn patched(from: &Path, to: PathBuf, at: u64, bytes: &[u8]) -> PathBuf {
    std::fs::copy(from, &to).unwrap();
    File::options()
        .write(true)
        .open(&to)
        .unwrap()
        .write_all_at(bytes, at)
        .unwrap();
    to
}

#[test]
fn hostile_images_fail_alone() {
    let mut site = Site::up();
    site.repository("main");
    let good = images::raw(&site.path("good.raw"), 8 * MIB, 2, 1);
    let qcow2 = images::qcow2_of(&good, &site.path("good.qcow2"));
    // Offsets of the qcow2 header: docs/interop/qcow2.rst of QEMU.
    let hostile = [
        (
            "size",
            patched(&qcow2, site.path("size.qcow2"), 24, &[0x7f; 8]),
        ),
        (
            "l1-size",
            patched(&qcow2, site.path("l1-size.qcow2"), 36, &[0xff; 4]),
        ),
        (
            "l1-place",
            patched(&qcow2, site.path("l1-place.qcow2"), 40, &[0x7f; 8]),
        ),
        (
            "clusters",
            patched(&qcow2, site.path("clusters.qcow2"), 20, &[0, 0, 0, 63]),
        ),
        (
            "version",
            patched(&qcow2, site.path("version.qcow2"), 4, &[0, 0, 0, 9]),
        ),
        (
            "features",
            patched(&qcow2, site.path("features.qcow2"), 72, &[0xff; 8]),
        ),
    ];
    let cut = site.path("cut.qcow2");
    std::fs::write(&cut, &std::fs::read(&qcow2).unwrap()[..60]).unwrap();
    let climbs = site.path("climbs.vmdk");
    std::fs::write(
        &climbs,
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n\
         createType=\"monolithicFlat\"\nRW 2048 FLAT \"/etc/passwd\" 0\n",
    )
    .unwrap();
    let others = [("cut", cut), ("climbs", climbs)];
    for (name, image) in hostile.iter().chain(&others) {
        let [bad, fine] = [
            format!("bad={}", image.display()),
            format!("fine-{name}={}", good.display()),
        ];
        site.ok(&[
            "job",
            "create",
            name,
            "--repository",
            "main",
            "--image",
            &bad,
            "--image",
            &fine,
        ]);
        let ended = site
            .run(&["job", "run", name, "--follow", "--json"])
            .expect(12);
        let of_bad = |line: &Value| {
            let line = &line["line"];
            let said = line["code"]
                .as_str()
                .is_some_and(|code| code.starts_with("disk."));
            line["level"] == "error" && said && line["subject"].as_str().unwrap().contains("bad")
        };
        assert!(ended.json_lines().iter().any(of_bad), "{name}: {ended}");
        let fine = site.json(&["point", "list", "--machine", &format!("fine-{name}")]);
        assert_eq!(
            fine.as_array().unwrap().len(),
            1,
            "{name}: the other machine has its point"
        );
    }
    assert_eq!(site.points().len(), hostile.len() + others.len());
    site.ok(&["verify", "main"]);
    site.end();
}

/// Files below a folder.
pub fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_in(&path))
        } else {
            found.push(path)
        }
    }
    found
}

#[test]
fn a_truncated_pack_hurts_only_what_lies_in_it() {
    let mut site = Site::up();
    let repository = site.repository("main");
    let [hurt, whole] = [("hurt", 31), ("whole", 32)].map(|(name, seed)| {
        let image = images::raw(&site.path(&format!("{name}.raw")), 16 * MIB, 6, seed);
        site.job(name, "main", name, &[&image]);
        image
    });
    site.back_up("hurt");
    let packs = files_in(&repository.join("packs/data"));
    site.back_up("whole");
    let longest = packs
        .iter()
        .max_by_key(|path| path.metadata().unwrap().len())
        .unwrap();
    let length = longest.metadata().unwrap().len();
    File::options()
        .write(true)
        .open(longest)
        .unwrap()
        .set_len(length / 2)
        .unwrap();

    let point_of = |machine| {
        site.json(&["point", "list", "--machine", machine])[0]["id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let (bad, good) = (point_of("hurt"), point_of("whole"));
    let short = &bad[bad.len() - 8..];
    for words in [&["verify", "main"][..], &["verify", "main", "--read-data"]] {
        let ended = site.run(&[words, &["--json"]].concat()).expect(12);
        failure(&ended, "verify.damaged");
        let names_it = |line: &Value| {
            let line = &line["line"];
            line["code"] == "verify.damaged" && line["text"].as_str().unwrap().contains(short)
        };
        assert!(
            ended.json_lines().iter().any(names_it),
            "names the point: {ended}"
        );
    }
    // The other point is whole; that something is broken beside it is a warning.
    let beside = site
        .run(&["verify", "main", "--read-data", "--point", &good])
        .expect(11);
    assert!(beside.out.contains("1 points are whole"), "{beside}");
    let to = site.path("bad.raw");
    let restore = [
        "restore",
        "disk",
        &bad,
        "disk0",
        "--to",
        to.to_str().unwrap(),
    ];
    let ended = site.run(&[&restore[..], &["--json"]].concat()).expect(12);
    let says_so = |line: &Value| {
        let line = &line["line"];
        line["level"] == "error"
            && line["text"]
                .as_str()
                .is_some_and(|text| text.contains("backstay verify"))
    };
    assert!(ended.json_lines().iter().any(says_so), "{ended}");
    assert!(!to.exists(), "half a disk does not stay");
    let restored = site.restore(&good, "disk0", "good.raw", "raw");
    images::assert_equal(&whole, "raw", &restored, "raw");

    // The next run of the hurt machine stores again what is missing, and restores.
    let ended = site.run(&["job", "run", "hurt", "--follow"]);
    assert!([0, 11].contains(&ended.code.unwrap()), "{ended}");
    let restored = site.restore(&point_of("hurt"), "disk0", "again.raw", "raw");
    images::assert_equal(&hurt, "raw", &restored, "raw");
    site.end();
}

/// A file system of its own, as small as a test wants it.
struct Small(PathBuf);

impl Small {
    fn mounted(at: PathBuf, mib: u64) -> Self {
        std::fs::create_dir(&at).unwrap();
        let size = format!("size={mib}m");
        let folder = at.to_str().unwrap().to_owned();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "backstay-test", &folder]);
        let ended = command::run(&mut mount, &std::env::temp_dir());
        assert_eq!(
            ended.code,
            Some(0),
            "this test mounts a tmpfs: run it as root: {ended}"
        );
        Self(at)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_loses_nothing() {
    let mut site = Site::up();
    let small = Small::mounted(site.path("small"), 48);
    let repository = small.0.join("main");
    let path = repository.to_str().unwrap();
    site.ok(&[
        "repository",
        "create",
        "main",
        "--path",
        path,
        "--no-encryption",
    ]);
    let fits = images::raw(&site.path("fits.raw"), 16 * MIB, 6, 41);
    let large = images::raw(&site.path("large.raw"), 96 * MIB, 96, 42);
    site.job("fits", "main", "fits", &[&fits]);
    site.job("large", "main", "large", &[&large]);
    site.back_up("fits");
    let point = site.points().remove(0);

    let text = fails(&site, &["job", "run", "large", "--follow"], "base.io.full");
    assert!(text.contains("free some space"), "says what to do: {text}");
    assert_eq!(site.points(), std::slice::from_ref(&point), "no half point");

    // Now down to the last byte.
    let ballast = small.0.join("ballast");
    let mut file = File::create(&ballast).unwrap();
    let full = std::io::copy(&mut std::io::repeat(7), &mut file).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    drop(file);
    let restored = site.restore(&point, "disk0", "restored.raw", "raw");
    images::assert_equal(&fits, "raw", &restored, "raw");
    site.ok(&["verify", "main", "--read-data"]);
    images::scribble(&fits, 1, MIB, 43);
    fails(&site, &["job", "run", "fits", "--follow"], "base.io.full");
    site.ok(&["repository", "rescan", "main"]);
    assert_eq!(site.points(), std::slice::from_ref(&point));

    // Deleting and collecting make room from nothing.
    site.ok(&["point", "delete", &point]);
    site.ok(&["repository", "collect", "main"]);
    site.ok(&["repository", "collect", "main"]);
    site.back_up("fits");
    let restored = site.restore(&site.points()[0], "disk0", "again.raw", "raw");
    images::assert_equal(&fits, "raw", &restored, "raw");
    drop(small);
    site.end();
}
