//! libvirt's calls, one function each: what goes in, what comes out.
//!
//! Knows: the argument layout of each procedure that Backstay uses.
//! Refuses to know: in which order they make sense; the rooms beside this one do.

use super::connection::{Connection, Failure};
use super::frame::{PROGRAM_QEMU, PROGRAM_REMOTE};
use super::procedure::{code, event, flag, qemu, remote};
use super::xdr::{Decoder, Encoder};
use base::{Error, Kind, Result};
use std::time::Duration;

/// How long an ordinary question may wait: longer than the 30 s that libvirt itself waits for a lock.
pub const TIMEOUT: Duration = Duration::from_secs(60);
/// How long starting a machine or a backup may take.
pub const TIMEOUT_LONG: Duration = Duration::from_secs(180);
/// The most machines that one daemon lists (libvirt's `REMOTE_DOMAIN_LIST_MAX`).
const DOMAINS_MAX: usize = 16_384;
/// The most checkpoints of one machine that are listed.
const CHECKPOINTS_MAX: usize = 16_384;
/// The authentication kinds that Backstay knows.
const AUTH_NONE: i32 = 0;
const AUTH_POLKIT: i32 = 2;

/// A machine as libvirt passes it about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DomainRef {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: [u8; 16],
    /// Its number while it runs, or -1.
    pub id: i32,
}

impl DomainRef {
    /// Reads one.
    pub fn decode(decoder: &mut Decoder<'_>) -> Result<Self> {
        Ok(Self {
            name: decoder.string()?,
            uuid: decoder.fixed()?,
            id: decoder.i32()?,
        })
    }

    fn encode(&self) -> Encoder {
        Encoder::new()
            .string(&self.name)
            .fixed(&self.uuid)
            .i32(self.id)
    }

    /// The UUID as text.
    pub fn uuid_text(&self) -> String {
        uuid::Uuid::from_bytes(self.uuid).to_string()
    }
}

/// State and reason of a machine, as libvirt numbers them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DomainState {
    /// `VIR_DOMAIN_…`.
    pub state: i32,
    /// `VIR_DOMAIN_…_REASON`, depending on the state.
    pub reason: i32,
}

/// Sizes of a disk in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockInfo {
    /// Space it takes on the host.
    pub allocation: u64,
    /// What the guest sees.
    pub capacity: u64,
}

type Answer<T> = Result<T, Failure>;

impl Connection {
    fn ask(&self, procedure: i32, request: Encoder) -> Answer<Vec<u8>> {
        self.call(PROGRAM_REMOTE, procedure, &request.finish()?, TIMEOUT)
    }

    fn ask_long(&self, procedure: i32, request: Encoder) -> Answer<Vec<u8>> {
        self.call(PROGRAM_REMOTE, procedure, &request.finish()?, TIMEOUT_LONG)
    }

    fn ask_string(&self, procedure: i32, request: Encoder) -> Answer<String> {
        Ok(Decoder::new(&self.ask(procedure, request)?).string()?)
    }

    /// Says who we are and opens the driver. The first call on every connection.
    pub fn open(&self, driver_uri: &str) -> Result<()> {
        let failed = |failure: Failure| failure.into_error("the host", "opening the connection");
        let kinds = self
            .ask(remote::AUTH_LIST, Encoder::new())
            .map_err(failed)?;
        let kinds = Decoder::new(&kinds).array(16, Decoder::i32)?;
        if !kinds.contains(&AUTH_NONE) {
            if !kinds.contains(&AUTH_POLKIT) {
                return Err(Error::new(
                    Kind::Unsupported,
                    "platform.libvirt.auth-unsupported",
                    "this libvirt asks for a password (SASL), which Backstay does not speak",
                )
                .hint("reach it over SSH: qemu+ssh://user@host/system"));
            }
            self.ask(remote::AUTH_POLKIT, Encoder::new())
                .map_err(failed)?;
        }
        let request = Encoder::new().optional_string(Some(driver_uri)).u32(0);
        self.ask(remote::CONNECT_OPEN, request).map_err(failed)?;
        Ok(())
    }

    /// The host's name.
    pub fn hostname(&self) -> Answer<String> {
        self.ask_string(remote::CONNECT_GET_HOSTNAME, Encoder::new())
    }

    /// The versions of libvirt and of QEMU: `major * 1,000,000 + minor * 1,000 + release`.
    pub fn versions(&self) -> Answer<(u64, u64)> {
        let library = self.ask(remote::CONNECT_GET_LIB_VERSION, Encoder::new())?;
        let hypervisor = self.ask(remote::CONNECT_GET_VERSION, Encoder::new())?;
        Ok((
            Decoder::new(&library).u64()?,
            Decoder::new(&hypervisor).u64()?,
        ))
    }

    /// What the host can do, as XML.
    pub fn capabilities(&self) -> Answer<String> {
        self.ask_string(remote::CONNECT_GET_CAPABILITIES, Encoder::new())
    }

    /// All machines.
    pub fn list_domains(&self) -> Answer<Vec<DomainRef>> {
        let answer = self.ask(
            remote::CONNECT_LIST_ALL_DOMAINS,
            Encoder::new().i32(1).u32(0),
        )?;
        Ok(Decoder::new(&answer).array(DOMAINS_MAX, DomainRef::decode)?)
    }

    /// The machine with this UUID.
    pub fn lookup_domain(&self, uuid: &[u8; 16]) -> Answer<DomainRef> {
        let answer = self.ask(remote::DOMAIN_LOOKUP_BY_UUID, Encoder::new().fixed(uuid))?;
        Ok(DomainRef::decode(&mut Decoder::new(&answer))?)
    }

    /// A machine's definition.
    pub fn domain_xml(&self, domain: &DomainRef, flags: u32) -> Answer<String> {
        self.ask_string(remote::DOMAIN_GET_XML_DESC, domain.encode().u32(flags))
    }

    /// A machine's state.
    pub fn domain_state(&self, domain: &DomainRef) -> Answer<DomainState> {
        let answer = self.ask(remote::DOMAIN_GET_STATE, domain.encode().u32(0))?;
        let mut decoder = Decoder::new(&answer);
        Ok(DomainState {
            state: decoder.i32()?,
            reason: decoder.i32()?,
        })
    }

    /// The sizes of a disk, by target name or path.
    pub fn block_info(&self, domain: &DomainRef, disk: &str) -> Answer<BlockInfo> {
        let request = domain.encode().string(disk).u32(0);
        let answer = self.ask(remote::DOMAIN_GET_BLOCK_INFO, request)?;
        let mut decoder = Decoder::new(&answer);
        Ok(BlockInfo {
            allocation: decoder.u64()?,
            capacity: decoder.u64()?,
        })
    }

    /// Whether the memory of a machine that is off is kept on disk, to go on with at its next start.
    pub fn has_saved_memory(&self, domain: &DomainRef) -> Answer<bool> {
        let request = domain.encode().u32(0);
        let answer = self.ask(remote::DOMAIN_HAS_MANAGED_SAVE_IMAGE, request)?;
        Ok(Decoder::new(&answer).i32()? != 0)
    }

    /// Starts a defined machine.
    pub fn create(&self, domain: &DomainRef, flags: u32) -> Answer<()> {
        self.ask_long(remote::DOMAIN_CREATE_WITH_FLAGS, domain.encode().u32(flags))
            .map(drop)
    }

    /// Lets a paused machine go on.
    pub fn resume(&self, domain: &DomainRef) -> Answer<()> {
        self.ask(remote::DOMAIN_RESUME, domain.encode()).map(drop)
    }

    /// Asks a guest to shut down, by whatever way the hypervisor has.
    pub fn shutdown(&self, domain: &DomainRef) -> Answer<()> {
        self.ask(remote::DOMAIN_SHUTDOWN_FLAGS, domain.encode().u32(0))
            .map(drop)
    }

    /// Pulls the plug.
    pub fn destroy_domain(&self, domain: &DomainRef) -> Answer<()> {
        self.ask_long(remote::DOMAIN_DESTROY_FLAGS, domain.encode().u32(0))
            .map(drop)
    }

    /// Makes or changes a machine's definition.
    pub fn define(&self, xml: &str, flags: u32) -> Answer<DomainRef> {
        let request = Encoder::new().string(xml).u32(flags);
        let answer = self.ask(remote::DOMAIN_DEFINE_XML_FLAGS, request)?;
        Ok(DomainRef::decode(&mut Decoder::new(&answer))?)
    }

    /// Forgets a machine.
    pub fn undefine_domain(&self, domain: &DomainRef, flags: u32) -> Answer<()> {
        self.ask(remote::DOMAIN_UNDEFINE_FLAGS, domain.encode().u32(flags))
            .map(drop)
    }

    /// Sets or, with `None`, removes the XML element of the name space `uri` in a machine's metadata.
    pub fn set_metadata(
        &self,
        domain: &DomainRef,
        element: Option<&str>,
        prefix: &str,
        uri: &str,
        flags: u32,
    ) -> Answer<()> {
        let request = domain
            .encode()
            .i32(flag::METADATA_ELEMENT)
            .optional_string(element)
            .optional_string(Some(prefix))
            .optional_string(Some(uri))
            .u32(flags);
        self.ask(remote::DOMAIN_SET_METADATA, request).map(drop)
    }

    /// The XML element of the name space `uri` in a machine's metadata.
    pub fn metadata(&self, domain: &DomainRef, uri: &str, flags: u32) -> Answer<Option<String>> {
        let request = domain
            .encode()
            .i32(flag::METADATA_ELEMENT)
            .optional_string(Some(uri))
            .u32(flags);
        match self.ask_string(remote::DOMAIN_GET_METADATA, request) {
            Ok(element) => Ok(Some(element)),
            Err(failure) if failure.code() == Some(code::NO_DOMAIN_METADATA) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// The kind of job that runs on a machine; 0 is none.
    pub fn job_kind(&self, domain: &DomainRef) -> Answer<i32> {
        let answer = self.ask(remote::DOMAIN_GET_JOB_STATS, domain.encode().u32(0))?;
        Ok(Decoder::new(&answer).i32()?)
    }

    /// Freezes all file systems of a guest and says how many.
    pub fn freeze_guest(&self, domain: &DomainRef, timeout: Duration) -> Answer<u32> {
        // No mount points: all of them.
        let request = domain.encode().u32(0).u32(0).finish()?;
        let answer = self.call(PROGRAM_REMOTE, remote::DOMAIN_FSFREEZE, &request, timeout)?;
        Ok(Decoder::new(&answer).i32()?.max(0).cast_unsigned())
    }

    /// Thaws all file systems of a guest and says how many.
    pub fn thaw_guest(&self, domain: &DomainRef) -> Answer<u32> {
        let answer = self.ask(remote::DOMAIN_FSTHAW, domain.encode().u32(0).u32(0))?;
        Ok(Decoder::new(&answer).i32()?.max(0).cast_unsigned())
    }

    /// Sends a command to the agent of a guest and waits at most `seconds` for its answer.
    pub fn agent_command(
        &self,
        domain: &DomainRef,
        command: &str,
        seconds: i32,
    ) -> Answer<Option<String>> {
        let request = domain
            .encode()
            .string(command)
            .i32(seconds)
            .u32(0)
            .finish()?;
        let answer = self.call(PROGRAM_QEMU, qemu::AGENT_COMMAND, &request, TIMEOUT)?;
        Ok(Decoder::new(&answer).optional(Decoder::string)?)
    }

    /// Asks to be told about a kind of event on all machines.
    pub fn register_event(&self, kind: i32) -> Answer<i32> {
        let request = Encoder::new().i32(kind).u32(0);
        let answer = self.ask(remote::EVENT_CALLBACK_REGISTER_ANY, request)?;
        Ok(Decoder::new(&answer).i32()?)
    }

    /// Asks to be told about machines that come, go and change, and about their agents.
    pub fn register_events(&self) -> Answer<()> {
        self.register_event(event::LIFECYCLE)?;
        self.register_event(event::AGENT_LIFECYCLE)?;
        Ok(())
    }
}

/// Checkpoints and backups.
impl Connection {
    /// The names of a machine's checkpoints, parents first.
    pub fn list_checkpoints(&self, domain: &DomainRef) -> Answer<Vec<String>> {
        let request = domain
            .encode()
            .i32(1)
            .u32(flag::CHECKPOINT_LIST_TOPOLOGICAL);
        let answer = self.ask(remote::DOMAIN_LIST_ALL_CHECKPOINTS, request)?;
        Ok(Decoder::new(&answer).array(CHECKPOINTS_MAX, |decoder| {
            let name = decoder.string()?;
            DomainRef::decode(decoder)?;
            Ok(name)
        })?)
    }

    /// Makes the record of a checkpoint.
    pub fn create_checkpoint(&self, domain: &DomainRef, xml: &str, flags: u32) -> Answer<()> {
        let request = domain.encode().string(xml).u32(flags);
        self.ask(remote::CHECKPOINT_CREATE_XML, request).map(drop)
    }

    /// A checkpoint's XML.
    pub fn checkpoint_xml(&self, domain: &DomainRef, name: &str, flags: u32) -> Answer<String> {
        let request = checkpoint(domain, name).u32(flags);
        self.ask_string(remote::CHECKPOINT_GET_XML_DESC, request)
    }

    /// Deletes a checkpoint with its bitmaps.
    pub fn delete_checkpoint(&self, domain: &DomainRef, name: &str, flags: u32) -> Answer<()> {
        self.ask_long(
            remote::CHECKPOINT_DELETE,
            checkpoint(domain, name).u32(flags),
        )
        .map(drop)
    }

    /// Begins a backup and, in the same moment, a checkpoint.
    pub fn begin_backup_job(
        &self,
        domain: &DomainRef,
        backup_xml: &str,
        checkpoint_xml: Option<&str>,
    ) -> Answer<()> {
        let request = domain
            .encode()
            .string(backup_xml)
            .optional_string(checkpoint_xml)
            .u32(0);
        self.ask_long(remote::BACKUP_BEGIN, request).map(drop)
    }

    /// The XML of the backup that runs on a machine.
    pub fn backup_xml(&self, domain: &DomainRef) -> Answer<Option<String>> {
        match self.ask_string(remote::BACKUP_GET_XML_DESC, domain.encode().u32(0)) {
            Ok(xml) => Ok(Some(xml)),
            Err(failure) if failure.code() == Some(code::NO_BACKUP) => Ok(None),
            Err(Failure::Refused(refusal)) if refusal.is_inactive() => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Ends the job that runs on a machine.
    pub fn abort_job(&self, domain: &DomainRef) -> Answer<()> {
        self.ask(remote::DOMAIN_ABORT_JOB, domain.encode())
            .map(drop)
    }
}

fn checkpoint(domain: &DomainRef, name: &str) -> Encoder {
    Encoder::new()
        .string(name)
        .string(&domain.name)
        .fixed(&domain.uuid)
        .i32(domain.id)
}
