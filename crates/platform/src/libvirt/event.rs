//! What libvirt says without being asked.
//!
//! Knows: the events that Backstay waits for. They only wake a waiter earlier: whoever waits looks
//! again by itself every second or two, because an event can be missed while a connection is made anew.
//! Refuses to know: who waits.

use super::procedure::remote;
use super::remote::DomainRef;
use super::xdr::Decoder;
use base::Result;

/// Something happened to a machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// It was defined, started, paused, stopped or removed.
    Lifecycle {
        /// The machine.
        uuid: [u8; 16],
    },
    /// The agent in its guest appeared or went.
    Agent {
        /// The machine.
        uuid: [u8; 16],
    },
}

impl Event {
    /// The machine it is about.
    pub const fn uuid(&self) -> &[u8; 16] {
        match self {
            Self::Lifecycle { uuid } | Self::Agent { uuid } => uuid,
        }
    }
}

/// Reads an event; `None` for a kind that nobody waits for.
pub fn decode(procedure: i32, payload: &[u8]) -> Result<Option<Event>> {
    let mut decoder = Decoder::new(payload);
    let mut uuid = || -> Result<[u8; 16]> {
        let _callback = decoder.i32()?;
        Ok(DomainRef::decode(&mut decoder)?.uuid)
    };
    Ok(match procedure {
        remote::EVENT_CALLBACK_LIFECYCLE => Some(Event::Lifecycle { uuid: uuid()? }),
        remote::EVENT_CALLBACK_AGENT_LIFECYCLE => Some(Event::Agent { uuid: uuid()? }),
        _ => None,
    })
}
