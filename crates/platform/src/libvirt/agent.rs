//! The agent inside a guest.
//!
//! Knows: freezing and thawing through libvirt, and asking whether an agent answers.
//! Refuses to know: when to freeze; `contract::quiesce` does.

use super::domain::{Watch, describe, power_of};
use super::procedure::code;
use super::remote::TIMEOUT;
use super::{Failure, Libvirt, Said};
use crate::contract::{AgentPresence, Guests, MachineKey, Power, failure};
use base::cancel::Cancel;
use base::{Error, Kind, Result};
use std::time::{Duration, Instant};

/// How long an agent may think about a question.
const AGENT_SECONDS: i32 = 5;

impl Guests for Libvirt {
    fn freeze(&self, machine: &MachineKey, timeout: Duration) -> Result<u32> {
        let (connection, domain) = self.domain(machine)?;
        let doing = "freezing the file systems";
        match connection.freeze_guest(&domain, timeout) {
            Ok(frozen) => Ok(frozen),
            Err(failure) => {
                // An agent that could not freeze all thaws by itself, but one that answers too late, or
                // whose answer got lost with the connection, may be frozen by now.
                let uncertain = matches!(&failure, Failure::Broken(_))
                    || failure.code() == Some(code::AGENT_COMMAND_TIMEOUT);
                if uncertain && let Err(thaw) = self.thaw(machine) {
                    return Err(failure::thaw_failed(&domain.name, &thaw.to_string()));
                }
                Err(match failure {
                    Failure::Refused(refusal)
                        if !refusal.is_inactive()
                            && refusal.code != code::AGENT_UNRESPONSIVE
                            && !refusal.message.contains("agent is not configured") =>
                    {
                        failure::freeze_failed(&domain.name, &refusal.message)
                    }
                    Failure::Refused(refusal) if refusal.message.contains("not configured") => {
                        failure::agent_absent(&domain.name)
                    }
                    failure => failure.into_error(&domain.name, doing),
                })
            }
        }
    }

    fn thaw(&self, machine: &MachineKey) -> Result<u32> {
        let (connection, domain) = self.domain(machine)?;
        match connection.thaw_guest(&domain) {
            // A machine that is off has nothing frozen; one that is paused may have.
            Err(Failure::Refused(refusal))
                if refusal.is_inactive() && power_of(&connection, &domain)? == Power::Off =>
            {
                Ok(0)
            }
            answer => answer.said(&domain, "thawing the file systems"),
        }
    }

    fn agent(&self, machine: &MachineKey) -> Result<AgentPresence> {
        let (connection, domain) = self.domain(machine)?;
        let presence = describe(&connection, &domain)?.agent;
        if presence != AgentPresence::Connected {
            return Ok(presence);
        }
        let status = r#"{"execute":"guest-fsfreeze-status"}"#;
        match connection.agent_command(&domain, status, AGENT_SECONDS) {
            Ok(Some(answer)) => {
                let answer: serde_json::Value = serde_json::from_str(&answer).unwrap_or_default();
                let frozen = answer.get("return").and_then(|word| word.as_str()) == Some("frozen");
                Ok(if frozen {
                    AgentPresence::Frozen
                } else {
                    AgentPresence::Connected
                })
            }
            Ok(None) => Ok(AgentPresence::Connected),
            Err(Failure::Refused(refusal)) if refusal.code == code::AGENT_COMMAND_FAILED => {
                // It answers, if only that it does not know this command.
                Ok(AgentPresence::Connected)
            }
            Err(Failure::Refused(_)) => Ok(AgentPresence::Silent),
            Err(failure) => Err(failure.into_error(&domain.name, "asking the guest agent")),
        }
    }

    fn wait_for_agent(
        &self,
        machine: &MachineKey,
        timeout: Duration,
        cancel: &Cancel,
    ) -> Result<()> {
        let begun = Instant::now();
        let mut watch = Watch::new(&*self.connection()?);
        loop {
            match self.agent(machine)? {
                AgentPresence::Connected | AgentPresence::Frozen => return Ok(()),
                AgentPresence::NoChannel => return Err(failure::agent_absent(&machine.0)),
                AgentPresence::Silent => {}
            }
            cancel.check()?;
            let rest = timeout.saturating_sub(begun.elapsed());
            if rest.is_zero() {
                let what = format!(
                    "no guest agent answered in the machine {machine} within {} s",
                    timeout.as_secs()
                );
                return Err(Error::new(Kind::Timeout, "platform.agent.timeout", what)
                    .hint("see whether the guest has booted and runs qemu-guest-agent"));
            }
            watch.wait(rest, self);
        }
    }
}

const _: () = assert!((AGENT_SECONDS as u64) < TIMEOUT.as_secs());
