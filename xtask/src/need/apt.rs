//! Debian's packages.
//!
//! Knows: dpkg and apt without questions, the backports source of Debian 12, who may install, and
//! how to unpack a package without installing it.
//! Refuses to know: what the packages are for.

use super::Package;
use crate::command::{Run, on_path};
use crate::step::detail;
use base::cancel::Cancel;
use base::{Error, Kind, Result};
use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

const SOURCE_FILE: &str = "/etc/apt/sources.list.d/backstay-backports.sources";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const BACKPORTS: &str = "bookworm-backports";
const APT_DEADLINE: Duration = Duration::from_secs(20 * 60);

/// How this person becomes the administrator for one command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rights {
    /// It is the administrator.
    Root,
    /// By `sudo` without a password.
    Sudo,
    /// By `sudo`, which will ask in the terminal.
    SudoAsks,
}

/// How to become the administrator here; an error when there is no way.
pub fn rights(cancel: &Cancel) -> Result<Rights> {
    if rustix::process::geteuid().is_root() {
        return Ok(Rights::Root);
    }
    let denied = |why: &str| {
        Error::new(
            Kind::Denied,
            "xtask.need.rights",
            format!("root is needed, and {why}"),
        )
        .hint("run the same command as root, or let your user use sudo")
    };
    if !on_path("sudo") {
        return Err(denied("this is neither root nor a machine with sudo"));
    }
    if Run::new("sudo")
        .args(["-n", "true"])
        .try_capture(cancel)?
        .status
        .success()
    {
        return Ok(Rights::Sudo);
    }
    if std::io::stdin().is_terminal() {
        return Ok(Rights::SudoAsks);
    }
    Err(denied("sudo wants a password that nobody is here to type"))
}

/// Installs those of the packages that are missing.
pub fn install(wanted: &[&Package], cancel: &Cancel) -> Result<()> {
    if !on_path("dpkg-query") || !on_path("apt-get") {
        return Err(not_debian(wanted));
    }
    let mut missing = Vec::new();
    for package in wanted {
        if !is_installed(package.name, cancel)? {
            missing.push(*package);
        }
    }
    if missing.is_empty() {
        detail(format!("all {} packages are there", wanted.len()));
        return Ok(());
    }
    for package in &missing {
        detail(format!("{}: {}", package.name, package.reason));
    }
    let rights = rights(cancel)?;
    let backports = release() == "bookworm";
    apt(rights, &["update"], cancel)?;
    if backports
        && missing.iter().any(|package| package.backports)
        && add_backports(rights, cancel)?
    {
        apt(rights, &["update"], cancel)?;
    }
    let (newer, stable): (Vec<_>, Vec<_>) = missing
        .iter()
        .partition(|package| package.backports && backports);
    install_from(rights, &stable, None, cancel)?;
    install_from(rights, &newer, Some(BACKPORTS), cancel)
}

fn install_from(
    rights: Rights,
    packages: &[&Package],
    suite: Option<&str>,
    cancel: &Cancel,
) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let mut arguments = vec!["install", "-y", "--no-install-recommends"];
    if let Some(suite) = suite {
        arguments.extend(["-t", suite]);
    }
    arguments.extend(packages.iter().map(|package| package.name));
    apt(rights, &arguments, cancel)
}

fn is_installed(name: &str, cancel: &Cancel) -> Result<bool> {
    let said = Run::new("dpkg-query")
        .args(["-W", "-f=${db:Status-Status}", name])
        .try_capture(cancel)?;
    Ok(said.status.success() && said.text() == "installed")
}

/// The code name of this Debian or its relative; empty when the system does not say.
fn release() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    code_name(&text)
}

fn code_name(os_release: &str) -> String {
    let line = os_release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    line.unwrap_or_default().trim_matches('"').to_owned()
}

/// Adds the backports suite as its own file, from the mirror that this machine already uses (its
/// lists must have been fetched). Whether that was needed.
fn add_backports(rights: Rights, cancel: &Cancel) -> Result<bool> {
    let policy = Run::new("apt-cache").arg("policy").capture(cancel)?.text();
    if policy.contains(&format!("n={BACKPORTS}")) || Path::new(SOURCE_FILE).exists() {
        return Ok(false);
    }
    detail(format!("adding {BACKPORTS} in {SOURCE_FILE}"));
    let mirror = mirror(&policy).ok_or_else(|| {
        Error::new(
            Kind::NotFound,
            "xtask.need.no-mirror",
            "this machine has no source of Debian packages to take the backports from",
        )
        .hint(format!(
            "add one for {BACKPORTS} to apt's sources and try again"
        ))
    })?;
    let text = source_entry(mirror, Path::new(KEYRING).exists());
    let draft = std::env::temp_dir().join(format!("backstay-backports.{}", std::process::id()));
    std::fs::write(&draft, text)
        .map_err(|error| Error::io(format!("writing {}", draft.display()), error))?;
    let draft_text = draft.to_string_lossy().into_owned();
    let placed = as_root(rights, "install")
        .args(["-m", "0644", &draft_text, SOURCE_FILE])
        .show(cancel);
    let _ = std::fs::remove_file(&draft);
    placed.map(|()| true)
}

/// The mirror of the stable suite in what `apt-cache policy` prints.
fn mirror(policy: &str) -> Option<&str> {
    policy
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (_priority, address, suite) = (words.next()?, words.next()?, words.next()?);
            (suite == "bookworm/main" && address.contains("://")).then_some(address)
        })
        .next()
}

fn source_entry(mirror: &str, keyring: bool) -> String {
    let signed = if keyring {
        format!("Signed-By: {KEYRING}\n")
    } else {
        String::new()
    };
    format!("Types: deb\nURIs: {mirror}\nSuites: {BACKPORTS}\nComponents: main\n{signed}")
}

/// Asks the mirrors for their lists of packages.
pub fn update(cancel: &Cancel) -> Result<()> {
    apt(rights(cancel)?, &["update"], cancel)
}

/// Runs this very program again as the administrator, with these arguments.
pub fn again_as_root(arguments: &[&str], cancel: &Cancel) -> Result<()> {
    let program = std::env::current_exe().map_err(|error| Error::io("finding ourselves", error))?;
    let kept = ["PATH", "BACKSTAY_LAB", "TERM"]
        .into_iter()
        .filter_map(|name| {
            let value = std::env::var_os(name)?;
            Some(format!("{name}={}", value.to_string_lossy()))
        });
    as_root(rights(cancel)?, "env")
        .args(kept)
        .arg(program)
        .args(arguments)
        .show(cancel)
}

fn as_root(rights: Rights, program: &str) -> Run {
    match rights {
        Rights::Root => Run::new(program),
        Rights::Sudo => Run::new("sudo").args(["-n", "--", program]),
        Rights::SudoAsks => Run::new("sudo").args(["--", program]).interactive(),
    }
}

fn apt(rights: Rights, arguments: &[&str], cancel: &Cancel) -> Result<()> {
    as_root(rights, "env")
        .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"])
        .args(["-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0"])
        .args(arguments)
        .deadline(APT_DEADLINE)
        .hint("see the messages of apt-get above; a mirror that does not answer is the usual cause")
        .show(cancel)
}

fn not_debian(wanted: &[&Package]) -> Error {
    let names: Vec<_> = wanted.iter().map(|package| package.name).collect();
    Error::new(
        Kind::Unsupported,
        "xtask.need.not-debian",
        "this machine has no apt, so nothing can be installed for you",
    )
    .hint(format!(
        "install the equivalents of {} and repeat with --no-install",
        names.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_s_own_mirror_is_used() {
        let policy = "Package files:\n 100 /var/lib/dpkg/status\n     release a=now\n \
                      500 http://mirror.example/debian bookworm/main amd64 Packages\n";
        assert_eq!(mirror(policy), Some("http://mirror.example/debian"));
        assert_eq!(mirror(""), None);
        let entry = source_entry("http://mirror.example/debian", true);
        assert!(entry.contains("Suites: bookworm-backports\n"), "{entry}");
        assert!(
            entry.contains("URIs: http://mirror.example/debian\n"),
            "{entry}"
        );
    }

    #[test]
    fn code_names_are_read_with_and_without_quotes() {
        assert_eq!(
            code_name("ID=debian\nVERSION_CODENAME=bookworm\n"),
            "bookworm"
        );
        assert_eq!(code_name("VERSION_CODENAME=\"noble\"\n"), "noble");
        assert_eq!(code_name("ID=arch\n"), "");
    }
}
