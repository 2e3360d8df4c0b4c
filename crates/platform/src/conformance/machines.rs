//! Checks of inventory, power and provisioning.
//!
//! Knows: promises about machines. Refuses to know: backups.

use super::{Subject, promise, refused};
use crate::contract::{
    Addresses, DiskPlacement, Identity, Keep, MachineKey, Networks, Platform, Power,
    ProvisionOptions,
};
use base::Result;
use base::id::{JobId, PointId};
use std::time::Duration;
use uuid::Uuid;

pub fn inventory(platform: &dyn Platform, subject: &dyn Subject) -> Result<()> {
    let key = subject.machine();
    promise(
        !platform.host()?.platform.is_empty(),
        "the host does not say what platform it is",
    )?;
    let all = platform.machines()?;
    let listed = all.iter().find(|machine| machine.key == key);
    let machine = platform.machine(&key)?;
    promise(
        listed == Some(&machine),
        "a machine is listed as something else than it is",
    )?;
    let mut targets: Vec<_> = machine.disks.iter().map(|disk| &disk.target).collect();
    targets.sort();
    targets.dedup();
    promise(
        targets.len() == machine.disks.len(),
        "two disks have one target name",
    )?;
    let disk = machine.disk(&subject.target());
    promise(
        disk.is_some_and(|disk| disk.capacity.0 > 0),
        "the disk is missing or has no size",
    )?;
    let definition = platform.definition(&key)?;
    promise(!definition.files.is_empty(), "a definition has no files")?;
    let plain = |name: &str| !name.is_empty() && !name.contains('/') && !name.starts_with('.');
    promise(
        definition.files.iter().all(|file| plain(&file.name)),
        "a definition's file has a name that is not plain",
    )
}

pub fn unknown_machine(platform: &dyn Platform, _: &dyn Subject) -> Result<()> {
    const CODE: &str = "platform.machine.unknown";
    let token = crate::contract::Token::new(&JobId::new(1, [0; 10]), &PointId::new(1, [0; 10]));
    for key in [
        "7d4c2f7e-0000-4000-8000-000000000000",
        "no such machine",
        "",
    ] {
        let key = MachineKey::from(key);
        refused(
            platform.machine(&key),
            CODE,
            "looking at an unknown machine",
        )?;
        refused(
            platform.definition(&key),
            CODE,
            "defining an unknown machine",
        )?;
        refused(
            platform.power(&key),
            CODE,
            "asking an unknown machine's power",
        )?;
        refused(platform.start(&key), CODE, "starting an unknown machine")?;
        refused(
            platform.destroy(&key),
            CODE,
            "destroying an unknown machine",
        )?;
        refused(
            platform.freeze(&key, Duration::from_secs(1)),
            CODE,
            "freezing the unknown",
        )?;
        refused(
            platform.trackers(&key),
            CODE,
            "listing an unknown machine's trackers",
        )?;
        refused(
            platform.running_backup(&key),
            CODE,
            "asking an unknown machine's backup",
        )?;
        platform.end_backup(&key, &token, Keep::Nothing)?;
        platform.delete_tracker(&key, token.as_str())?;
        platform.undefine(&key)?;
    }
    promise(
        platform.clean_up(&token, Keep::Nothing)?.is_empty(),
        "nothing was cleaned up",
    )
}

pub fn power(platform: &dyn Platform, subject: &dyn Subject) -> Result<()> {
    let key = subject.machine();
    platform.destroy(&key)?;
    platform.destroy(&key)?;
    promise(
        platform.power(&key)? == Power::Off,
        "a destroyed machine is not off",
    )?;
    platform.start_paused(&key)?;
    promise(
        platform.power(&key)? == Power::Paused,
        "a machine started paused is not paused",
    )?;
    promise(
        platform.start_paused(&key).is_err(),
        "a machine was started twice",
    )?;
    platform.start(&key)?;
    platform.start(&key)?;
    promise(
        platform.power(&key)? == Power::Running,
        "a started machine does not run",
    )
}

pub fn provision(platform: &dyn Platform, subject: &dyn Subject) -> Result<()> {
    let key = subject.machine();
    let definition = platform.definition(&key)?;
    let target = subject.target();
    let path = subject.place("conformance-restored.raw")?;
    let options = restore_as("conformance restored", &target, &path);
    let made = platform.provision(&definition, &options)?.machine;
    let found = platform.machine(&made.key)?;
    let named = options.name.as_ref() == Some(&found.name);
    promise(
        named && found.power == Power::Off,
        "the new machine is another one",
    )?;
    promise(
        made.key != key,
        "the new machine has the identity of the old one",
    )?;
    let sources: Vec<_> = found
        .disks
        .iter()
        .map(|disk| (&disk.target, &disk.source))
        .collect();
    promise(
        sources == [(&target, &path)],
        "the new machine's disks are not where they were put",
    )?;
    let before = platform.machine(&key)?;
    refused(
        platform.provision(&definition, &options),
        "platform.machine.exists",
        "a taken name",
    )?;
    promise(
        platform.machine(&key)? == before,
        "provisioning changed the machine it came from",
    )?;
    let strange = restore_as("conformance strange", "strange", &path);
    refused(
        platform.provision(&definition, &strange),
        "platform.provision.disk-unknown",
        "a disk that was not saved",
    )?;
    platform.undefine(&made.key)?;
    platform.undefine(&made.key)?;
    refused(
        platform.machine(&made.key),
        "platform.machine.unknown",
        "an undefined machine",
    )
}

/// A new machine with one raw disk and its network cables pulled.
fn restore_as(name: &str, target: &str, path: &str) -> ProvisionOptions {
    ProvisionOptions {
        name: Some(name.to_owned()),
        identity: Identity::New(Uuid::from_u128(0x7d4c_2f7e_0000_4000_8000_0000_0000_0001)),
        disks: vec![DiskPlacement {
            target: target.to_owned(),
            path: path.to_owned(),
            format: "raw".to_owned(),
        }],
        networks: Networks::Disconnected,
        addresses: Addresses::Renew,
        nvram: None,
    }
}
