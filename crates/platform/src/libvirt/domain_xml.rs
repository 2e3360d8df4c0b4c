//! What libvirt's XML says about a machine.
//!
//! Knows: where in the XML name, UUID, disks, agent channel and the files beside the disks stand.
//! Refuses to know: how to change it; that is `rewrite`.

use super::xml::{child, child_attribute, child_text, children, parse};
use crate::contract::{AgentPresence, Trackable};
use base::limit::DISKS_PER_MACHINE_MAX;
use base::{Error, Result};
use roxmltree::Node;

/// The name of the channel that the guest agent of QEMU listens on.
pub const AGENT_CHANNEL: &str = "org.qemu.guest_agent.0";

/// A machine as its XML describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DomainXml {
    /// Its name.
    pub name: String,
    /// Its UUID, as written.
    pub uuid: String,
    /// Its writable hard disks, in the order of the XML.
    pub disks: Vec<DiskXml>,
    /// Whether it has an agent channel and whether somebody is connected to it.
    pub agent: AgentPresence,
    /// The path of its NVRAM.
    pub nvram: Option<String>,
    /// Paths of a kernel and an initial RAM disk that it boots from directly.
    pub boot_files: Vec<(&'static str, String)>,
    /// Whether it has an emulated TPM.
    pub tpm: bool,
}

/// A disk as the XML describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskXml {
    /// Its target name.
    pub target: String,
    /// Where it lies, for people and for comparing.
    pub source: String,
    /// Its path, where it is a file or block device.
    pub path: Option<String>,
    /// Its format.
    pub format: Option<String>,
    /// Whether libvirt can keep checkpoints of it.
    pub trackable: Trackable,
}

/// Reads a machine's XML.
///
/// # Errors
/// Kind `Invalid` where it is not XML, or lacks what every machine has.
pub fn read(text: &str) -> Result<DomainXml> {
    let document = parse("a machine", text)?;
    let domain = document.root_element();
    if domain.tag_name().name() != "domain" {
        return Err(incomplete("it is not a <domain>"));
    }
    let name = child_text(domain, "name").ok_or_else(|| incomplete("it has no name"))?;
    let uuid = child_text(domain, "uuid").unwrap_or_default();
    let devices = child(domain, "devices");
    let mut disks = Vec::new();
    for disk in devices
        .iter()
        .flat_map(|devices| children(*devices, "disk"))
    {
        if let Some(disk) = read_disk(disk)? {
            disks.push(disk);
        }
        if disks.len() > DISKS_PER_MACHINE_MAX {
            return Err(incomplete("it has more disks than any machine can have"));
        }
    }
    let os = child(domain, "os");
    let boot_files = [("kernel", "kernel"), ("initrd", "initrd"), ("dtb", "dtb")]
        .into_iter()
        .filter_map(|(element, name)| Some((name, child_text(os?, element)?)))
        .collect();
    Ok(DomainXml {
        name,
        uuid,
        disks,
        agent: devices.map_or(AgentPresence::NoChannel, agent_channel),
        nvram: os.and_then(|os| child_text(os, "nvram")),
        boot_files,
        tpm: devices.is_some_and(|devices| {
            children(devices, "tpm")
                .any(|tpm| child_attribute(tpm, "backend", "type").as_deref() == Some("emulator"))
        }),
    })
}

fn incomplete(why: &str) -> Error {
    Error::invalid(
        "platform.xml.incomplete",
        format!("the XML of a machine makes no sense: {why}"),
    )
}

/// A writable hard disk; `None` for what is none.
fn read_disk(disk: Node<'_, '_>) -> Result<Option<DiskXml>> {
    let device = disk.attribute("device").unwrap_or("disk");
    if device != "disk" || child(disk, "readonly").is_some() {
        return Ok(None);
    }
    let target = child_attribute(disk, "target", "dev")
        .ok_or_else(|| incomplete("a disk has no target name"))?;
    let Some(source) = child(disk, "source") else {
        return Ok(None);
    };
    let kind = disk.attribute("type").unwrap_or("file");
    let path = match kind {
        "file" => source.attribute("file").map(str::to_owned),
        "block" => source.attribute("dev").map(str::to_owned),
        _ => None,
    };
    let source = match (&path, kind) {
        (Some(path), _) => path.clone(),
        (None, "network") => format!(
            "{}:{}",
            source.attribute("protocol").unwrap_or("network"),
            source.attribute("name").unwrap_or_default()
        ),
        (None, "volume") => format!(
            "volume:{}/{}",
            source.attribute("pool").unwrap_or_default(),
            source.attribute("volume").unwrap_or_default()
        ),
        (None, other) => format!("{other}:"),
    };
    let format = child_attribute(disk, "driver", "type");
    let trackable = trackable(disk, format.as_deref());
    Ok(Some(DiskXml {
        target,
        source,
        path,
        format,
        trackable,
    }))
}

fn trackable(disk: Node<'_, '_>, format: Option<&str>) -> Trackable {
    let no = |reason: &str| Trackable::No {
        reason: reason.to_owned(),
    };
    if child(disk, "transient").is_some() {
        return no("the disk forgets all that is written when the machine stops");
    }
    if child(disk, "shareable").is_some() {
        return no("the disk is shared with other machines, whose writes nobody tracks");
    }
    match format {
        Some("qcow2") => Trackable::Yes,
        Some(format) => no(&format!(
            "an image of the format {format} has no place for a map of changes; qcow2 has"
        )),
        None => no("the image's format is not known"),
    }
}

fn agent_channel(devices: Node<'_, '_>) -> AgentPresence {
    for channel in children(devices, "channel") {
        let Some(target) = child(channel, "target") else {
            continue;
        };
        if target.attribute("name") == Some(AGENT_CHANNEL) {
            return match target.attribute("state") {
                Some("connected") => AgentPresence::Connected,
                _ => AgentPresence::Silent,
            };
        }
    }
    AgentPresence::NoChannel
}
