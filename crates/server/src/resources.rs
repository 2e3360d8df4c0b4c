//! Who may use what: decides on leases. Pure.
//!
//! Knows: how many may use a resource at once, and what the waiting is called. Refuses to know:
//! clocks, processes, the database.

use base::id::SessionId;
use protocol::words::manager::{LeaseAnswer, Resource};

/// How many sessions' tasks may use each kind of resource at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Reading tasks a host.
    pub proxy: usize,
    /// Writing tasks a repository.
    pub repository: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            proxy: 4,
            repository: 4,
        }
    }
}

/// A decision: the slot to take, or what to wait for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Take this slot.
    Take(i64),
    /// The session has it already.
    Held,
    /// Wait.
    Wait(String),
}

/// The name of a resource, as kept with its leases.
pub fn name(resource: &Resource) -> String {
    match resource {
        Resource::Proxy(host) => format!("proxy/{host}"),
        Resource::Repository(repository) => format!("repository/{repository}"),
        Resource::Machine { host, platform_id } => format!("machine/{host}/{platform_id}"),
    }
}

/// Decides. `holders` are those who have slots of this resource now.
pub fn decide(
    resource: &Resource,
    holders: &[(SessionId, i64)],
    session: SessionId,
    limits: Limits,
) -> Decision {
    let limit = match resource {
        Resource::Proxy(_) => limits.proxy,
        Resource::Repository(_) => limits.repository,
        Resource::Machine { .. } => 1,
    };
    if matches!(resource, Resource::Machine { .. })
        && holders.iter().any(|(holder, _)| *holder == session)
    {
        return Decision::Held;
    }
    let mut slots = 0..i64::try_from(limit).unwrap_or(i64::MAX);
    match slots.find(|slot| holders.iter().all(|(_, taken)| taken != slot)) {
        Some(slot) => Decision::Take(slot),
        None => Decision::Wait(match resource {
            Resource::Proxy(_) => format!("waiting for a proxy slot of the host ({limit} in use)"),
            Resource::Repository(_) => {
                format!("waiting for a slot of the repository ({limit} in use)")
            }
            Resource::Machine { .. } => {
                "waiting for another session that works on this machine".to_owned()
            }
        }),
    }
}

impl From<&Decision> for LeaseAnswer {
    fn from(decision: &Decision) -> Self {
        match decision {
            Decision::Take(_) | Decision::Held => Self::Granted,
            Decision::Wait(reason) => Self::Wait(reason.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::id::HostId;

    #[test]
    fn no_limit_is_exceeded_and_freed_slots_are_used_again() {
        let (a, b) = (SessionId::new(1, [0; 10]), SessionId::new(2, [0; 10]));
        let host = HostId::new(1, [1; 10]);
        let limits = Limits {
            proxy: 2,
            repository: 1,
        };
        let proxy = Resource::Proxy(host);
        assert_eq!(decide(&proxy, &[], a, limits), Decision::Take(0));
        assert_eq!(decide(&proxy, &[(a, 1)], b, limits), Decision::Take(0));
        assert!(matches!(
            decide(&proxy, &[(a, 0), (b, 1)], a, limits),
            Decision::Wait(_)
        ));
        let machine = Resource::Machine {
            host,
            platform_id: "x".into(),
        };
        assert_eq!(decide(&machine, &[], a, limits), Decision::Take(0));
        assert_eq!(decide(&machine, &[(a, 0)], a, limits), Decision::Held);
        assert!(matches!(
            decide(&machine, &[(a, 0)], b, limits),
            Decision::Wait(_)
        ));
    }
}
