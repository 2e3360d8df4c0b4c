//! `backstay client` as a real process on a repository made by commands.

use crate::commands::{back_up_image, write_image};
use crate::processes::program;
use base::size::MIB;
use mover::executor::Executor;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn client(repository_folder: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(program());
    command
        .arg("client")
        .arg(repository_folder)
        .args(words)
        .env("BACKSTAY_PASSWORD", "pw");
    command.stdin(Stdio::null()).output().unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_person_lists_reads_compares_extracts_and_verifies_without_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let (image, repository_folder) = (
        folder.path().join("disk.raw"),
        folder.path().join("repository"),
    );
    write_image(&image, 8 * MIB, 41);
    let made = back_up_image(
        &Executor::of_this_machine(),
        &repository_folder,
        &image,
        8 * MIB,
    );

    let listed = text(&client(&repository_folder, &["ls", "-l", "latest"]));
    let machine = made.draft.machine.id;
    let disk_line = format!("{:>16}  {machine} (web1)/disks/vda.raw", 8 * MIB);
    assert!(listed.lines().any(|line| line == disk_line), "{listed}");
    assert!(
        listed.contains("domain.xml") && listed.contains("disks/vda.json"),
        "{listed}"
    );
    assert!(text(&client(&repository_folder, &["points"])).contains(&made.id.to_string()));
    let short = made.id.short();
    assert_eq!(
        text(&client(
            &repository_folder,
            &["cat", &format!("{short}/domain.xml")]
        )),
        "<domain/>"
    );
    let truth = std::fs::read(&image).unwrap();
    let cat = client(
        &repository_folder,
        &[
            "cat",
            "latest/disks/vda.raw",
            "--offset",
            "100",
            "--length",
            "9",
        ],
    );
    assert!(cat.status.success() && cat.stdout == truth[100..109]);
    assert!(client(&repository_folder, &["cat", "latest/disks/vda.raw"]).stdout == truth);
    assert!(
        !text(&client(
            &repository_folder,
            &["map", "latest/disks/vda.raw"]
        ))
        .is_empty()
    );
    assert_eq!(
        text(&client(&repository_folder, &["diff", "latest", "latest"])),
        "disks/vda.raw:\n"
    );

    let out = folder.path().join("out");
    text(&client(
        &repository_folder,
        &["extract", "latest", "--all", "-o", out.to_str().unwrap()],
    ));
    assert!(std::fs::read(out.join("disks/vda.raw")).unwrap() == truth);
    assert_eq!(std::fs::read(out.join("domain.xml")).unwrap(), b"<domain/>");
    let again = client(
        &repository_folder,
        &["extract", "latest", "--all", "-o", out.to_str().unwrap()],
    );
    assert_eq!(again.status.code(), Some(4), "{again:?}");
    assert!(
        text(&client(&repository_folder, &["verify", "--read-data"])).starts_with("1 points whole")
    );
    let missing = client(&repository_folder, &["cat", "latest/nothing"]);
    assert_eq!(missing.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("mover.client.file"));
}

#[test]
fn lines_from_a_file_end_at_the_first_failure_and_json_is_json() {
    let folder = tempfile::tempdir().unwrap();
    let (image, repository_folder) = (
        folder.path().join("disk.raw"),
        folder.path().join("repository"),
    );
    write_image(&image, 4 * MIB, 42);
    let made = back_up_image(
        &Executor::of_this_machine(),
        &repository_folder,
        &image,
        4 * MIB,
    );
    let secret = folder.path().join("password");
    std::fs::write(&secret, "pw\n").unwrap();
    let run = |script: String| {
        let mut child = Command::new(program())
            .args(["client", "--json", "--password-file"])
            .arg(&secret)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(script.as_bytes())
            .unwrap();
        child.wait_with_output().unwrap()
    };
    let open = format!("# by hand\nopen '{}'\n", repository_folder.display());
    let shown = text(&run(format!("{open}points\nls\nverify\nquit\nnonsense\n")));
    let values: Vec<serde_json::Value> = shown
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(values[1][0]["id"], made.id.to_string());
    assert_eq!(values.last().unwrap()["damages"], serde_json::json!([]));
    let failed = run(format!("{open}cat latest/nothing\npoints\n"));
    assert_eq!(failed.status.code(), Some(3));
    assert_eq!(String::from_utf8_lossy(&failed.stdout).lines().count(), 1);
    std::fs::write(&secret, "wrong").unwrap();
    assert_eq!(run(open).status.code(), Some(5));
}

#[test]
fn options_are_taken_at_the_end_of_the_line_too() {
    let folder = tempfile::tempdir().unwrap();
    let (image, repository_folder, password) = (
        folder.path().join("disk.raw"),
        folder.path().join("repository"),
        folder.path().join("password"),
    );
    write_image(&image, MIB, 43);
    std::fs::write(&password, "pw\n").unwrap();
    let executor = Executor::of_this_machine();
    let made = back_up_image(&executor, &repository_folder, &image, MIB);
    let run = |words: &[&str]| {
        let mut command = Command::new(program());
        command.arg("client").arg(&repository_folder).args(words);
        command.env_remove("BACKSTAY_PASSWORD").stdin(Stdio::null());
        command.output().unwrap()
    };
    let file = password.display().to_string();
    let listed = text(&run(&["ls", "--password-file", &file, "--json"]));
    let last: serde_json::Value = serde_json::from_str(listed.lines().last().unwrap()).unwrap();
    assert_eq!(last["point"], made.id.to_string());
    // No command: the prompt, which ends at once without input.
    assert!(run(&["--password-file", &file]).status.success());
    assert!(!run(&["ls"]).status.success());
    assert!(text(&run(&["help"])).contains("--password-file"));
    assert!(!run(&["ls", "--pasword-file", &file]).status.success());
}
