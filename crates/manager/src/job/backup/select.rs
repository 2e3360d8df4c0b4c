//! Which machines a job covers, as of now: a pure function.
//!
//! Knows: names, keys and exclusions. Refuses to know: hypervisors.

use platform::contract::Machine;
use protocol::words::job::Selection;

/// What a job covers.
#[derive(Debug, PartialEq, Eq)]
pub struct Selected {
    /// Its machines, in the platform's order.
    pub machines: Vec<Machine>,
    /// Names and keys that fit no machine.
    pub missing: Vec<String>,
}

/// Resolves a selection against the machines there are.
pub fn select(selection: &Selection, machines: &[Machine]) -> Selected {
    let fits = |name: &String, machine: &Machine| *name == machine.name || *name == machine.key.0;
    let named = |names: &[String], machine: &Machine| names.iter().any(|name| fits(name, machine));
    match selection {
        Selection::Machines(names) => Selected {
            machines: machines
                .iter()
                .filter(|machine| named(names, machine))
                .cloned()
                .collect(),
            missing: names
                .iter()
                .filter(|name| machines.iter().all(|machine| !fits(name, machine)))
                .cloned()
                .collect(),
        },
        Selection::AllExcept(names) => Selected {
            machines: machines
                .iter()
                .filter(|machine| !named(names, machine))
                .cloned()
                .collect(),
            missing: Vec::new(),
        },
    }
}
