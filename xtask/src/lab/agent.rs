//! Talking to the agent inside a guest, by libvirt's own client.
//!
//! Knows: the agent's commands that demonstrations and tests need, and how long a guest under
//! software emulation may take.
//! Refuses to know: what is run in the guest.

use super::virsh::Virsh;
use base::cancel::Cancel;
use base::{Error, Kind, Result};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The longest a guest may take from power on to its agent's first answer on a busy machine.
pub const BOOT_DEADLINE: Duration = Duration::from_secs(180);
/// The longest one command inside a guest may take.
const RUN_DEADLINE: Duration = Duration::from_secs(180);

/// The agent of one guest.
#[derive(Clone)]
pub struct Agent<'a> {
    virsh: &'a Virsh,
    machine: &'a str,
}

impl<'a> Agent<'a> {
    /// The agent of the machine of this name.
    pub fn of(virsh: &'a Virsh, machine: &'a str) -> Self {
        Self { virsh, machine }
    }

    /// Waits until the agent answers.
    pub fn wait(&self, cancel: &Cancel) -> Result<Duration> {
        let started = Instant::now();
        loop {
            let answer = self.ask("guest-ping", &json!({}), cancel);
            match answer {
                Ok(_) => return Ok(started.elapsed()),
                Err(error) if error.kind() == Kind::Cancelled => return Err(error),
                Err(error) if started.elapsed() > BOOT_DEADLINE => {
                    return Err(Error::new(
                        Kind::Timeout,
                        "xtask.lab.agent",
                        format!("the agent of {} does not answer", self.machine),
                    )
                    .hint("the guest's console is in the file console.log of its folder")
                    .caused_by(error));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(500)),
            }
        }
    }

    /// Runs a shell command in the guest and hands back what it printed. An exit code other than 0
    /// is an error that repeats what the command complained of.
    pub fn run(&self, command: &str, cancel: &Cancel) -> Result<String> {
        let started = Instant::now();
        let arguments =
            json!({ "path": "/bin/sh", "arg": ["-c", command], "capture-output": true });
        let pid = self.ask("guest-exec", &arguments, cancel)?["pid"].clone();
        loop {
            let status = self.ask("guest-exec-status", &json!({ "pid": pid }), cancel)?;
            if status["exited"] == true {
                return outcome(command, &status);
            }
            if started.elapsed() > RUN_DEADLINE {
                return Err(Error::new(
                    Kind::Timeout,
                    "xtask.lab.command",
                    format!("`{command}` in {} does not end", self.machine),
                ));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// How many file systems the agent froze.
    pub fn freeze(&self, cancel: &Cancel) -> Result<u64> {
        let answer = self.ask("guest-fsfreeze-freeze", &json!({}), cancel)?;
        Ok(answer.as_u64().unwrap_or(0))
    }

    /// How many file systems the agent thawed.
    pub fn thaw(&self, cancel: &Cancel) -> Result<u64> {
        Ok(self
            .ask("guest-fsfreeze-thaw", &json!({}), cancel)?
            .as_u64()
            .unwrap_or(0))
    }

    /// Whether file systems are frozen now.
    pub fn is_frozen(&self, cancel: &Cancel) -> Result<bool> {
        Ok(self.ask("guest-fsfreeze-status", &json!({}), cancel)? == "frozen")
    }

    fn ask(&self, command: &str, arguments: &Value, cancel: &Cancel) -> Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments }).to_string();
        let said = self.virsh.call(
            &[
                "qemu-agent-command",
                self.machine,
                "--timeout",
                "20",
                &request,
            ],
            cancel,
        )?;
        let mut answer: Value = serde_json::from_str(&said).map_err(|error| {
            Error::corrupt("xtask.lab.agent-words", "the agent answered no JSON").caused_by(error)
        })?;
        Ok(answer["return"].take())
    }
}

fn outcome(command: &str, status: &Value) -> Result<String> {
    let output = text(&status["out-data"])?;
    if status["exitcode"] == 0 {
        return Ok(output.trim().to_owned());
    }
    let complaint = text(&status["err-data"])?;
    let complaint = format!("{output}{complaint}").trim().to_owned();
    Err(Error::new(
        Kind::Io,
        "xtask.lab.command",
        format!(
            "`{command}` failed in the guest (exit code {}): {complaint}",
            status["exitcode"]
        ),
    ))
}

fn text(value: &Value) -> Result<String> {
    let bytes = decode_base64(value.as_str().unwrap_or_default()).ok_or_else(|| {
        Error::corrupt("xtask.lab.agent-words", "the agent's output is not Base64")
    })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Base64 with padding (RFC 4648, section 4); `None` when it is something else.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.trim_end_matches('=');
    if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    let (mut bits, mut width) = (0_u32, 0_u32);
    for digit in digits.bytes() {
        let value = ALPHABET.iter().position(|letter| *letter == digit)?;
        bits = (bits << 6) | u32::try_from(value).ok()?;
        width += 6;
        if width >= 8 {
            width -= 8;
            bytes.push(u8::try_from((bits >> width) & 0xff).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read() {
        assert_eq!(decode_base64("").unwrap(), b"");
        assert_eq!(decode_base64("Zg==").unwrap(), b"f");
        assert_eq!(decode_base64("Zm9vYmE=").unwrap(), b"fooba");
        assert_eq!(decode_base64("Zm9vYmFy").unwrap(), b"foobar");
        for wrong in ["Zg", "Z===", "Zm9v!mFy", "===="] {
            assert!(decode_base64(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn an_exit_code_is_an_error_with_the_complaint() {
        let status = json!({ "exited": true, "exitcode": 2, "err-data": "Zm9vYmFy" });
        assert!(
            outcome("x", &status)
                .err()
                .unwrap()
                .message()
                .contains("foobar")
        );
        let status = json!({ "exited": true, "exitcode": 0, "out-data": "Zm9vYmFy" });
        assert_eq!(outcome("x", &status).unwrap(), "foobar");
    }
}
