//! Running `qemu-img` and `qemu-io`, the judges of our formats.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// Runs a tool that must be there.
fn run(tool: &str, arguments: &[&str]) -> Output {
    Command::new(tool)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| {
            panic!(
                "{tool} cannot be run ({error}). The tests of the disk formats need it: \
             `cargo xtask test` installs it, or `apt-get install qemu-utils`."
            )
        })
}

/// Runs `qemu-img`, which must succeed; gives back what it printed.
pub fn img(arguments: &[&str]) -> String {
    let output = run("qemu-img", arguments);
    assert!(
        output.status.success(),
        "qemu-img {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Runs `qemu-io` commands on an image, which must succeed.
pub fn io(format: &str, image: &Path, commands: &[&str]) {
    let mut arguments = vec!["-f", format];
    for command in commands {
        arguments.extend(["-c", command]);
    }
    arguments.push(text(image));
    let output = run("qemu-io", &arguments);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && !said.contains("error"),
        "qemu-io {arguments:?}: {said}"
    );
}

/// Runs `qemu-io` commands of which the last one kills it.
pub fn io_killed(format: &str, image: &Path, commands: &[&str]) {
    let mut arguments = vec!["-f", format];
    for command in commands {
        arguments.extend(["-c", command]);
    }
    arguments.extend(["-c", "abort", text(image)]);
    assert!(!run("qemu-io", &arguments).status.success());
}

/// A path as text.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// What `qemu-img map` says: start, length, whether it reads as zeros.
pub fn map(format: &str, image: &Path) -> Vec<(u64, u64, bool)> {
    let output = img(&["map", "--output=json", "-f", format, text(image)]);
    let map: serde_json::Value = serde_json::from_str(&output).unwrap();
    map.as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            let number = |key: &str| entry[key].as_u64().unwrap();
            (
                number("start"),
                number("length"),
                entry["zero"].as_bool().unwrap(),
            )
        })
        .collect()
}

/// A `qemu-io` that has an image open until it is dropped.
pub struct Holder(Child);

/// Opens an image and waits until QEMU has done so too.
pub fn hold(format: &str, image: &Path) -> Holder {
    use std::io::{BufRead, BufReader, Write};
    let mut child = Command::new("qemu-io")
        .args(["-f", format, text(image)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"length\n").unwrap();
    let mut answer = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut answer)
        .unwrap();
    child.stdin = Some(input);
    Holder(child)
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It ends when its input does.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
