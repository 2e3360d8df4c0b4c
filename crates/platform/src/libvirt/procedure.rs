//! The numbers of libvirt's remote protocol that Backstay uses.
//!
//! Knows: procedure, event, flag and error numbers, as libvirt's public headers and its wire show them.
//! They are append-only upstream. Refuses to know: argument layouts; those are in `remote`.

/// Procedures of the remote program.
pub mod remote {
    #![allow(missing_docs)]
    pub const CONNECT_OPEN: i32 = 1;
    pub const CONNECT_CLOSE: i32 = 2;
    pub const CONNECT_GET_VERSION: i32 = 4;
    pub const CONNECT_GET_CAPABILITIES: i32 = 7;
    pub const DOMAIN_GET_XML_DESC: i32 = 14;
    pub const DOMAIN_LOOKUP_BY_UUID: i32 = 24;
    pub const DOMAIN_RESUME: i32 = 28;
    pub const CONNECT_GET_HOSTNAME: i32 = 59;
    pub const AUTH_LIST: i32 = 66;
    pub const AUTH_POLKIT: i32 = 70;
    pub const CONNECT_GET_LIB_VERSION: i32 = 157;
    pub const DOMAIN_ABORT_JOB: i32 = 164;
    pub const DOMAIN_HAS_MANAGED_SAVE_IMAGE: i32 = 183;
    pub const DOMAIN_GET_BLOCK_INFO: i32 = 194;
    pub const DOMAIN_CREATE_WITH_FLAGS: i32 = 196;
    pub const DOMAIN_GET_STATE: i32 = 212;
    pub const DOMAIN_UNDEFINE_FLAGS: i32 = 231;
    pub const DOMAIN_DESTROY_FLAGS: i32 = 234;
    pub const DOMAIN_SHUTDOWN_FLAGS: i32 = 258;
    pub const DOMAIN_SET_METADATA: i32 = 264;
    pub const DOMAIN_GET_METADATA: i32 = 265;
    pub const CONNECT_LIST_ALL_DOMAINS: i32 = 273;
    pub const DOMAIN_GET_JOB_STATS: i32 = 298;
    pub const EVENT_CALLBACK_REGISTER_ANY: i32 = 316;
    pub const EVENT_CALLBACK_DEREGISTER_ANY: i32 = 317;
    pub const EVENT_CALLBACK_LIFECYCLE: i32 = 318;
    pub const DOMAIN_FSFREEZE: i32 = 335;
    pub const DOMAIN_FSTHAW: i32 = 336;
    pub const EVENT_CALLBACK_AGENT_LIFECYCLE: i32 = 348;
    pub const DOMAIN_DEFINE_XML_FLAGS: i32 = 350;
    pub const CHECKPOINT_CREATE_XML: i32 = 411;
    pub const CHECKPOINT_GET_XML_DESC: i32 = 412;
    pub const DOMAIN_LIST_ALL_CHECKPOINTS: i32 = 413;
    pub const CHECKPOINT_LOOKUP_BY_NAME: i32 = 415;
    pub const CHECKPOINT_DELETE: i32 = 417;
    pub const BACKUP_BEGIN: i32 = 421;
    pub const BACKUP_GET_XML_DESC: i32 = 422;
}

/// Procedures of the QEMU program.
pub mod qemu {
    /// A command to the agent in the guest, as JSON.
    pub const AGENT_COMMAND: i32 = 3;
}

/// Procedures of the keepalive program.
pub mod keepalive {
    /// Are you there?
    pub const PING: i32 = 1;
    /// Yes.
    pub const PONG: i32 = 2;
}

/// Kinds of events to register for.
pub mod event {
    /// A machine was defined, started, paused, stopped, removed.
    pub const LIFECYCLE: i32 = 0;
    /// The agent in a guest appeared or went.
    pub const AGENT_LIFECYCLE: i32 = 18;
}

/// Flags of calls.
pub mod flag {
    /// XML with passwords.
    pub const XML_SECURE: u32 = 1;
    /// XML of the next start, not of the running machine.
    pub const XML_INACTIVE: u32 = 2;
    /// XML that another host understands.
    pub const XML_MIGRATABLE: u32 = 8;
    /// Start without executing an instruction.
    pub const START_PAUSED: u32 = 1;
    /// Forget the machine with its managed save image.
    pub const UNDEFINE_MANAGED_SAVE: u32 = 1;
    /// Forget the machine with the records of its snapshots.
    pub const UNDEFINE_SNAPSHOTS_METADATA: u32 = 2;
    /// Forget the machine with its NVRAM.
    pub const UNDEFINE_NVRAM: u32 = 4;
    /// Forget the machine with the records of its checkpoints.
    pub const UNDEFINE_CHECKPOINTS_METADATA: u32 = 16;
    /// Validate the XML against the schema.
    pub const DEFINE_VALIDATE: u32 = 1;
    /// Make the record of a checkpoint whose bitmap exists.
    pub const CHECKPOINT_REDEFINE: u32 = 1;
    /// And see that the bitmap does exist and is whole.
    pub const CHECKPOINT_REDEFINE_VALIDATE: u32 = 4;
    /// Delete the record of a checkpoint, not its bitmaps.
    pub const CHECKPOINT_DELETE_METADATA_ONLY: u32 = 2;
    /// Checkpoint XML without the whole machine in it.
    pub const CHECKPOINT_XML_NO_DOMAIN: u32 = 2;
    /// In the order from parents to children.
    pub const CHECKPOINT_LIST_TOPOLOGICAL: u32 = 2;
    /// Change the running machine.
    pub const AFFECT_LIVE: u32 = 1;
    /// Change what the machine is at its next start.
    pub const AFFECT_CONFIG: u32 = 2;
    /// The kind of metadata that is an XML element of one's own.
    pub const METADATA_ELEMENT: i32 = 2;
}

/// Error numbers.
pub mod code {
    #![allow(missing_docs)]
    pub const INTERNAL_ERROR: i32 = 1;
    pub const NO_SUPPORT: i32 = 3;
    pub const INVALID_ARG: i32 = 8;
    pub const OPERATION_FAILED: i32 = 9;
    pub const XML_ERROR: i32 = 27;
    pub const DOMAIN_EXISTS: i32 = 28;
    pub const OPERATION_DENIED: i32 = 29;
    pub const NO_DOMAIN: i32 = 42;
    pub const AUTH_FAILED: i32 = 45;
    pub const OPERATION_INVALID: i32 = 55;
    pub const CONFIG_UNSUPPORTED: i32 = 67;
    pub const OPERATION_TIMEOUT: i32 = 68;
    pub const AUTH_CANCELLED: i32 = 79;
    pub const NO_DOMAIN_METADATA: i32 = 80;
    pub const OPERATION_UNSUPPORTED: i32 = 84;
    pub const AGENT_UNRESPONSIVE: i32 = 86;
    pub const ACCESS_DENIED: i32 = 88;
    pub const AUTH_UNAVAILABLE: i32 = 94;
    pub const NO_CHECKPOINT: i32 = 103;
    pub const NO_BACKUP: i32 = 104;
    pub const XML_INVALID_SCHEMA: i32 = 92;
    pub const CHECKPOINT_INCONSISTENT: i32 = 109;
    pub const AGENT_COMMAND_TIMEOUT: i32 = 112;
    pub const AGENT_COMMAND_FAILED: i32 = 113;
}
