//! The folders in which QEMU keeps scratch files and listens.
//!
//! Knows: one folder for each run, named by its token, on this machine or, through `ssh`, on another; and
//! who must be able to write in it. Refuses to know: what libvirt puts there.

use super::Options;
use super::address::{Instance, Remote};
use super::connection::Connection;
use super::transport::ssh_command;
use super::xml::{child, child_text, children, parse};
use crate::contract::Token;
use base::size::{ByteCount, KIB};
use base::{Error, Kind, Result};
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// The name of the socket in a run's folder.
const SOCKET: &str = "nbd.sock";
/// The longest path of a Unix socket.
const SOCKET_PATH_MAX: usize = 107;
/// The most that a remote command says.
const OUTPUT_MAX: u64 = 4 * 1024 * 1024;
/// QEMU's user and group must write here; members of the group (the mover) must connect.
const MODE: u32 = 0o770;

/// The folder of scratch files of one libvirt.
pub struct Scratch<'a> {
    base: &'a Path,
    remote: Option<&'a Remote>,
    instance: Instance,
}

impl<'a> Scratch<'a> {
    /// That of these options.
    pub fn new(options: &'a Options) -> Result<Self> {
        let base = options.scratch.as_path();
        // It stands in XML and in a remote shell's command: plain names only.
        let plain = base.to_str().is_some_and(|text| {
            text.starts_with('/')
                && text
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c))
                && !text.split('/').any(|name| name == "..")
        });
        if !plain || base == Path::new("/") {
            return Err(Error::invalid(
                "platform.libvirt.scratch-malformed",
                format!(
                    "\u{201c}{}\u{201d} cannot be the folder of scratch files",
                    base.display()
                ),
            )
            .hint("give an absolute path of letters, digits, dots, dashes and underscores"));
        }
        let Options { address, .. } = options;
        Ok(Self {
            base,
            remote: address.remote.as_ref(),
            instance: address.instance,
        })
    }

    /// The folder of a run.
    pub fn folder(&self, token: &Token) -> PathBuf {
        self.base.join(token.as_str())
    }

    /// The socket of a run.
    pub fn socket(&self, token: &Token) -> Result<PathBuf> {
        let socket = self.folder(token).join(SOCKET);
        let length = socket.as_os_str().len();
        if length > SOCKET_PATH_MAX {
            return Err(Error::new(
                Kind::Limit,
                "platform.libvirt.scratch-too-long",
                format!(
                    "the socket {} would have a path of {length} bytes",
                    socket.display()
                ),
            )
            .hint("choose a folder of scratch files with a shorter path"));
        }
        Ok(socket)
    }

    /// Makes the folder of a run. One that is there already is emptied: it is from an earlier attempt.
    pub fn make(&self, token: &Token, connection: &Connection) -> Result<()> {
        self.remove(token)?;
        let owner = self.owner(connection)?;
        match self.remote {
            None => self.make_here(token, owner),
            Some(remote) => self.make_there(remote, token, owner),
        }
    }

    fn make_here(&self, token: &Token, owner: Option<(u32, u32)>) -> Result<()> {
        let folder = self.folder(token);
        let doing = |path: &Path| format!("making the scratch folder {}", path.display());
        let made = || -> std::io::Result<()> {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o711)
                .create(self.base)?;
            std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
            // Ours as it is made where QEMU runs as the same user; its group is then the site's choice.
            if let Some((user, group)) = owner
                && std::fs::metadata(&folder)?.uid() != user
            {
                std::os::unix::fs::chown(&folder, Some(user), Some(group))?;
            }
            // Set last and explicitly: the umask must not decide.
            std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(MODE))
        };
        made().map_err(|error| {
            Error::io(doing(&folder), error).hint(
                "run as root, or choose a folder of scratch files in which this user and QEMU's may write",
            )
        })
    }

    fn make_there(&self, remote: &Remote, token: &Token, owner: Option<(u32, u32)>) -> Result<()> {
        let base = self.base.display();
        let owner = owner
            .map(|(user, group)| format!("-o {user} -g {group}"))
            .unwrap_or_default();
        let script = format!("mkdir -p {base} && install -d -m {MODE:o} {owner} {base}/{token}");
        run(remote, &script).map(drop)
    }

    /// Who must own a run's folder; `None` is whoever makes it.
    fn owner(&self, connection: &Connection) -> Result<Option<(u32, u32)>> {
        if self.instance == Instance::Session {
            return Ok(connection.peer());
        }
        let xml = connection
            .capabilities()
            .map_err(|failure| failure.into_error("the host", "asking who runs QEMU"))?;
        dac_label(&xml)
    }

    /// Removes the folder of a run with all in it. One that is not there is no error.
    pub fn remove(&self, token: &Token) -> Result<bool> {
        let folder = self.folder(token);
        match self.remote {
            None => match std::fs::remove_dir_all(&folder) {
                Ok(()) => Ok(true),
                Err(error) if is_absent(&error) => Ok(false),
                Err(error) => Err(Error::io(format!("removing {}", folder.display()), error)),
            },
            Some(remote) => {
                let folder = folder.display();
                let script =
                    format!("if [ -d {folder} ]; then rm -rf -- {folder} && echo removed; fi");
                Ok(run(remote, &script)?.contains("removed"))
            }
        }
    }

    /// How much space a run takes and how much is left; `None` where it has no folder.
    pub fn space(&self, token: &Token) -> Result<Option<(ByteCount, ByteCount)>> {
        let folder = self.folder(token);
        match self.remote {
            None => {
                let looking = |error| Error::io(format!("measuring {}", folder.display()), error);
                let entries = match std::fs::read_dir(&folder) {
                    Err(error) if is_absent(&error) => return Ok(None),
                    entries => entries.map_err(looking)?,
                };
                // A file may go while it is counted.
                let blocks = entries.flatten().filter_map(|entry| entry.metadata().ok());
                let used = blocks.map(|metadata| metadata.blocks() * 512).sum();
                let system = rustix::fs::statvfs(&folder).map_err(|error| looking(error.into()))?;
                let free = system.f_bavail.saturating_mul(system.f_frsize);
                Ok(Some((ByteCount(used), ByteCount(free))))
            }
            Some(remote) => {
                let folder = folder.display();
                let script = format!(
                    "if [ -d {folder} ]; then du -sk {folder} && df -Pk {folder} | tail -n 1; fi"
                );
                Ok(read_space(&run(remote, &script)?))
            }
        }
    }

    /// The runs that have a folder.
    pub fn list(&self) -> Result<Vec<Token>> {
        let mut tokens: Vec<Token> = match self.remote {
            None => match std::fs::read_dir(self.base) {
                Ok(entries) => entries
                    .flatten()
                    .filter_map(|entry| Token::recognise(entry.file_name().to_str()?))
                    .collect(),
                Err(error) if is_absent(&error) => Vec::new(),
                Err(error) => {
                    return Err(Error::io(format!("listing {}", self.base.display()), error));
                }
            },
            Some(remote) => {
                let base = self.base.display();
                let names = run(remote, &format!("if [ -d {base} ]; then ls -1 {base}; fi"))?;
                names.lines().filter_map(Token::recognise).collect()
            }
        };
        tokens.sort();
        Ok(tokens)
    }
}

/// What `du -sk` and the last line of `df -Pk` say.
fn read_space(said: &str) -> Option<(ByteCount, ByteCount)> {
    let mut lines = said.lines();
    let mut number = |place: usize| -> Option<ByteCount> {
        let kibibytes: u64 = lines.next()?.split_whitespace().nth(place)?.parse().ok()?;
        Some(ByteCount(kibibytes.saturating_mul(KIB)))
    };
    Some((number(0)?, number(3)?))
}

fn is_absent(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
}

/// User and group of QEMU, from the host's capabilities; `None` where libvirt changes no owners.
pub(super) fn dac_label(capabilities: &str) -> Result<Option<(u32, u32)>> {
    let document = parse("the host's capabilities", capabilities)?;
    let Some(host) = child(document.root_element(), "host") else {
        return Ok(None);
    };
    let label = children(host, "secmodel")
        .filter(|model| child_text(*model, "model").as_deref() == Some("dac"))
        .flat_map(|model| model.children())
        .filter(|label| label.attribute("type") == Some("qemu"))
        .find_map(|label| label.text().map(str::to_owned));
    Ok(label.and_then(|label| {
        let (user, group) = label.split_once(':')?;
        let number = |text: &str| text.strip_prefix('+').unwrap_or(text).parse().ok();
        Some((number(user)?, number(group)?))
    }))
}

/// Runs a fixed script of plain words on a remote host and gives back what it said.
fn run(remote: &Remote, script: &str) -> Result<String> {
    let failed = |message: String| {
        Error::new(Kind::Unreachable, "platform.libvirt.ssh-failed", message)
            .hint("try the same by hand: ssh to that host as that user")
    };
    let mut child = ssh_command(remote)
        .arg(script)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| {
            failed(format!(
                "starting \u{201c}{}\u{201d} failed",
                remote.program
            ))
            .caused_by(error)
        })?;
    let mut said = String::new();
    let mut complained = String::new();
    // What does not fit is left unread; the command then ends by itself or by the closed pipe.
    let read = child
        .stdout
        .take()
        .map_or(Ok(0), |output| {
            output.take(OUTPUT_MAX).read_to_string(&mut said)
        })
        .and_then(|_| {
            child.stderr.take().map_or(Ok(0), |output| {
                output.take(OUTPUT_MAX).read_to_string(&mut complained)
            })
        });
    let status = child.wait();
    match (read, status) {
        (Ok(_), Ok(status)) if status.success() => Ok(said),
        _ => Err(failed(format!(
            "a command on {} failed: {}",
            remote.host,
            complained.trim()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemu_s_user_is_read_from_the_capabilities() {
        let capabilities = "<capabilities><host><secmodel><model>none</model></secmodel>\
            <secmodel><model>dac</model><doi>0</doi>\
            <baselabel type='kvm'>+1:+2</baselabel><baselabel type='qemu'>+64055:+994</baselabel>\
            </secmodel></host></capabilities>";
        assert_eq!(dac_label(capabilities).unwrap(), Some((64_055, 994)));
        for nothing in ["<capabilities/>", "<capabilities><host/></capabilities>"] {
            assert_eq!(dac_label(nothing).unwrap(), None);
        }
        let nonsense = capabilities.replace("+64055:+994", "-1");
        assert_eq!(dac_label(&nonsense).unwrap(), None);
        assert!(dac_label("no xml").is_err());
    }

    #[test]
    fn folders_that_a_shell_would_misread_are_refused() {
        for folder in ["relative", "/", "/a b", "/a;b", "/a/../b", "/a'b", "/$(x)"] {
            let options = Options {
                address: super::super::Address::local(),
                scratch: folder.into(),
            };
            assert!(Scratch::new(&options).is_err(), "{folder}");
        }
    }

    #[test]
    fn remote_space_is_read() {
        let said = "196\t/s/backstay\n/dev/vda 100 20 80 20% /\n";
        assert_eq!(
            read_space(said),
            Some((ByteCount(196 * KIB), ByteCount(80 * KIB)))
        );
        for nonsense in ["", "x", "196\t/s\n", "196\n/dev/vda a b c"] {
            assert_eq!(read_space(nonsense), None);
        }
    }
}
