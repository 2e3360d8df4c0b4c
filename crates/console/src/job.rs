//! `backstay job ...`
//!
//! Knows: what people say of jobs. Refuses to know: runs.

use crate::follow;
use crate::repository::{CompressionName, absolute};
use crate::server::{Server, unexpected};
use crate::show::{self, Table};
use base::{Error, Kind, Result};
use clap::{Args, Subcommand, ValueEnum};
use protocol::words::console::{ConsoleRequest as Q, ConsoleResponse as A, JobOverview};
use protocol::words::job::{
    ImageMachine, JobSettings, PlatformAddress, Quiesce, Schedule, Selection,
};
use protocol::words::session::Stop;
use std::path::PathBuf;

/// What to do with jobs.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// Show all jobs
    List,
    /// Show one job
    Show {
        /// Name or id
        job: String,
    },
    /// Make a job
    Create(Box<Create>),
    /// Change a job: only what is named
    Edit(Box<Edit>),
    /// Remove a job; its restore points stay
    Delete {
        /// Name or id
        job: String,
    },
    /// Start a run now
    Run {
        /// Name or id
        job: String,
        /// Watch it live, to its end
        #[arg(long)]
        follow: bool,
        /// Read everything and compare, whatever the change trackers say
        #[arg(long)]
        read_all: bool,
    },
    /// Stop the run at work
    Stop {
        /// Name or id
        job: String,
        /// Let the machines at work finish
        #[arg(long)]
        after_current: bool,
    },
    /// Put the schedule in force
    Enable {
        /// Name or id
        job: String,
    },
    /// Suspend the schedule; runs by hand go on
    Disable {
        /// Name or id
        job: String,
    },
}

/// Names of ways to freeze a guest.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum QuiesceName {
    /// Where the guest agent answers, else go on with a warning
    IfPossible,
    /// Fail the machine where it cannot be done
    Required,
    /// Never
    Off,
}

impl From<QuiesceName> for Quiesce {
    fn from(name: QuiesceName) -> Self {
        match name {
            QuiesceName::IfPossible => Self::IfPossible,
            QuiesceName::Required => Self::Required,
            QuiesceName::Off => Self::Off,
        }
    }
}

/// A new job.
#[derive(Clone, Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub struct Create {
    /// Name for the job
    pub name: String,
    /// Repository that takes the points
    #[arg(long)]
    pub repository: String,
    /// Host whose mover reads: where the hypervisor or the images are
    #[arg(long, default_value = "local")]
    pub host: String,
    /// libvirt connection of that host
    #[arg(long, default_value = "qemu:///system", conflicts_with = "image")]
    pub libvirt: String,
    /// Machine to back up, by name or id; may be given again
    #[arg(long, group = "what")]
    pub machine: Vec<String>,
    /// Back up all machines of the hypervisor
    #[arg(long, group = "what", conflicts_with = "machine")]
    pub all: bool,
    /// With --all: a machine to leave out; may be given again
    #[arg(long, requires = "all")]
    pub except: Vec<String>,
    /// Back up disk images instead: a machine NAME made of image files; may be given again
    #[arg(long, group = "what", value_name = "NAME=FILE[,FILE...]")]
    pub image: Vec<String>,
    /// How many points of each machine to keep
    #[arg(long, value_name = "POINTS", default_value_t = 14)]
    pub keep: u32,
    /// Run each day at this time
    #[arg(long, value_name = "HH:MM")]
    pub daily: Option<String>,
    /// Run every so many minutes, counted from midnight
    #[arg(long, value_name = "MINUTES", conflicts_with = "daily")]
    pub every: Option<u16>,
    /// Time zone of the schedule; this machine's if none is named
    #[arg(long)]
    pub zone: Option<String>,
    /// Freeze the guest's file systems
    #[arg(long, value_enum, default_value = "if-possible")]
    pub quiesce: QuiesceName,
    /// How new data is compressed
    #[arg(long, value_enum, default_value = "fast")]
    pub compression: CompressionName,
}

/// Changes to a job.
#[derive(Clone, Debug, Args)]
pub struct Edit {
    /// Name or id
    pub job: String,
    /// New name
    #[arg(long)]
    pub name: Option<String>,
    /// How many points of each machine to keep
    #[arg(long, value_name = "POINTS")]
    pub keep: Option<u32>,
    /// Run each day at this time
    #[arg(long, value_name = "HH:MM")]
    pub daily: Option<String>,
    /// Run every so many minutes
    #[arg(long, value_name = "MINUTES", conflicts_with = "daily")]
    pub every: Option<u16>,
    /// Run by hand only
    #[arg(long, conflicts_with_all = ["daily", "every"])]
    pub manual: bool,
    /// Time zone of the schedule
    #[arg(long)]
    pub zone: Option<String>,
    /// Machines to back up instead
    #[arg(long)]
    pub machine: Vec<String>,
    /// Freeze the guest's file systems
    #[arg(long, value_enum)]
    pub quiesce: Option<QuiesceName>,
    /// How new data is compressed
    #[arg(long, value_enum)]
    pub compression: Option<CompressionName>,
}

/// Does it.
pub fn run(server: &Server, verb: &Verb) -> Result<u8> {
    match verb {
        Verb::List => list(server)?,
        Verb::Show { job } => show_one(server, &find(server, job)?)?,
        Verb::Create(create) => {
            let settings = settings(server, create)?;
            said(server, &Q::JobCreate(settings), "created")?;
        }
        Verb::Edit(edit) => {
            let mut settings = find(server, &edit.job)?.job.settings;
            change(&mut settings, edit)?;
            said(
                server,
                &Q::JobUpdate {
                    key: edit.job.clone(),
                    settings,
                },
                "changed",
            )?;
        }
        Verb::Enable { job } => set_enabled(server, job, true)?,
        Verb::Disable { job } => set_enabled(server, job, false)?,
        Verb::Delete { job } => match server.ask(&Q::JobDelete { key: job.clone() })? {
            A::Done => {
                show::done(
                    server.json(),
                    &format!("job {job} deleted; its restore points stay"),
                )?;
            }
            other => return Err(unexpected(&other)),
        },
        Verb::Run {
            job,
            follow,
            read_all,
        } => {
            let request = Q::JobRun {
                key: job.clone(),
                read_all: *read_all,
            };
            return match server.ask(&request)? {
                A::Session(session) if *follow => follow::follow(server, &session),
                A::Session(session) => follow::started(server, &session),
                other => Err(unexpected(&other)),
            };
        }
        Verb::Stop { job, after_current } => stop(server, job, *after_current)?,
    }
    Ok(0)
}

fn stop(server: &Server, job: &str, after_current: bool) -> Result<()> {
    let running = crate::session::newest(server, Some(&job.to_owned()), 1)?
        .into_iter()
        .find(|session| !session.state.is_final());
    let session = running.ok_or_else(|| {
        Error::new(
            Kind::Conflict,
            "job.not-running",
            format!("the job {job} is not running"),
        )
        .hint("\u{201c}backstay session list\u{201d} shows when it last ran")
    })?;
    let stop = if after_current {
        Stop::AfterCurrent
    } else {
        Stop::Now
    };
    match server.ask(&Q::SessionStop {
        key: session.id.to_string(),
        stop,
    })? {
        A::Done => show::done(
            server.json(),
            &format!("session {} was asked to stop", session.id.short()),
        ),
        other => Err(unexpected(&other)),
    }
}

fn set_enabled(server: &Server, job: &str, enabled: bool) -> Result<()> {
    let mut settings = find(server, job)?.job.settings;
    settings.enabled = enabled;
    let word = if enabled { "enabled" } else { "disabled" };
    said(
        server,
        &Q::JobUpdate {
            key: job.to_owned(),
            settings,
        },
        word,
    )
}

fn said(server: &Server, request: &Q, word: &str) -> Result<()> {
    match server.ask(request)? {
        A::Job(job) if server.json() => show::json(&job),
        A::Job(job) => show::line(&format!("job {} {word}", job.settings.name)),
        other => Err(unexpected(&other)),
    }
}

fn all(server: &Server) -> Result<Vec<JobOverview>> {
    match server.ask(&Q::JobList)? {
        A::Jobs(jobs) => Ok(jobs),
        other => Err(unexpected(&other)),
    }
}

fn find(server: &Server, key: &str) -> Result<JobOverview> {
    let fits = |overview: &JobOverview| {
        overview.job.settings.name == key || overview.job.id.to_string() == key
    };
    all(server)?.into_iter().find(fits).ok_or_else(|| {
        Error::new(
            Kind::NotFound,
            "job.not-found",
            format!("there is no job \u{201c}{key}\u{201d}"),
        )
        .hint("\u{201c}backstay job list\u{201d} shows all")
    })
}

fn list(server: &Server) -> Result<()> {
    let jobs = all(server)?;
    if server.json() {
        return show::json(&jobs);
    }
    let mut table = Table::new(&[
        "NAME", "MACHINES", "SCHEDULE", "KEEP", "LAST RUN", "NEXT RUN",
    ]);
    for overview in &jobs {
        let settings = &overview.job.settings;
        let last = overview.last.as_ref().map_or_else(
            || "never".to_owned(),
            |last| format!("{}, {}", last.state.name(), show::time(last.created)),
        );
        table.row(vec![
            settings.name.clone(),
            machines(settings),
            schedule(settings),
            settings.keep_points.to_string(),
            last,
            show::time_or_dash(overview.next),
        ]);
    }
    table.print("no jobs; make one with \u{201c}backstay job create\u{201d}")
}

fn show_one(server: &Server, overview: &JobOverview) -> Result<()> {
    if server.json() {
        return show::json(overview);
    }
    let settings = &overview.job.settings;
    let text = serde_json::to_value(settings).unwrap_or_default();
    show::line(&format!(
        "job        {} ({})",
        settings.name, overview.job.id
    ))?;
    show::line(&format!("machines   {}", machines(settings)))?;
    show::line(&format!("platform   {}", text["platform"]))?;
    show::line(&format!("repository {}", settings.repository))?;
    show::line(&format!("schedule   {}", schedule(settings)))?;
    show::line(&format!(
        "keep       {} points of each machine",
        settings.keep_points
    ))?;
    show::line(&format!("next run   {}", show::time_or_dash(overview.next)))?;
    match &overview.last {
        Some(last) => show::line(&format!("last run   {}", follow::summary(last))),
        None => show::line("last run   never"),
    }
}

fn machines(settings: &JobSettings) -> String {
    match &settings.selection {
        Selection::Machines(names) => names.join(", "),
        Selection::AllExcept(names) if names.is_empty() => "all".to_owned(),
        Selection::AllExcept(names) => format!("all except {}", names.join(", ")),
    }
}

fn schedule(settings: &JobSettings) -> String {
    let text = match &settings.schedule {
        Schedule::Manual => return "by hand".to_owned(),
        Schedule::Daily { hour, minute, zone } => format!("daily {hour:02}:{minute:02} {zone}"),
        Schedule::Periodic { minutes, .. } => format!("every {minutes} min"),
    };
    if settings.enabled {
        text
    } else {
        format!("{text} (disabled)")
    }
}

fn settings(server: &Server, create: &Create) -> Result<JobSettings> {
    let host = match server.ask(&Q::HostList)? {
        A::Hosts(hosts) => hosts
            .into_iter()
            .find(|h| h.name == create.host || h.id.to_string() == create.host),
        other => return Err(unexpected(&other)),
    };
    let host = host.ok_or_else(|| not_found("host", &create.host))?;
    let repository = match server.ask(&Q::RepositoryList)? {
        A::Repositories(all) => all
            .into_iter()
            .find(|r| r.name == create.repository || r.id.to_string() == create.repository),
        other => return Err(unexpected(&other)),
    };
    let repository = repository.ok_or_else(|| not_found("repository", &create.repository))?;
    let images: Result<Vec<ImageMachine>> = create.image.iter().map(|text| image(text)).collect();
    let images = images?;
    let selection = if create.all {
        Selection::AllExcept(create.except.clone())
    } else if images.is_empty() {
        Selection::Machines(create.machine.clone())
    } else {
        Selection::Machines(images.iter().map(|machine| machine.name.clone()).collect())
    };
    let platform = if images.is_empty() {
        PlatformAddress::Libvirt {
            uri: create.libvirt.clone(),
        }
    } else {
        PlatformAddress::Image { machines: images }
    };
    Ok(JobSettings {
        name: create.name.clone(),
        host: host.id,
        platform,
        selection,
        repository: repository.id,
        schedule: new_schedule(
            create.daily.as_deref(),
            create.every,
            create.zone.as_deref(),
        )?
        .unwrap_or_default(),
        keep_points: create.keep,
        quiesce: create.quiesce.into(),
        compression: create.compression.into(),
        enabled: true,
    })
}

fn change(settings: &mut JobSettings, edit: &Edit) -> Result<()> {
    if let Some(name) = &edit.name {
        settings.name.clone_from(name);
    }
    if let Some(keep) = edit.keep {
        settings.keep_points = keep;
    }
    if let Some(schedule) = new_schedule(edit.daily.as_deref(), edit.every, edit.zone.as_deref())? {
        settings.schedule = schedule;
    }
    if edit.manual {
        settings.schedule = Schedule::Manual;
    }
    if !edit.machine.is_empty() {
        settings.selection = Selection::Machines(edit.machine.clone());
    }
    if let Some(quiesce) = edit.quiesce {
        settings.quiesce = quiesce.into();
    }
    if let Some(compression) = edit.compression {
        settings.compression = compression.into();
    }
    Ok(())
}

fn new_schedule(
    daily: Option<&str>,
    every: Option<u16>,
    zone: Option<&str>,
) -> Result<Option<Schedule>> {
    let zone = || match zone {
        Some(zone) => zone.to_owned(),
        None => {
            let system = jiff::tz::TimeZone::system();
            system.iana_name().unwrap_or("UTC").to_owned()
        }
    };
    match (daily, every) {
        (Some(text), _) => {
            let parsed = text.split_once(':').and_then(|(hour, minute)| {
                Some((hour.parse::<u8>().ok()?, minute.parse::<u8>().ok()?))
            });
            let (hour, minute) = parsed.filter(|(h, m)| *h < 24 && *m < 60).ok_or_else(|| {
                Error::invalid(
                    "job.schedule.invalid",
                    format!("\u{201c}{text}\u{201d} is not a time of day"),
                )
                .hint("for example --daily 22:30")
            })?;
            Ok(Some(Schedule::Daily {
                hour,
                minute,
                zone: zone(),
            }))
        }
        (None, Some(minutes)) => Ok(Some(Schedule::Periodic {
            minutes,
            zone: zone(),
        })),
        (None, None) => Ok(None),
    }
}

/// `NAME=FILE[,FILE...]`
fn image(text: &str) -> Result<ImageMachine> {
    let malformed = || {
        Error::invalid(
            "job.image-malformed",
            format!("\u{201c}{text}\u{201d} does not name a machine and its image files"),
        )
        .hint("for example --image web1=/images/web1.qcow2,/images/web1-data.raw")
    };
    let (name, files) = text.split_once('=').ok_or_else(malformed)?;
    if name.is_empty() || files.is_empty() {
        return Err(malformed());
    }
    let disks: Result<Vec<(String, String)>> = files
        .split(',')
        .enumerate()
        .map(|(index, file)| Ok((format!("disk{index}"), absolute(&PathBuf::from(file))?)))
        .collect();
    Ok(ImageMachine {
        name: name.to_owned(),
        disks: disks?,
    })
}

fn not_found(noun: &'static str, key: &str) -> Error {
    Error::new(
        Kind::NotFound,
        format!("{noun}.not-found"),
        format!("there is no {noun} \u{201c}{key}\u{201d}"),
    )
    .hint(format!("\u{201c}backstay {noun} list\u{201d} shows all"))
}
