//! Hypervisors by the address that a job names.
//!
//! Knows: which implementation of the contract an address means. Refuses to know: what they do.

use crate::job::Connect;
use base::Result;
use platform::contract::Platform;
use platform::image::{self, Images};
use platform::libvirt::{self, Libvirt};
use protocol::words::job::{ImageMachine, PlatformAddress};
use std::sync::Arc;

/// The real ones.
pub struct Real;

impl Connect for Real {
    fn connect(&self, address: &PlatformAddress) -> Result<Arc<dyn Platform>> {
        match address {
            PlatformAddress::Libvirt { uri } => {
                let options = libvirt::Options::new(uri.parse()?);
                Ok(Arc::new(Libvirt::connect(options)?))
            }
            PlatformAddress::Image { machines } => {
                let machines = machines.iter().map(image_machine).collect();
                Ok(Arc::new(Images::new(machines)?))
            }
        }
    }
}

fn image_machine(machine: &ImageMachine) -> image::ImageMachine {
    let disks = machine.disks.iter().map(|(target, path)| image::ImageDisk {
        target: target.clone(),
        path: path.clone(),
    });
    image::ImageMachine {
        name: machine.name.clone(),
        disks: disks.collect(),
    }
}
