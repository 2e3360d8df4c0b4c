//! The command line as a person or a script meets it: help, completion, JSON, closed pipes.

use crate::command::{self, Ended};
use crate::images::{self, MIB};
use crate::site::{PROGRAM, Site};
use serde_json::{Value, json};
use std::process::{Command, Stdio};

fn program(words: &[&str]) -> Ended {
    command::run(Command::new(PROGRAM).args(words), &std::env::temp_dir())
}

/// The names below `Commands:` of a help text, each with what is said of it.
fn commands(help: &str) -> Vec<(String, String)> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let lines = lines.take_while(|line| !line.is_empty());
    let split = |line: &str| {
        let line = line.trim_start();
        let (name, text) = line.split_once("  ").unwrap_or((line, ""));
        (name.to_owned(), text.trim().to_owned())
    };
    lines
        .filter(|line| !line.starts_with("      "))
        .map(split)
        .collect()
}

#[test]
fn every_command_says_what_it_is_for() {
    let alone = program(&[]).expect(2);
    assert!(
        alone.err.contains("Usage: backstay [OPTIONS] <COMMAND>"),
        "{alone}"
    );
    let nouns = commands(&program(&["--help"]).expect(0).out);
    assert!(nouns.len() > 10, "{nouns:?}");
    let mut tried = 0;
    for (noun, text) in &nouns {
        assert!(!text.is_empty(), "{noun} has no description");
        if noun == "help" {
            continue;
        }
        let help = program(&[noun, "--help"]).expect(0).out;
        for (verb, text) in commands(&help) {
            assert!(!text.is_empty(), "{noun} {verb} has no description");
            if verb != "help" {
                reads_well(&program(&[noun, &verb, "--help"]).expect(0).out);
                tried += 1;
            }
        }
        reads_well(&help);
    }
    assert!(tried > 25, "{tried} verbs were looked at");
}

/// Lines fit a terminal, and each option and argument is explained.
fn reads_well(help: &str) {
    assert!(help.contains("Usage: backstay "), "{help}");
    let mut lines = help.lines().peekable();
    while let Some(line) = lines.next() {
        // Usages are never wrapped, so that they can be copied.
        let fits = line.chars().count() <= 100 || line.starts_with("Usage: ");
        assert!(fits, "too long: {line}");
        let first = line.trim_start();
        let is_item = line.len() - first.len() <= 6
            && (first.starts_with("--") || first.starts_with('<') || first.starts_with('['));
        if is_item {
            let explained = first.contains("  ")
                || lines
                    .peek()
                    .is_some_and(|next| next.starts_with("          "));
            assert!(explained, "not explained: {line}\n{help}");
        }
    }
}

#[test]
fn completion_scripts_are_scripts() {
    let script = program(&["completion", "bash"]).expect(0).out;
    for word in ["repository", "restore", "--read-data", "--no-encryption"] {
        assert!(script.contains(word), "{word}");
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &script).unwrap();
    let check = command::run(
        Command::new("bash").arg("-n").arg(file.path()),
        &std::env::temp_dir(),
    );
    assert_eq!(check.expect(0).err, "");
    // What a shell offers after `backstay rep`.
    let ask = format!(
        "source {}; COMP_WORDS=(backstay rep); COMP_CWORD=1; _backstay backstay rep backstay; \
         echo \"${{COMPREPLY[@]}}\"",
        file.path().display()
    );
    let offered = command::run(
        Command::new("bash").args(["-c", &ask]),
        &std::env::temp_dir(),
    );
    assert_eq!(offered.expect(0).out.trim(), "repository");
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        assert!(
            program(&["completion", shell])
                .expect(0)
                .out
                .contains("repository"),
            "{shell}"
        );
    }
}

#[test]
fn mistakes_in_typing_are_said_as_they_are_asked_for() {
    let text = program(&["repository", "crate"]).expect(2);
    assert!(text.err.contains("create"), "the like is proposed: {text}");
    let error = program(&["repository", "crate", "--json"])
        .expect(2)
        .json_error();
    assert_eq!(error["code"], "console.usage");
    assert_eq!(error["kind"], "invalid");
    assert!(
        error["hint"].as_str().unwrap().contains("--help"),
        "{error}"
    );
    assert!(
        !error["message"].as_str().unwrap().starts_with("error"),
        "{error}"
    );
    let ports = program(&["up", "--agent-ports", "many"]).expect(2);
    assert!(ports.err.contains("2500-3300"), "gives an example: {ports}");
    let nowhere = ["--site", "/nonexistent", "status"];
    let text = program(&nowhere).expect(3);
    assert!(
        text.err.contains("backstay up"),
        "says how to start a site: {text}"
    );
}

#[test]
fn answers_are_json_where_asked_for() {
    let mut site = Site::up();
    for noun in ["repository", "job", "session", "machine", "point"] {
        assert_eq!(site.json(&[noun, "list"]), json!([]), "{noun}");
        let text = site.ok(&[noun, "list"]).out;
        assert!(text.starts_with("no "), "{noun}: {text}");
    }
    assert_eq!(site.json(&["host", "list"])[0]["name"], "local");
    assert_eq!(site.json(&["status"])["sessions_running"], 0);

    let repository = site.repository("main");
    let image = images::raw(&site.path("a.raw"), 4 * MIB, 2, 1);
    site.job("daily", "main", "web", &[&image]);
    let session = site.json(&["job", "run", "daily"]);
    let id = session["id"].as_str().unwrap();
    let followed = site.ok(&["session", "follow", id, "--json"]).json_lines();
    assert_eq!(followed.last().unwrap()["session"]["state"], "success");
    let shown = site.json(&["session", "show", id]);
    assert!(
        shown["lines"]
            .as_array()
            .is_some_and(|lines| !lines.is_empty()),
        "{shown}"
    );
    for task in shown["session"]["tasks"].as_array().unwrap() {
        assert_eq!(task["state"], "success", "{task}");
    }
    for noun in ["repository", "job", "session", "machine", "point", "host"] {
        let text = site.ok(&[noun, "list"]).out;
        assert!(text.lines().count() >= 2, "a head and a row: {text}");
        assert!(text.lines().next().unwrap().contains("  "), "{text}");
    }
    assert_eq!(
        site.json(&["machine", "show", "web"])["found"]["name"],
        "web"
    );
    assert_eq!(
        site.json(&["job", "show", "daily"])["job"]["settings"]["name"],
        "daily"
    );
    let edited = site.json(&["job", "edit", "daily", "--daily", "22:30", "--keep", "7"]);
    assert_eq!(edited["settings"]["keep_points"], 7, "{edited}");
    assert_eq!(
        site.json(&["job", "disable", "daily"])["settings"]["enabled"],
        false
    );
    assert!(site.json(&["job", "delete", "daily"])["done"].is_string());
    let removed = site.json(&["repository", "remove", "main"]);
    assert!(removed["done"].is_string(), "{removed}");
    assert!(repository.join("repository").exists(), "its files stay");
    closed_pipes(&site, &repository);
    site.end();
}

/// A reader that goes away (`| head -1`) is no mistake and no panic.
fn closed_pipes(site: &Site, repository: &std::path::Path) {
    let folder = repository.to_str().unwrap();
    let lines: &[&[&str]] = &[
        &["--help"],
        &["completion", "bash"],
        &["session", "list"],
        &["session", "list", "--json"],
        &[
            "repository",
            "open",
            "again",
            "--path",
            folder,
            "--no-encryption",
        ],
        &["repository", "rescan", "again", "--json"],
        &["client", folder, "ls"],
        &["client", folder, "cat", "latest/disks/disk0.raw"],
    ];
    for words in lines {
        let mut command = site.command(words);
        if words[0] == "client" {
            // What follows the repository is the client's own.
            command = Command::new(PROGRAM);
            command.args(*words);
        }
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let ended = child.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(0), "{words:?}: {err}");
        assert!(
            !err.contains("panicked") && !err.contains("error: "),
            "{words:?}: {err}"
        );
    }
}

#[test]
fn exit_codes_of_sessions() {
    let mut site = Site::up();
    site.repository("main");
    let image = images::raw(&site.path("a.raw"), 8 * MIB, 2, 1);
    site.job("daily", "main", "web", &[&image]);
    let started = site.ok(&["job", "run", "daily"]);
    assert!(
        started.out.contains("backstay session follow"),
        "says what to type: {started}"
    );
    let newest = site.json(&["session", "list"])[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    site.ok(&["session", "follow", &newest]);
    // The file is gone: the run fails, and says so by its exit code and in its log.
    std::fs::remove_file(&image).unwrap();
    let failed = site.run(&["job", "run", "daily", "--follow"]).expect(12);
    assert!(
        failed.out.contains("a.raw") && failed.out.contains("failed"),
        "{failed}"
    );
    let failed = site
        .run(&["job", "run", "daily", "--follow", "--json"])
        .expect(12)
        .json_lines();
    assert_eq!(failed.last().unwrap()["session"]["state"], "failed");
    let coded = |line: &Value| {
        line["line"]["code"]
            .as_str()
            .is_some_and(|code| code.contains('.'))
    };
    assert!(failed.iter().any(coded), "{failed:?}");
    site.end();
}
