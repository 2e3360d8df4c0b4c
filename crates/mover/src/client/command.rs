//! The commands of the prompt.
//!
//! Knows: their names and arguments. Refuses to know: how they are done.

use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// One line of the prompt.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, name = "", disable_help_flag = false)]
pub struct Line {
    /// Answer in JSON, one value a line
    #[arg(long, global = true)]
    pub json: bool,
    /// File whose first line is the password of a repository to open
    #[arg(long, value_name = "FILE", global = true)]
    pub password_file: Option<PathBuf>,
    /// The command.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// A command. A POINT is an id, its last digits, or `latest`; a FILE is POINT/PATH as `ls` shows it.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Open a repository
    Open {
        /// Its folder
        repository: PathBuf,
    },
    /// List the restore points
    Points,
    /// List the files of restore points
    Ls {
        /// With size and machine
        #[arg(short, long)]
        long: bool,
        /// One point only
        point: Option<String>,
    },
    /// Say all that is known of a restore point, or of the repository
    Stat {
        /// The point
        point: Option<String>,
    },
    /// Write a file, or a part of it, to standard output
    Cat {
        /// The file
        file: String,
        /// Where to begin, in bytes
        #[arg(long, default_value_t = 0)]
        offset: u64,
        /// How many bytes at most
        #[arg(long)]
        length: Option<u64>,
    },
    /// List the ranges of a disk that hold data
    Map {
        /// The disk, such as latest/disks/vda.raw
        file: String,
    },
    /// List the ranges in which two points' disks differ
    Diff {
        /// One point
        point: String,
        /// The other
        other: String,
        /// One disk only
        disk: Option<String>,
    },
    /// Write a file, or all files of a point, to a folder or file
    Extract {
        /// The file, or with --all the point
        file: String,
        /// Everything of the point
        #[arg(long)]
        all: bool,
        /// Where to: a file, or with --all a folder
        #[arg(short, long, value_name = "PATH")]
        output: PathBuf,
        /// Format of disks: raw or qcow2
        #[arg(long, default_value = "raw")]
        format: String,
        /// Replace what is there
        #[arg(long)]
        overwrite: bool,
    },
    /// Check that restore points are whole
    Verify {
        /// One point only
        point: Option<String>,
        /// Read and check every stored byte
        #[arg(long)]
        read_data: bool,
    },
    /// Leave
    #[command(alias = "exit")]
    Quit,
}
