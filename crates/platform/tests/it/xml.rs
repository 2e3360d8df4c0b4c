//! Definitions from the real world and from hell.

use platform::contract::{
    Addresses, AgentPresence, DiskPlacement, Identity, Networks, ProvisionOptions, Trackable,
};
use platform::libvirt::domain_xml::read;
use platform::libvirt::rewrite::rewrite;
use platform::libvirt::xml::{escape, parse};
use uuid::Uuid;

/// As virt-manager makes them: UEFI, CD-ROM, bridge, TPM, pass-through, an encrypted disk, a fixed port.
const DESKTOP: &str = r#"<domain type='kvm' id='3'>
  <name>desk &amp; top</name>
  <uuid>4dea22b3-1d52-d8f3-2516-782e98ab3fa0</uuid>
  <genid>43dc0cf8-809b-4adb-9bea-a9abb5f3d90e</genid>
  <metadata>
    <libosinfo:libosinfo xmlns:libosinfo="http://libosinfo.org/xmlns/libvirt/domain/1.0">
      <libosinfo:os id="http://debian.org/debian/12"/>
    </libosinfo:libosinfo>
    <backstay:held xmlns:backstay="urn:backstay:held:1" token="x"/>
  </metadata>
  <memory unit='KiB'>4194304</memory>
  <sysinfo type='smbios'>
    <system>
      <entry name='manufacturer'>a > b</entry>
      <entry name='uuid'>4dea22b3-1d52-d8f3-2516-782e98ab3fa0</entry>
    </system>
  </sysinfo>
  <os firmware='efi'>
    <type arch='x86_64' machine='pc-q35-8.2'>hvm</type>
    <loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>
    <nvram template='/usr/share/OVMF/OVMF_VARS_4M.fd'>/var/lib/libvirt/qemu/nvram/desk_VARS.fd</nvram>
  </os>
  <!-- a comment with <name>no name</name> -->
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' discard='unmap'>
        <metadata_cache><max_size unit='bytes'>1024</max_size></metadata_cache>
      </driver>
      <source file='/var/lib/libvirt/images/desk.qcow2' index='2'>
        <encryption format='luks'><secret type='passphrase' uuid='f52a81b2-424e-490c-823d-6bd4235bc572'/></encryption>
      </source>
      <backingStore type='file'><format type='qcow2'/><source file='/base.qcow2'/></backingStore>
      <target dev='vda' bus='virtio'/>
      <serial>WD-WMAP9A966149</serial>
    </disk>
    <disk type='block' device='disk'>
      <source dev="/dev/vg/with'quote"/>
      <target dev='vdb' bus='virtio'/>
    </disk>
    <disk type='network' device='disk'>
      <driver name='qemu' type='raw'/>
      <auth username='admin'><secret type='ceph' usage='x'/></auth>
      <source protocol='rbd' name='pool/image'><host name='mon' port='6789'/></source>
      <target dev='vdc' bus='virtio'/>
    </disk>
    <disk type='file' device='cdrom'>
      <source file='/iso/debian.iso'/>
      <target dev='sda' bus='sata'/>
      <readonly/>
    </disk>
    <interface type='bridge'>
      <mac address='52:54:00:11:22:33'/>
      <source bridge='br0'/>
      <target dev='vnet3'/>
      <model type='virtio'/>
    </interface>
    <interface type='network'>
      <mac address="52:54:00:44:55:66"/>
      <source network='lab' portid='0f9c1d0e-0000-4000-8000-000000000000'/>
      <link state='up'/>
    </interface>
    <serial type='file'><source path='/var/log/desk.log'/><target port='0'/></serial>
    <channel type='unix'>
      <source mode='bind' path='/run/libvirt/qemu/channel/3-desk/org.qemu.guest_agent.0'/>
      <target type='virtio' name='org.qemu.guest_agent.0' state='connected'/>
    </channel>
    <graphics type='vnc' port='5901' autoport='no' listen='127.0.0.1'/>
    <tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>
    <hostdev mode='subsystem' type='pci' managed='yes'><source><address domain='0x0000' bus='0x01' slot='0x00' function='0x0'/></source></hostdev>
  </devices>
</domain>
"#;

fn options(disks: &[(&str, &str, &str)]) -> ProvisionOptions {
    let disk = |(target, path, format): &(&str, &str, &str)| DiskPlacement {
        target: (*target).to_owned(),
        path: (*path).to_owned(),
        format: (*format).to_owned(),
    };
    ProvisionOptions {
        name: Some("new <name>".to_owned()),
        identity: Identity::New(Uuid::from_u128(0x11)),
        disks: disks.iter().map(disk).collect(),
        networks: Networks::Disconnected,
        addresses: Addresses::Renew,
        nvram: None,
    }
}

const ALL: [(&str, &str, &str); 3] = [
    ("vda", "/new/a.raw", "raw"),
    ("vdb", "/dev/new/b", "raw"),
    ("vdc", "/new/c's.qcow2", "qcow2"),
];

#[test]
fn a_definition_is_read() {
    let domain = read(DESKTOP).unwrap();
    assert_eq!(domain.name, "desk & top");
    assert_eq!(domain.agent, AgentPresence::Connected);
    assert_eq!(
        domain.nvram.as_deref(),
        Some("/var/lib/libvirt/qemu/nvram/desk_VARS.fd")
    );
    assert!(domain.tpm);
    let disks: Vec<_> = domain
        .disks
        .iter()
        .map(|disk| {
            let trackable = disk.trackable == Trackable::Yes;
            (
                disk.target.as_str(),
                disk.source.as_str(),
                disk.path.is_some(),
                trackable,
            )
        })
        .collect();
    assert_eq!(
        disks,
        [
            ("vda", "/var/lib/libvirt/images/desk.qcow2", true, true),
            ("vdb", "/dev/vg/with'quote", true, false),
            ("vdc", "rbd:pool/image", false, false),
        ]
    );
}

#[test]
fn a_new_machine_shares_nothing_with_the_old_one() {
    let made = rewrite(DESKTOP, &options(&ALL)).unwrap();
    let domain = read(&made.xml).unwrap();
    assert_eq!(domain.name, "new <name>");
    assert_eq!(domain.uuid, Uuid::from_u128(0x11).to_string());
    let sources: Vec<_> = domain
        .disks
        .iter()
        .map(|disk| disk.source.as_str())
        .collect();
    assert_eq!(sources, ["/new/a.raw", "/dev/new/b", "/new/c's.qcow2"]);
    let formats: Vec<_> = domain
        .disks
        .iter()
        .map(|disk| disk.format.as_deref())
        .collect();
    assert_eq!(formats, [Some("raw"), Some("raw"), Some("qcow2")]);
    for gone in [
        "4dea22b3",
        "43dc0cf8",
        "id='3'",
        "backstay",
        "desk_VARS",
        "metadata_cache",
        "encryption",
        "backingStore",
        "/dev/vg",
        "rbd",
        "<auth",
        "52:54:00",
        "vnet3",
        "5901",
        "/var/log/desk.log'",
        "hostdev",
        "channel/3-desk",
        "portid",
    ] {
        assert!(!made.xml.contains(gone), "{gone} is left in\n{}", made.xml);
    }
    for kept in [
        "<!-- a comment with <name>no name</name> -->",
        "<entry name='manufacturer'>a > b</entry>",
        "libosinfo:os id=",
        "discard='unmap'",
        "<serial>WD-WMAP9A966149</serial>",
        "<target dev='vdb' bus='virtio'/>",
        "<source bridge='br0'/>",
        "startupPolicy='optional'",
        "<tpm model='tpm-crb'>",
        "<genid/>",
    ] {
        assert!(made.xml.contains(kept), "{kept} is gone from\n{}", made.xml);
    }
    assert_eq!(made.xml.matches("<link state='down'/>").count(), 2);
    for told in [
        "encryption",
        "NVRAM",
        "TPM",
        "passed through",
        "serial",
        "display",
    ] {
        let told = |warning: &String| warning.contains(told);
        assert!(made.warnings.iter().any(told), "{:?}", made.warnings);
    }
}

#[test]
fn the_same_machine_in_its_old_place_stays_as_it_was() {
    let options = ProvisionOptions {
        name: None,
        identity: Identity::Same,
        disks: vec![DiskPlacement {
            target: "vda".into(),
            path: "/var/lib/libvirt/images/desk.qcow2".into(),
            format: "qcow2".into(),
        }],
        networks: Networks::Map(vec![("br0".into(), "br&1".into())]),
        addresses: Addresses::Keep,
        nvram: Some("/nvram/new.fd".into()),
    };
    let made = rewrite(DESKTOP, &options).unwrap();
    for kept in [
        "<name>desk &amp; top</name>",
        "4dea22b3-1d52-d8f3-2516-782e98ab3fa0</entry>",
        "52:54:00:11:22:33",
        "bridge='br&amp;1'",
        "network='lab'",
        ">/nvram/new.fd</nvram>",
        "port='5901'",
        "<hostdev",
        "<metadata_cache>",
        "<source path='/var/log/desk.log'/>",
    ] {
        assert!(made.xml.contains(kept), "{kept} is gone from\n{}", made.xml);
    }
    assert_eq!(read(&made.xml).unwrap().disks.len(), 1);
    assert!(
        made.warnings
            .iter()
            .any(|warning| warning.contains("vdb is left out"))
    );
}

#[test]
fn cards_can_be_left_out_and_short_definitions_get_what_they_lack() {
    let bare = "<domain type='qemu'><name>n</name><devices><disk><target dev='vda'/><source/></disk>\
                <interface type='user'/></devices></domain>";
    let mut options = options(&[("vda", "/a", "qcow2")]);
    let made = rewrite(bare, &options).unwrap();
    assert!(
        made.xml
            .contains("<uuid>00000000-0000-0000-0000-000000000011</uuid>")
    );
    assert!(made.xml.contains("<driver name='qemu' type='qcow2'/>"));
    assert!(
        made.xml
            .contains("<interface type='user'><link state='down'/></interface>")
    );
    options.networks = Networks::Remove;
    assert!(!rewrite(bare, &options).unwrap().xml.contains("interface"));
    let no_source = bare.replace("<source/>", "");
    let made = rewrite(&no_source, &options).unwrap();
    assert!(made.xml.contains("<source file='/a'/>"));
}

#[test]
fn options_that_do_not_fit_are_refused() {
    let refused = |options: &ProvisionOptions| rewrite(DESKTOP, options).unwrap_err();
    assert_eq!(
        refused(&options(&[("vdz", "/a", "raw")])).code(),
        "platform.provision.disk-unknown"
    );
    for wrong in [
        ("vda", "relative", "raw"),
        ("vda", "/a", "raw' evil='"),
        ("vda", "/a", ""),
    ] {
        let error = refused(&options(&[wrong]));
        assert_eq!(
            error.code(),
            "platform.provision.option-malformed",
            "{wrong:?}"
        );
    }
    for name in ["", "  ", "a/b", "a\nb", &"x".repeat(300)] {
        let options = ProvisionOptions {
            name: Some(name.to_owned()),
            ..options(&ALL)
        };
        assert_eq!(
            refused(&options).code(),
            "platform.provision.option-malformed"
        );
    }
}

#[test]
fn hostile_xml_is_refused_quickly() {
    let bomb = "<!DOCTYPE d [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;'>]>\
                <domain><name>&b;</name></domain>";
    let external = "<!DOCTYPE d SYSTEM 'file:///etc/passwd'><domain><name>n</name></domain>";
    let deep = format!("{}{}", "<a>".repeat(100_000), "</a>".repeat(100_000));
    let wide = format!("<domain>{}</domain>", "<a/>".repeat(500_000));
    let long = format!(
        "<domain><name>{}</name></domain>",
        "n".repeat(5 * 1024 * 1024)
    );
    let disks = format!(
        "<domain><name>n</name><devices>{}</devices></domain>",
        "<disk><source file='/a'/><target dev='vda'/></disk>".repeat(1100)
    );
    for text in [
        "",
        "domain",
        "<domain",
        "<domain/>",
        "<other><name>n</name></other>",
        "<domain><name/></domain>",
        "<domain><name>  </name></domain>",
        "<domain><name>n</name><devices><disk><source file='/a'/></disk></devices></domain>",
        bomb,
        external,
        &deep,
        &wide,
        &long,
        &disks,
        "\u{feff}\0<domain/>",
    ] {
        let begun = std::time::Instant::now();
        let error = read(text).unwrap_err();
        assert!(error.code().starts_with("platform.xml."), "{error:?}");
        assert!(rewrite(text, &options(&[])).is_err());
        assert!(begun.elapsed().as_secs() < 5);
    }
}

#[test]
fn what_is_escaped_reads_back() {
    for text in ["plain", "<&>\"'", "a\tb\nc\rd", "\u{e9}\u{4e16}", "&amp;"] {
        let xml = format!("<a b='{0}' c=\"{0}\">{0}</a>", escape(text));
        let document = parse("a test", &xml).unwrap();
        let root = document.root_element();
        assert_eq!(root.attribute("b"), Some(text));
        assert_eq!(root.attribute("c"), Some(text));
        assert_eq!(root.text(), Some(text));
    }
    assert_eq!(escape("a\0b\u{1b}"), "a\u{fffd}b\u{fffd}");
}

/// Any mutation of a real definition is rewritten to something well-formed, or refused.
#[test]
fn mutated_definitions_never_break_the_rewriter() {
    let random = base::random::SeededRandom::new(7);
    for _ in 0..3000 {
        let mut bytes = DESKTOP.as_bytes().to_vec();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len() as u64) as usize;
            match random.below(4) {
                0 => bytes[at] = random.below(256) as u8,
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, b"<>/'\"= &"[random.below(8) as usize]),
                _ => {
                    let end = (at + random.below(200) as usize).min(bytes.len());
                    let piece = bytes[at..end].to_vec();
                    bytes.splice(at..at, piece);
                }
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        if let Ok(made) = rewrite(&text, &options(&ALL)) {
            assert!(read(&made.xml).is_ok());
        }
    }
}
