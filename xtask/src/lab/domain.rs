//! The description of a lab machine in libvirt's words.
//!
//! Knows: what a lab guest needs so that it boots under software emulation, can be backed up by
//! its changes, and has room for disks that are plugged in later.
//! Refuses to know: what is on its disks.

use std::path::{Path, PathBuf};

/// Spare places for disks: a machine of type q35 offers only one otherwise.
const SPARE_PORTS: usize = 8;

/// What differs between lab machines.
pub struct Description {
    /// Name of the machine.
    pub name: String,
    /// qcow2 files, in order: vda, vdb, …
    pub disks: Vec<PathBuf>,
    /// Where the serial console is written.
    pub console: PathBuf,
    /// Memory in MiB.
    pub memory_mib: u32,
}

impl Description {
    /// The XML that defines it.
    pub fn xml(&self) -> String {
        let disks: String = self
            .disks
            .iter()
            .zip('a'..='z')
            .map(|(file, letter)| disk(file, letter))
            .collect();
        let ports = "    <controller type='pci' model='pcie-root-port'/>\n".repeat(SPARE_PORTS);
        format!(
            "<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>{memory}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <boot dev='hd'/>
  </os>
  <features><acpi/></features>
  <cpu mode='maximum'/>
  <clock offset='utc'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
{disks}    <controller type='pci' model='pcie-root'/>
{ports}    <controller type='usb' model='none'/>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <serial type='file'><source path='{console}' append='on'/><target port='0'/></serial>
    <memballoon model='none'/>
  </devices>
</domain>
",
            name = escaped(&self.name),
            memory = self.memory_mib,
            console = escaped(&self.console.to_string_lossy()),
        )
    }
}

fn disk(file: &Path, letter: char) -> String {
    format!(
        "    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' discard='unmap'/>
      <source file='{}'/>
      <target dev='vd{letter}' bus='virtio'/>
    </disk>
",
        escaped(&file.to_string_lossy())
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('\'', "&apos;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out_of_the_description() {
        let description = Description {
            name: "a'><b&".to_owned(),
            disks: vec!["/one".into(), "/two".into()],
            console: "/c".into(),
            memory_mib: 256,
        };
        let xml = description.xml();
        assert!(xml.contains("<name>a&apos;&gt;&lt;b&amp;</name>"), "{xml}");
        assert!(
            xml.contains("<source file='/two'/>\n      <target dev='vdb'"),
            "{xml}"
        );
        assert_eq!(xml.matches("pcie-root-port").count(), SPARE_PORTS);
    }
}
