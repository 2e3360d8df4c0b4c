//! Hypervisors by the address that a job names.
//!
//! Knows: which implementation of the contract an address means. Refuses to know: what they do.

use crate::job::Connect;
use base::Result;
use platform::contract::Platform;
use platform::libvirt::{self, Libvirt};
use protocol::words::job::PlatformAddress;
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
            PlatformAddress::Image { .. } => todo!(),
        }
    }
}
