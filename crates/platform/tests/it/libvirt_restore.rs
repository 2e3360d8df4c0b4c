//! Machines made out of definitions on a real libvirt.

use crate::lab::Lab;
use platform::contract::{
    Addresses, Control, DiskPlacement, Identity, Inventory, MachineKey, Networks, Power,
    ProvisionOptions, Provisioning,
};
use uuid::Uuid;

/// A machine with all that two machines of one host could quarrel about.
fn rich(lab: &Lab, name: &str) -> MachineKey {
    let path = |name: &str| lab.path(name).display().to_string();
    lab.run(
        "qemu-img",
        &[
            "create",
            "-q",
            "-f",
            "qcow2",
            &path("disks/rich.qcow2"),
            "4M",
        ],
    );
    lab.run(
        "qemu-img",
        &["create", "-q", "-f", "raw", &path("disks/rich.iso"), "1M"],
    );
    // A port that the system gave as free; nobody else takes it within the test.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let xml = format!(
        "<domain type='qemu'><name>{name}</name><genid/><memory unit='MiB'>32</memory><vcpu>1</vcpu>
           <sysinfo type='smbios'><system><entry name='manufacturer'>a &amp; b</entry></system></sysinfo>
           <os><type arch='x86_64' machine='q35'>hvm</type>
             <loader readonly='yes' type='pflash'>{}</loader><nvram>{}</nvram>
             <smbios mode='sysinfo'/></os><features><acpi/></features>
           <devices>
             <disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none'/>
               <source file='{}'/><target dev='vda' bus='virtio'/><serial>S1</serial></disk>
             <disk type='file' device='cdrom'><driver name='qemu' type='raw'/>
               <source file='{}'/><target dev='sda' bus='sata'/><readonly/></disk>
             <interface type='user'><mac address='52:54:00:11:22:33'/><model type='virtio'/></interface>
             <serial type='file'><source path='{}'/><target port='0'/></serial>
             <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
             <graphics type='vnc' port='{port}' autoport='no' listen='127.0.0.1'/>
             <video><model type='vga'/></video>
             <memballoon model='none'/>
           </devices></domain>",
        path("code.fd"),
        path("vars.fd"),
        path("disks/rich.qcow2"),
        path("disks/rich.iso"),
        path("rich.log"),
    );
    // Firmware that nobody executes: the machine is only ever paused.
    lab.run(
        "qemu-img",
        &["create", "-q", "-f", "raw", &path("code.fd"), "1M"],
    );
    let file = path("rich.xml");
    std::fs::write(&file, xml).unwrap();
    lab.virsh(&["define", &file]);
    MachineKey(lab.virsh(&["domuuid", name]).trim().to_owned())
}

#[test]
fn a_restored_machine_runs_beside_the_one_it_was_made_of_and_in_its_place() {
    let lab = Lab::shared();
    let key = rich(&lab, "rich");
    let libvirt = lab.connect();
    // Before its first start it has no NVRAM, and that is told.
    let definition = libvirt.definition(&key).unwrap();
    assert!(
        definition.warnings[0].contains("vars.fd"),
        "{:?}",
        definition.warnings
    );
    assert_eq!(definition.files.len(), 1);
    let vars = lab.path("vars.fd").display().to_string();
    lab.run("qemu-img", &["create", "-q", "-f", "raw", &vars, "1M"]);
    libvirt.start_paused(&key).unwrap();
    let definition = libvirt.definition(&key).unwrap();
    assert_eq!(definition.warnings, [""; 0]);
    assert_eq!(definition.files[1].name, "nvram.fd");
    assert_eq!(
        definition.files[1].content,
        platform::contract::Content::HostPath(vars.clone())
    );
    // The mover puts the saved one at another place for each restored machine.
    let copy = lab.path("restored-vars.fd").display().to_string();
    lab.run("qemu-img", &["create", "-q", "-f", "raw", &copy, "1M"]);

    let path = lab.path("disks/restored.qcow2").display().to_string();
    lab.run("qemu-img", &["create", "-q", "-f", "qcow2", &path, "4M"]);
    let beside = ProvisionOptions {
        name: Some("rich restored".to_owned()),
        identity: Identity::New(Uuid::from_u128(0x5ca1_ab1e_0000_4000_8000_0000_0000_0001)),
        disks: vec![DiskPlacement {
            target: "vda".to_owned(),
            path: path.clone(),
            format: "qcow2".to_owned(),
        }],
        networks: Networks::Keep,
        addresses: Addresses::Renew,
        nvram: Some(copy.clone()),
    };
    // The CD of the old host is not there any more.
    std::fs::remove_file(lab.path("disks/rich.iso")).unwrap();
    let made = libvirt.provision(&definition, &beside).unwrap();
    let new = made.machine.key;
    libvirt.start_paused(&new).unwrap();
    assert_eq!(libvirt.power(&new).unwrap(), Power::Paused);
    assert_eq!(libvirt.power(&key).unwrap(), Power::Paused);
    let xml = lab.virsh(&["dumpxml", "rich restored"]);
    assert!(xml.contains(&format!(">{copy}</nvram>")), "{xml}");
    assert!(
        xml.contains("a &amp; b") && xml.contains("<serial>S1</serial>"),
        "{xml}"
    );
    assert!(!xml.contains("52:54:00:11:22:33"), "{xml}");
    for told in ["serial", "display"] {
        let told = |warning: &String| warning.contains(told);
        assert!(made.warnings.iter().any(told), "{:?}", made.warnings);
    }
    libvirt.destroy(&new).unwrap();

    // In its old place: the identity is taken until the old one is gone.
    let same = ProvisionOptions {
        name: None,
        identity: Identity::Same,
        addresses: Addresses::Keep,
        ..beside
    };
    let taken = libvirt.provision(&definition, &same).unwrap_err();
    assert_eq!(taken.code(), "platform.machine.exists");
    let running = libvirt.undefine(&key).unwrap_err();
    assert_eq!(running.kind(), base::Kind::Conflict);
    libvirt.destroy(&key).unwrap();
    libvirt.undefine(&key).unwrap();
    let made = libvirt.provision(&definition, &same).unwrap();
    assert_eq!(made.machine.key, key);
    assert_eq!(made.machine.disks[0].path.as_ref(), Some(&path));
    assert!(
        lab.virsh(&["dumpxml", "rich"])
            .contains("52:54:00:11:22:33")
    );
    libvirt.start_paused(&key).unwrap();
    for key in [new, key] {
        libvirt.destroy(&key).unwrap();
        libvirt.undefine(&key).unwrap();
    }
}

#[test]
fn a_definition_that_libvirt_refuses_is_told_in_its_words() {
    let lab = Lab::shared();
    let libvirt = lab.connect();
    let mut definition = platform::contract::Definition::default();
    let options = ProvisionOptions {
        name: None,
        identity: Identity::Same,
        disks: Vec::new(),
        networks: Networks::Keep,
        addresses: Addresses::Keep,
        nvram: None,
    };
    let error = libvirt.provision(&definition, &options).unwrap_err();
    assert_eq!(error.code(), "platform.provision.definition-missing");
    let strange = "<domain type='strange'><name>n</name><devices/></domain>";
    definition.files.push(platform::contract::DefinitionFile {
        name: "domain.xml".to_owned(),
        content: platform::contract::Content::Bytes(strange.into()),
    });
    let error = libvirt.provision(&definition, &options).unwrap_err();
    assert!(error.code().starts_with("platform.libvirt."), "{error:?}");
    assert!(error.to_string().contains("strange"), "{error}");
}
