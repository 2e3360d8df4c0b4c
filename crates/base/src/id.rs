//! Typed identifiers.
//!
//! Knows: that a job's id is not a point's id, although both are 128-bit UUIDs in time order.
//! Refuses to know: what the things are.

use crate::error::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $noun:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// The noun, as errors and screens say it.
            pub const NOUN: &'static str = $noun;

            /// A new id: a version 7 UUID made of the time and of random bytes, both handed in.
            pub fn new(unix_millis: u64, random: [u8; 10]) -> Self {
                Self(uuid::Builder::from_unix_timestamp_millis(unix_millis, &random).into_uuid())
            }

            /// A new id from a clock and a source of randomness.
            pub fn generate(clock: &dyn crate::clock::Clock, random: &dyn crate::random::Random)
                -> Self
            {
                let mut bytes = [0; 10];
                random.fill(&mut bytes);
                Self::new(clock.now().unix_millis(), bytes)
            }

            /// The sixteen bytes, as stored and sent.
            pub const fn bytes(&self) -> [u8; 16] {
                *self.0.as_bytes()
            }

            /// From sixteen stored bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// The last eight hexadecimal digits: enough for people to tell two apart.
            pub fn short(&self) -> String {
                let text = self.0.simple().to_string();
                text[text.len() - 8..].to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self> {
                Uuid::parse_str(text.trim()).map(Self).map_err(|_| {
                    Error::new(
                        Kind::Invalid,
                        "base.id.malformed",
                        format!("\u{201c}{text}\u{201d} is not the id of a {}", $noun),
                    )
                    .hint("an id looks like 0192f0c1-7a1b-7c3d-8e4f-0123456789ab")
                })
            }
        }
    )*};
}

ids! {
    /// A site: one installation of Backstay with its own certificate authority.
    SiteId = "site";
    /// A repository: one store of restore points.
    RepositoryId = "repository";
    /// A restore point.
    PointId = "point";
    /// A machine that is backed up, as Backstay knows it over renames and moves.
    MachineId = "machine";
    /// A host that runs a role of Backstay or a hypervisor.
    HostId = "host";
    /// A job: what to back up, where to, when.
    JobId = "job";
    /// One run of anything.
    SessionId = "session";
    /// One unit of work of a session: usually one disk.
    TaskId = "task";
    /// One bulk stream between two agents.
    StreamId = "stream";
    /// One process that writes to a repository, from its start to its end.
    WriterId = "writer";
}

/// Namespace of machine ids that are derived from a platform's own id.
const PLATFORM_NAMESPACE: Uuid = Uuid::from_u128(0x2d6a_3f0e_9b1c_5c52_8a47_6261_636b_7374);

impl MachineId {
    /// The id of the machine that a platform knows by `platform_id`: a version 5 UUID, so that
    /// every process, and a server whose database was lost, names the same machine alike.
    pub fn of_platform(platform: &str, platform_id: &str) -> Self {
        let name = format!("{platform}\0{platform_id}");
        Self(Uuid::new_v5(&PLATFORM_NAMESPACE, name.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_in_time_order_and_read_back() {
        let a = PointId::new(1, [0xff; 10]);
        let b = PointId::new(2, [0; 10]);
        assert!(a < b);
        assert_eq!(a.to_string().parse::<PointId>().unwrap(), a);
        assert_eq!(PointId::from_bytes(a.bytes()), a);
        assert!("nonsense".parse::<PointId>().is_err());
        let machine = MachineId::of_platform("libvirt", "x");
        assert_eq!(machine, MachineId::of_platform("libvirt", "x"));
        assert_ne!(machine, MachineId::of_platform("image", "x"));
    }
}
