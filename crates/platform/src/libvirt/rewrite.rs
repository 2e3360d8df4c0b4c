//! A machine's XML, changed for a restore.
//!
//! Knows: which parts tie a definition to its old name, host and disks, and how to change just these:
//! every byte that need not change stays as libvirt wrote it.
//! Refuses to know: whether the result can be defined; libvirt decides.

mod edit;

use super::domain_xml;
use super::hold::NAME_SPACE;
use super::xml::{child, child_attribute, child_text, children, parse};
use crate::contract::{Addresses, DiskPlacement, Identity, Networks, ProvisionOptions};
use base::limit::NAME_LENGTH_MAX;
use base::{Error, Result};
use edit::Edits;
use roxmltree::Node;

/// The changed XML and what a person should know about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rewritten {
    /// The XML.
    pub xml: String,
    /// What differs and was not asked for.
    pub warnings: Vec<String>,
}

/// Changes a definition as the options ask.
///
/// # Errors
/// Kind `Invalid` where the XML is no machine, or an option does not fit it.
pub fn rewrite(text: &str, options: &ProvisionOptions) -> Result<Rewritten> {
    let before = domain_xml::read(text)?;
    check_options(options)?;
    let document = parse("a machine", text)?;
    let domain = document.root_element();
    let mut rewriter = Rewriter {
        edits: Edits::new(text),
        options,
        name: options.name.clone().unwrap_or(before.name),
        warnings: Vec::new(),
    };
    rewriter.identity(domain)?;
    rewriter.firmware(domain);
    remove_mark(&mut rewriter.edits, domain);
    let devices = child(domain, "devices")
        .ok_or_else(|| Error::invalid("platform.xml.incomplete", "the machine has no devices"))?;
    rewriter.disks(devices)?;
    rewriter.interfaces(devices);
    rewriter.host_devices(devices);
    let Rewriter {
        edits, warnings, ..
    } = rewriter;
    let xml = edits.apply()?;
    // What goes to libvirt must at least read back as a machine.
    domain_xml::read(&xml)?;
    Ok(Rewritten { xml, warnings })
}

/// A definition without the mark of a machine that is held for its backup: the machine itself was never
/// marked, and a restored one must not be.
pub fn without_mark(text: &str) -> Result<String> {
    let document = parse("a machine", text)?;
    let mut edits = Edits::new(text);
    remove_mark(&mut edits, document.root_element());
    edits.apply()
}

fn remove_mark(edits: &mut Edits<'_>, domain: Node<'_, '_>) {
    let Some(metadata) = child(domain, "metadata") else {
        return;
    };
    let ours = |element: &Node<'_, '_>| element.tag_name().namespace() == Some(NAME_SPACE);
    let (marks, others): (Vec<_>, Vec<_>) =
        metadata.children().filter(Node::is_element).partition(ours);
    if others.is_empty() && !marks.is_empty() {
        edits.remove(metadata);
    }
    for mark in marks {
        edits.remove(mark);
    }
}

fn check_options(options: &ProvisionOptions) -> Result<()> {
    let bad = |what: String| Error::invalid("platform.provision.option-malformed", what);
    if let Some(name) = &options.name {
        let fits = !name.trim().is_empty()
            && name.len() <= NAME_LENGTH_MAX
            && !name.contains('/')
            && !name.chars().any(char::is_control);
        if !fits {
            return Err(bad(format!(
                "\u{201c}{name}\u{201d} cannot be the name of a machine"
            )));
        }
    }
    for disk in &options.disks {
        if !disk.path.starts_with('/') {
            return Err(bad(format!(
                "the path {} of {} is not absolute",
                disk.path, disk.target
            )));
        }
        if !disk.format.chars().all(|c| c.is_ascii_alphanumeric()) || disk.format.is_empty() {
            return Err(bad(format!(
                "\u{201c}{}\u{201d} is no image format",
                disk.format
            )));
        }
    }
    Ok(())
}

struct Rewriter<'a> {
    edits: Edits<'a>,
    options: &'a ProvisionOptions,
    /// The name that the machine will have.
    name: String,
    warnings: Vec<String>,
}

impl Rewriter<'_> {
    fn is_new(&self) -> bool {
        matches!(self.options.identity, Identity::New(_))
    }

    fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }

    fn identity(&mut self, domain: Node<'_, '_>) -> Result<()> {
        if let Some(name) = child(domain, "name") {
            self.edits.set_text(name, &self.name);
        }
        // The number of the running machine means nothing elsewhere.
        self.edits.remove_attribute(domain, "id");
        // A guest that asks must see that it was put back in time, whatever its identity.
        if let Some(genid) = child(domain, "genid") {
            self.edits.replace(genid, "<genid/>");
        }
        let Identity::New(uuid) = self.options.identity else {
            return Ok(());
        };
        let uuid = uuid.to_string();
        match child(domain, "uuid") {
            Some(element) => self.edits.set_text(element, &uuid),
            None => self
                .edits
                .insert_child(domain, &format!("<uuid>{uuid}</uuid>"))?,
        }
        // libvirt refuses a machine whose BIOS tables give another UUID.
        let entries = children(domain, "sysinfo")
            .flat_map(|sysinfo| sysinfo.descendants())
            .filter(|entry| entry.has_tag_name("entry") && entry.attribute("name") == Some("uuid"));
        for entry in entries {
            self.edits.set_text(entry, &uuid);
        }
        Ok(())
    }

    fn firmware(&mut self, domain: Node<'_, '_>) {
        let Some(os) = child(domain, "os") else {
            return;
        };
        if let Some(nvram) = child(os, "nvram") {
            match &self.options.nvram {
                Some(path) => self.edits.set_text(nvram, path),
                // libvirt chooses a path by the machine's name and fills it from its template.
                None => {
                    self.edits.remove(nvram);
                    self.warn("the machine begins with fresh firmware settings (NVRAM)");
                }
            }
        }
        if child_text(os, "kernel").is_some() {
            self.warn(
                "the machine boots a kernel from the host, which must lie at the same path there",
            );
        }
    }

    fn disks(&mut self, devices: Node<'_, '_>) -> Result<()> {
        let mut placed = 0;
        for disk in children(devices, "disk") {
            let target = child_attribute(disk, "target", "dev").unwrap_or_default();
            match disk.attribute("device").unwrap_or("disk") {
                "disk" | "lun" => {
                    let placement = self
                        .options
                        .disks
                        .iter()
                        .find(|placement| placement.target == target);
                    if let Some(placement) = placement {
                        placed += 1;
                        self.place_disk(disk, placement)?;
                    } else {
                        self.edits.remove(disk);
                        self.warn(format!("the disk {target} is left out"));
                    }
                }
                // A medium that is not there must not keep the machine from starting.
                _ => {
                    if disk.attribute("type") == Some("file") {
                        if let Some(source) = child(disk, "source") {
                            self.edits
                                .set_attribute(source, "startupPolicy", "optional");
                        }
                    } else if let Some(source) = child(disk, "source") {
                        self.edits.remove(source);
                        self.warn(format!("the medium in {target} is taken out"));
                    }
                }
            }
        }
        if placed != self.options.disks.len() {
            let known = |target: &str| {
                children(devices, "disk")
                    .any(|disk| child_attribute(disk, "target", "dev").as_deref() == Some(target))
            };
            let missing = self.options.disks.iter().find(|disk| !known(&disk.target));
            return Err(Error::invalid(
                "platform.provision.disk-unknown",
                match missing {
                    Some(disk) => {
                        format!("the saved machine has no disk {}", disk.target)
                    }
                    None => "a disk is to be placed twice or is no hard disk".to_owned(),
                },
            ));
        }
        Ok(())
    }

    fn place_disk(&mut self, disk: Node<'_, '_>, placement: &DiskPlacement) -> Result<()> {
        let (kind, attribute) = if placement.path.starts_with("/dev/") {
            ("block", "dev")
        } else {
            ("file", "file")
        };
        self.edits.set_attribute(disk, "type", kind);
        self.edits.set_attribute(disk, "device", "disk");
        let source = format!(
            "<source {attribute}='{}'/>",
            super::xml::escape(&placement.path)
        );
        match child(disk, "source") {
            Some(element) => self.edits.replace(element, &source),
            None => self.edits.insert_child(disk, &source)?,
        }
        match child(disk, "driver") {
            Some(driver) => {
                self.edits.set_attribute(driver, "type", &placement.format);
                if placement.format != "qcow2" {
                    for cache in children(driver, "metadata_cache") {
                        self.edits.remove(cache);
                    }
                }
            }
            None => self.edits.insert_child(
                disk,
                &format!("<driver name='qemu' type='{}'/>", placement.format),
            )?,
        }
        // What described the old image: its chain, a copy in progress, its keys.
        for name in ["backingStore", "mirror", "auth", "encryption"] {
            for element in children(disk, name) {
                self.edits.remove(element);
            }
        }
        let old = child(disk, "source");
        let encrypted = child(disk, "encryption").is_some()
            || old.is_some_and(|source| child(source, "encryption").is_some());
        if encrypted {
            self.warn(format!(
                "the disk {} was encrypted on its host; it is restored without that encryption",
                placement.target
            ));
        }
        Ok(())
    }

    fn interfaces(&mut self, devices: Node<'_, '_>) {
        for interface in children(devices, "interface") {
            if self.options.networks == Networks::Remove {
                self.edits.remove(interface);
                continue;
            }
            // The name of the device on the old host.
            if let Some(target) = child(interface, "target") {
                self.edits.remove(target);
            }
            // A network's port belongs to the running machine.
            if let Some(source) = child(interface, "source") {
                self.edits.remove_attribute(source, "portid");
            }
            if self.options.addresses == Addresses::Renew {
                for mac in children(interface, "mac") {
                    self.edits.remove(mac);
                }
            }
            match &self.options.networks {
                Networks::Disconnected => match child(interface, "link") {
                    Some(link) => self.edits.set_attribute(link, "state", "down"),
                    // Interfaces always have children; where not, there is nothing to unplug.
                    None => drop(self.edits.insert_child(interface, "<link state='down'/>")),
                },
                Networks::Map(names) => self.map_network(interface, names),
                Networks::Keep | Networks::Remove => {}
            }
        }
    }

    fn map_network(&mut self, interface: Node<'_, '_>, names: &[(String, String)]) {
        let Some(source) = child(interface, "source") else {
            return;
        };
        for attribute in ["network", "bridge", "dev"] {
            let Some(old) = source.attribute(attribute) else {
                continue;
            };
            if let Some((_, new)) = names.iter().find(|(from, _)| from == old) {
                self.edits.set_attribute(source, attribute, new);
            }
        }
    }

    /// What only one machine of the host can have at a time.
    fn host_devices(&mut self, devices: Node<'_, '_>) {
        for channel in children(devices, "channel") {
            // libvirt chooses the path of the agent's socket by the machine's name.
            if channel.attribute("type") == Some("unix")
                && let Some(source) = child(channel, "source")
            {
                self.edits.remove(source);
            }
        }
        if !self.is_new() {
            return;
        }
        for graphics in children(devices, "graphics") {
            if graphics.attribute("autoport") == Some("no") {
                self.edits.set_attribute(graphics, "autoport", "yes");
                self.edits.remove_attribute(graphics, "port");
                self.edits.remove_attribute(graphics, "tlsPort");
                self.edits.remove_attribute(graphics, "websocket");
                self.warn("the display gets a free port instead of its fixed one");
            }
        }
        for name in ["serial", "console", "parallel"] {
            for port in children(devices, name) {
                let Some(source) = child(port, "source") else {
                    continue;
                };
                let Some(path) = source.attribute("path") else {
                    continue;
                };
                if matches!(port.attribute("type"), Some("file" | "unix" | "pipe")) {
                    let path = format!("{path}.{}", self.name.replace(' ', "_"));
                    self.edits.set_attribute(source, "path", &path);
                    if name == "serial" {
                        self.warn(format!("the serial port goes to {path}"));
                    }
                }
            }
        }
        for device in children(devices, "hostdev") {
            self.edits.remove(device);
            self.warn("a device of the host that was passed through is left out");
        }
        if children(devices, "tpm").next().is_some() {
            self.warn("the machine begins with an empty TPM");
        }
    }
}
