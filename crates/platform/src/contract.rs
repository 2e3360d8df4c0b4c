//! The one contract between Backstay and everything that runs machines.
//!
//! Knows: what each hypervisor must offer, said in words that fit all of them. All calls block, may
//! be made from any thread, and end: an implementation bounds its own waiting.
//! Refuses to know: how any hypervisor does it.
//!
//! Rules that every implementation keeps (the `conformance` suite checks them):
//! - Whatever a backup creates carries its [`Token`]. Undoing goes by that name, is idempotent, and
//!   touches nothing that carries another name.
//! - Doubt about a tracker never fails a backup. It makes that disk [`Tracking::Full`] with a reason.
//! - Failures carry the codes of [`failure`].

pub mod backup;
pub mod failure;
pub mod machine;
pub mod provision;
pub mod quiesce;
pub mod resource;
pub mod token;

pub use backup::{
    Access, Backup, BackupDisk, BackupRequest, DiskRequest, DiskTracker, FullCause, Keep,
    MemoryAccess, NbdAddress, RunningBackup, Strain, Tracker, Tracking,
};
pub use machine::{
    AgentPresence, Content, Definition, DefinitionFile, Host, Machine, MachineDisk, MachineKey,
    Power, Trackable,
};
pub use provision::{Addresses, DiskPlacement, Identity, Networks, ProvisionOptions, Provisioned};
pub use quiesce::{Consistency, begin_quiesced};
pub use resource::{Resource, ResourceKind};
pub use token::Token;

use base::Result;
use base::cancel::Cancel;
use std::time::Duration;

/// All a platform offers. Any type that keeps every part of the contract is one.
pub trait Platform: Inventory + Guests + Backups + Control + Provisioning + Hygiene {}

impl<T: Inventory + Guests + Backups + Control + Provisioning + Hygiene + ?Sized> Platform for T {}

/// Which machines there are.
pub trait Inventory: Send + Sync {
    /// The host behind this platform: name, product, version.
    fn host(&self) -> Result<Host>;

    /// All machines, running or not, in order of name.
    fn machines(&self) -> Result<Vec<Machine>>;

    /// One machine as it is now.
    ///
    /// # Errors
    /// [`failure::machine_unknown`] where there is none with this key.
    fn machine(&self, machine: &MachineKey) -> Result<Machine>;

    /// What must be kept beside the disks so that the machine can be made again, perhaps elsewhere.
    fn definition(&self, machine: &MachineKey) -> Result<Definition>;
}

/// What the agent inside a guest is asked.
pub trait Guests: Send + Sync {
    /// Freezes the guest's file systems and says how many. The caller thaws; [`begin_quiesced`] does
    /// both in the right order and should be preferred.
    ///
    /// # Errors
    /// [`failure::agent_absent`] where no agent answers, [`failure::machine_inactive`] where the
    /// machine does not run. In every error case the guest is not left frozen by this call, unless
    /// the error says that thawing failed too ([`failure::thaw_failed`]).
    fn freeze(&self, machine: &MachineKey, timeout: Duration) -> Result<u32>;

    /// Thaws the guest's file systems. Nothing frozen is no error; the answer is then 0.
    ///
    /// # Errors
    /// [`failure::machine_inactive`] where the machine is paused, so that nobody can know or help.
    fn thaw(&self, machine: &MachineKey) -> Result<u32>;

    /// Whether an agent answers now, and whether it says that the guest is frozen. May take a second.
    fn agent(&self, machine: &MachineKey) -> Result<AgentPresence>;

    /// Waits until the agent answers.
    ///
    /// # Errors
    /// Kind `Timeout` after `timeout`; kind `Cancelled`; [`failure::machine_unknown`].
    fn wait_for_agent(
        &self,
        machine: &MachineKey,
        timeout: Duration,
        cancel: &Cancel,
    ) -> Result<()>;
}

/// Consistent views of disks, and what changed in them.
pub trait Backups: Send + Sync {
    /// Makes one consistent view of the requested disks, opens it for reading, and starts a new
    /// tracker at the very same moment. A machine that is switched off may be held paused for it;
    /// [`Backups::end_backup`] undoes that.
    ///
    /// On an error nothing that carries the token is left, as far as the platform still answers.
    ///
    /// # Errors
    /// [`failure::busy`] where another backup of the machine runs, [`failure::machine_unknown`],
    /// [`failure::disk_unknown`]. Doubtful trackers are not errors.
    fn begin_backup(&self, request: &BackupRequest) -> Result<Backup>;

    /// Closes the view. With [`Keep::Tracker`] the tracker stays for the next run; with
    /// [`Keep::Nothing`] it goes too. Ending what is not there is no error.
    fn end_backup(&self, machine: &MachineKey, token: &Token, keep: Keep) -> Result<()>;

    /// The backup of this machine that runs now, whoever began it.
    fn running_backup(&self, machine: &MachineKey) -> Result<Option<RunningBackup>>;

    /// What the open view of this token costs the machine. Platforms whose views cost nothing need not
    /// say anything.
    fn strain(&self, machine: &MachineKey, token: &Token) -> Result<Strain> {
        let _ = (machine, token);
        Ok(Strain::default())
    }

    /// All trackers of a machine, Backstay's and others', oldest first where the platform knows.
    fn trackers(&self, machine: &MachineKey) -> Result<Vec<Tracker>>;

    /// Deletes a tracker with its map of changes. One that is not there is no error.
    fn delete_tracker(&self, machine: &MachineKey, name: &str) -> Result<()>;
}

/// Switching machines on and off.
pub trait Control: Send + Sync {
    /// Whether the machine runs.
    fn power(&self, machine: &MachineKey) -> Result<Power>;
    /// Switches on; a paused machine goes on. Running already is no error.
    fn start(&self, machine: &MachineKey) -> Result<()>;
    /// Switches on without executing an instruction of the guest.
    ///
    /// # Errors
    /// Kind `Conflict` where it is on already.
    fn start_paused(&self, machine: &MachineKey) -> Result<()>;
    /// Asks the guest to shut down and waits. Off already is no error.
    ///
    /// # Errors
    /// Kind `Timeout` where the guest does not comply: decide, then [`Control::destroy`].
    fn stop(&self, machine: &MachineKey, timeout: Duration, cancel: &Cancel) -> Result<()>;
    /// Pulls the plug. Off already is no error.
    fn destroy(&self, machine: &MachineKey) -> Result<()>;
}

/// Making machines out of saved definitions.
pub trait Provisioning: Send + Sync {
    /// Makes a machine out of a definition whose disks lie, or will lie, at the paths given. Writes no
    /// byte of a disk. The machine is not started.
    ///
    /// # Errors
    /// Kind `Exists` where the name or identity is taken; kind `Invalid` for a definition or options
    /// that make no sense, with the reason.
    fn provision(&self, definition: &Definition, options: &ProvisionOptions)
    -> Result<Provisioned>;

    /// Forgets a machine that is switched off, with its trackers' records and its firmware settings; its
    /// disks stay. One that is not there is no error.
    fn undefine(&self, machine: &MachineKey) -> Result<()>;
}

/// Leaving nothing behind.
pub trait Hygiene: Send + Sync {
    /// Everything on this platform that carries any of Backstay's tokens.
    fn resources(&self) -> Result<Vec<Resource>>;

    /// Everything that carries this token.
    fn resources_of(&self, token: &Token) -> Result<Vec<Resource>> {
        let mut resources = self.resources()?;
        resources.retain(|resource| resource.token == *token);
        Ok(resources)
    }

    /// Removes everything that carries this token: ends its backup, closes its view, switches off a
    /// machine it held paused, removes its scratch files and, with [`Keep::Nothing`], its tracker.
    /// Idempotent; nothing to do is no error. Says what was removed.
    fn clean_up(&self, token: &Token, keep: Keep) -> Result<Vec<Resource>>;
}
