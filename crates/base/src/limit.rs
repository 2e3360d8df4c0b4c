//! Every bound that more than one room relies on, with its unit and its reason.
//!
//! Knows: numbers. Refuses to know: how each room keeps to them.

use crate::size::{GIB, KIB, MIB};

/// The largest disk: 2^56 bytes is beyond every format we read and leaves room in signed sums.
pub const DISK_SIZE_MAX: u64 = 1 << 56;
/// The granule of zero detection, of cutting and of change maps: a page of every guest.
pub const PAGE_SIZE: u64 = 4 * KIB;
/// The longest name of a machine, job, host, repository or disk, in bytes.
pub const NAME_LENGTH_MAX: usize = 255;
/// The most disks of one machine: libvirt's and vSphere's largest virtual machines have fewer.
pub const DISKS_PER_MACHINE_MAX: usize = 1024;
/// The largest file kept with a point besides its disks (configuration, NVRAM, TPM state).
pub const POINT_FILE_SIZE_MAX: u64 = 64 * MIB;
/// The largest control message on any wire.
pub const MESSAGE_SIZE_MAX: usize = (4 * MIB) as usize;
/// The largest bulk frame on any wire: a read of the largest block with its header.
pub const FRAME_SIZE_MAX: usize = (8 * MIB) as usize;
/// Memory that one source task may hold in its queues.
pub const SOURCE_MEMORY_MAX: u64 = GIB / 4;
/// Memory that one target task may hold in its queues.
pub const TARGET_MEMORY_MAX: u64 = GIB / 2;
