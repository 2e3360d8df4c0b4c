//! The XML of backups and checkpoints.
//!
//! Knows: how a pull-mode backup is asked for, and how to recognise one's own while it runs.
//! Refuses to know: which disks may be incremental; `backup` decides.

use super::xml::{child, child_attribute, child_text, children, escape, parse};
use crate::contract::Token;
use base::Result;
use std::fmt::Write as _;
use std::path::{Component, Path};

/// One disk of a backup to be asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskPart<'a> {
    /// Its target name, also the name of its export.
    pub target: &'a str,
    /// The checkpoint since which changes are wanted.
    pub since: Option<&'a Token>,
    /// Whether the new checkpoint covers it.
    pub track: bool,
}

/// The name of the exported bitmap of a disk.
pub fn export_bitmap(target: &str) -> String {
    format!("backup-{target}")
}

/// A pull-mode backup of these disks, served at a Unix socket in `folder`.
pub fn backup(disks: &[DiskPart<'_>], folder: &Path, socket: &Path) -> String {
    let mut xml = format!(
        "<domainbackup mode='pull'>\n  <server transport='unix' socket='{}'/>\n  <disks>\n",
        escape(&socket.display().to_string())
    );
    for disk in disks {
        let target = escape(disk.target);
        // Per-disk modes always: one for all fails where any disk lacks that checkpoint.
        let mode = match disk.since {
            Some(since) => format!(
                "backupmode='incremental' incremental='{}' exportbitmap='{}'",
                escape(since.as_str()),
                escape(&export_bitmap(disk.target))
            ),
            None => "backupmode='full'".to_owned(),
        };
        let scratch = escape(
            &folder
                .join(format!("{}.scratch", disk.target))
                .display()
                .to_string(),
        );
        // Writing to a String cannot fail.
        let _ = write!(
            xml,
            "    <disk name='{target}' backup='yes' type='file' exportname='{target}' {mode}>\n      \
             <driver type='qcow2'/>\n      <scratch file='{scratch}'/>\n    </disk>\n"
        );
    }
    xml.push_str("  </disks>\n</domainbackup>\n");
    xml
}

/// A checkpoint of the disks that are to be tracked; `None` where there is no such disk. Disks are
/// listed one by one: without a list, one disk that cannot be tracked makes all fail.
pub fn checkpoint(disks: &[DiskPart<'_>], token: &Token) -> Option<String> {
    let mut tracked = disks.iter().filter(|disk| disk.track).peekable();
    tracked.peek()?;
    let mut xml = format!(
        "<domaincheckpoint>\n  <name>{}</name>\n  <description>Backstay</description>\n  <disks>\n",
        escape(token.as_str())
    );
    for disk in tracked {
        let _ = writeln!(
            xml,
            "    <disk name='{}' checkpoint='bitmap'/>",
            escape(disk.target)
        );
    }
    xml.push_str("  </disks>\n</domaincheckpoint>\n");
    Some(xml)
}

/// The record of a checkpoint as if it covered one disk only.
pub fn checkpoint_of_disk(checkpoint: &CheckpointXml, disk: &str) -> String {
    let (name, disk) = (escape(&checkpoint.name), escape(disk));
    format!(
        "<domaincheckpoint><name>{name}</name><creationTime>{}</creationTime><disks>\
         <disk name='{disk}' checkpoint='bitmap' bitmap='{name}'/></disks></domaincheckpoint>",
        checkpoint.created.unwrap_or(0)
    )
}

/// A running backup as libvirt describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunningXml {
    /// Whose it is, if it is Backstay's: its socket lies in a folder named by the token.
    pub token: Option<Token>,
    /// What it is, for people.
    pub description: String,
}

/// Reads the XML of a running backup.
pub fn read_running(text: &str) -> Result<RunningXml> {
    let document = parse("a running backup", text)?;
    let root = document.root_element();
    let socket = child_attribute(root, "server", "socket");
    let token = socket.as_deref().and_then(|socket| {
        Path::new(socket)
            .components()
            .find_map(|component| match component {
                Component::Normal(name) => Token::recognise(name.to_str()?),
                _ => None,
            })
    });
    let mode = root.attribute("mode").unwrap_or("push");
    let description = match &token {
        Some(token) => format!("a backup of Backstay runs ({token})"),
        None => format!("a {mode}-mode backup of another program runs"),
    };
    Ok(RunningXml { token, description })
}

/// A checkpoint as libvirt describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckpointXml {
    /// Its name.
    pub name: String,
    /// Its parent's name.
    pub parent: Option<String>,
    /// When it was made, in seconds since 1970.
    pub created: Option<i64>,
    /// The disks it has bitmaps on.
    pub disks: Vec<String>,
}

/// Reads the XML of a checkpoint.
pub fn read_checkpoint(text: &str) -> Result<CheckpointXml> {
    let document = parse("a checkpoint", text)?;
    let root = document.root_element();
    let disks = child(root, "disks")
        .iter()
        .flat_map(|disks| children(*disks, "disk"))
        .filter(|disk| disk.attribute("checkpoint") == Some("bitmap"))
        .filter_map(|disk| disk.attribute("name").map(str::to_owned))
        .collect();
    Ok(CheckpointXml {
        name: child_text(root, "name").unwrap_or_default(),
        parent: child(root, "parent").and_then(|parent| child_text(parent, "name")),
        created: child_text(root, "creationTime").and_then(|text| text.parse().ok()),
        disks,
    })
}

/// A checkpoint's XML without the mention of its parent, for a machine that has not got the parent.
pub fn without_parent(text: &str) -> Result<String> {
    let document = parse("a checkpoint", text)?;
    Ok(match child(document.root_element(), "parent") {
        Some(parent) => {
            let range = parent.range();
            format!("{}{}", &text[..range.start], &text[range.end..])
        }
        None => text.to_owned(),
    })
}
