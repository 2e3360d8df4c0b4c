//! The server is lost, or there is none: what the repository alone gives back.

use crate::command;
use crate::images::{self, MIB};
use crate::site::{PROGRAM, Site};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A site whose encrypted repository `main` holds two points of machine `web`; its folder, the
/// password and the image as it was at each point.
fn filled() -> (Site, PathBuf, PathBuf, [PathBuf; 2]) {
    let site = Site::up();
    let password = site.password("password", "pass word");
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
    let image = images::raw(&site.path("a.raw"), 32 * MIB, 8, 21);
    site.job("nightly", "main", "web", &[&image]);
    site.back_up("nightly");
    let old = images::copy(&image, &site.path("old.raw"));
    images::scribble(&image, 1, MIB, 22);
    site.back_up("nightly");
    (site, repository, password, [old, image])
}

#[test]
fn the_database_is_lost() {
    let (mut site, repository, password, [old, new]) = filled();
    let points = site.points();
    site.end();
    std::fs::remove_dir_all(site.state()).unwrap();
    site.start();
    assert!(site.points().is_empty());

    let [path, file] = [&repository, &password].map(|path| path.to_str().unwrap());
    let wrong = site.password("wrong", "password");
    let open = [
        "repository",
        "open",
        "found",
        "--path",
        path,
        "--password-file",
    ];
    let refused = site
        .run(&[&open[..], &[wrong.to_str().unwrap()]].concat())
        .expect(12);
    assert!(refused.out.contains("store.password.wrong"), "{refused}");
    assert_eq!(
        site.json(&["repository", "list"]),
        serde_json::json!([]),
        "not remembered"
    );

    site.ok(&[&open[..], &[file]].concat());
    assert_eq!(site.points(), points, "all points are found, newest first");
    for (point, source) in points.iter().zip([&new, &old]) {
        let restored = site.restore(point, "disk0", &format!("{point}.raw"), "raw");
        images::assert_equal(source, "raw", &restored, "raw");
    }
    // And it takes new points: a job made anew goes on with what is there.
    site.job("again", "found", "web", &[&new]);
    let session = site.back_up("again");
    let stored = session["counters"]["stored"].as_u64().unwrap();
    assert!(stored < MIB, "nothing has changed: {session}");
    assert_eq!(site.points().len(), 3);
    site.end();
}

#[test]
fn the_client_needs_no_server() {
    let (mut site, repository, password, [old, new]) = filled();
    let points = site.points();
    site.end();
    std::fs::remove_dir_all(site.state()).unwrap();
    let client = |words: &[&str]| site.client(&repository, Some(&password), words);

    let listed = client(&["ls", "-l", "latest"]).expect(0).out;
    for part in [
        "33554432",
        "disks/disk0.raw",
        "disks/disk0.json",
        "images.json",
        "(web)",
    ] {
        assert!(listed.contains(part), "{part}: {listed}");
    }
    for (point, source) in points.iter().zip([&new, &old]) {
        let truth = std::fs::read(source).unwrap();
        let disk = format!("{point}/disks/disk0.raw");
        let part = client(&["cat", &disk, "--offset", "4097", "--length", "70000"]).expect(0);
        // Compared as the lossy text that both become.
        assert_eq!(
            part.out,
            String::from_utf8_lossy(&truth[4097..74_097]),
            "{point}"
        );
        for format in ["raw", "qcow2"] {
            let to = site.path(&format!("{point}.{format}"));
            let out = to.to_str().unwrap();
            client(&["extract", &disk, "-o", out, "--format", format]).expect(0);
            images::assert_equal(source, "raw", &to, format);
            let again = client(&["extract", &disk, "-o", out, "--format", format]).expect(4);
            assert!(again.err.contains(" code: "), "{again}");
        }
    }
    let all = site.path("all");
    client(&["extract", "latest", "--all", "-o", all.to_str().unwrap()]).expect(0);
    images::assert_equal(&new, "raw", &all.join("disks/disk0.raw"), "raw");
    assert!(all.join("point.json").exists() && all.join("images.json").exists());

    mapped_and_compared(&client, &points, &old, &new);
    assert!(client(&["verify"]).expect(0).out.contains("2 points whole"));
    assert!(
        client(&["verify", "--read-data"])
            .expect(0)
            .out
            .contains("2 points whole")
    );
    script(&site, &repository, &password);
}

/// `map` and `diff` against plain reading of the images, as JSON and text.
fn mapped_and_compared(
    client: &dyn Fn(&[&str]) -> command::Ended,
    points: &[String],
    old: &Path,
    new: &Path,
) {
    let [old, new] = [old, new].map(|path| std::fs::read(path).unwrap());
    let newest = format!("{}/disks/disk0.raw", points[0]);
    let map = ranges(&client(&["map", &newest]).expect(0).out);
    let outside = |ranges: &[(usize, usize)], holds: &dyn Fn(usize) -> bool| {
        let mut at = 0;
        for &(offset, length) in ranges {
            assert!(offset >= at && length > 0, "in order and apart: {ranges:?}");
            assert!((at..offset).all(holds), "a hole at {at}..{offset} is none");
            at = offset + length;
        }
        assert!((at..new.len()).all(holds), "a hole at the end is none");
    };
    outside(&map, &|at| new[at] == 0);
    let mapped: usize = map.iter().map(|(_, length)| length).sum();
    assert!(mapped <= 10 << 20, "holes are not mapped: {mapped}");

    let diff = ranges(&client(&["diff", &points[1], &points[0]]).expect(0).out);
    outside(&diff, &|at| old[at] == new[at]);
    let different: usize = diff.iter().map(|(_, length)| length).sum();
    assert!(
        0 < different && different <= 2 << 20,
        "one piece differs: {diff:?}"
    );
}

/// Lines of `offset length`; others are titles.
fn ranges(text: &str) -> Vec<(usize, usize)> {
    let pair = |line: &str| {
        let mut words = line.split_whitespace().map(|word| word.parse().ok());
        Some((words.next()??, words.next()??))
    };
    text.lines().filter_map(pair).collect()
}

/// JSON, a prompt fed from a file, passwords, and names that do not exist.
fn script(site: &Site, repository: &Path, password: &Path) {
    let json = |password: &Path, words: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command
            .args(["client", "--json", "--password-file"])
            .arg(password);
        command.arg(repository).args(words);
        command::run(&mut command, &site.path(""))
    };
    let lines = json(password, &["ls"]).expect(0).json_lines();
    assert!(
        lines.iter().any(|line| line["path"] == "disks/disk0.raw"),
        "{lines:?}"
    );
    let verified = json(password, &["verify", "--read-data"])
        .expect(0)
        .json_lines();
    assert_eq!(
        verified.last().unwrap()["damages"],
        serde_json::json!([]),
        "{verified:?}"
    );

    let wrong = site.password("wrong", "Pass word");
    let refused = json(&wrong, &["ls"]).expect(5);
    assert_eq!(refused.json_error()["code"], "store.password.wrong");
    let refused = site.client(repository, Some(&wrong), &["ls"]).expect(5);
    assert!(refused.err.contains(" hint: ") && refused.err.contains("store.password.wrong"));
    site.client(repository, None, &["ls"]).expect(5);
    let missing = json(password, &["cat", "latest/disks/vdz.raw"]).expect(3);
    assert_eq!(missing.json_error()["code"], "mover.client.file");
    json(password, &["ls", "ffffffff"]).expect(3);
    json(password, &["nonsense"]).expect(2);
    let nowhere = site
        .client(&site.path("nowhere"), Some(password), &["ls"])
        .expect(3);
    assert!(nowhere.err.contains(" code: "), "{nowhere}");
}
