//! A site in memory: the simulated platform, and a server, a mover and agents that are played here.
//!
//! Knows: what the real ones would keep: sessions' words, running agents, published points.
//! Refuses to know: how a manager works; it only counts its deeds and lets it die at one of them.

use crate::shown::Shown;
use base::clock::{Clock, Timestamp};
use base::digest::Digest;
use base::id::{HostId, JobId, MachineId, RepositoryId, SessionId};
use base::random::SeededRandom;
use base::size::{ByteCount, MIB};
use base::{Error, Kind, Result};
use manager::agents::{Agents, Dial};
use manager::ask::Ask;
use manager::desk::Desk;
use manager::job::{Connect, Run, recover};
use manager::journal::Journal;
use platform::contract::{MachineKey, Platform};
use platform::simulated::Simulated;
use protocol::words::agent::{
    AgentRequest, AgentResponse, ImageDescription, ReadMode, TaskEnd, TaskReport,
};
use protocol::words::counters::Counters;
use protocol::words::job::{JobSettings, PlatformAddress, Quiesce, Schedule, Selection};
use protocol::words::manager::{LeaseAnswer, ManagerRequest, ManagerResponse};
use protocol::words::mover::{MoverRequest, MoverResponse, RunningAgent};
use protocol::words::point::{Point, PointDisk, PointFile, PointKind};
use protocol::words::repository::{
    Compression, RepositoryAccess, RepositoryLocation, RepositorySummary,
};
use protocol::words::session::{
    LogLine, OrderedHost, OrderedRepository, SessionKind, SessionOrder, SessionState,
};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub const HOST: HostId = HostId::from_bytes([1; 16]);
pub const REPOSITORY: RepositoryId = RepositoryId::from_bytes([2; 16]);
pub const JOB: JobId = JobId::from_bytes([3; 16]);

/// Points that the agent played here lists at once.
const POINTS_PER_PAGE: usize = 2;

/// What becomes of a manager's deeds.
#[derive(Default)]
pub struct Fate {
    deeds: AtomicU64,
    ending: Option<(u64, End)>,
    names: Mutex<Vec<String>>,
}

/// What happens at the chosen deed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The manager dies before it.
    DiesBefore,
    /// It is done, but the manager dies before it hears so.
    DiesAfter,
    /// It fails; the manager lives on.
    Fails,
    /// It is done, but the answer is lost; the manager lives on.
    AnswerLost,
}

impl Fate {
    pub fn at(deed: u64, end: End) -> Self {
        Self {
            ending: Some((deed, end)),
            ..Self::default()
        }
    }

    pub fn deeds(&self) -> u64 {
        self.deeds.load(Ordering::SeqCst)
    }

    pub fn name_of(&self, deed: u64) -> String {
        let names = self.names.lock().unwrap();
        names
            .get(usize::try_from(deed).unwrap())
            .cloned()
            .unwrap_or_default()
    }

    /// Passes a deed on, or not.
    pub fn pass<T>(&self, name: &str, call: impl FnOnce() -> Result<T>) -> Result<T> {
        let number = self.deeds.fetch_add(1, Ordering::SeqCst);
        self.names.lock().unwrap().push(name.to_owned());
        let gone = || Error::new(Kind::Timeout, "test.gone", format!("cut at {name}"));
        match self.ending {
            Some((at, End::DiesBefore)) if number >= at => Err(gone()),
            Some((at, End::DiesAfter)) if number > at => Err(gone()),
            Some((at, End::Fails)) if number == at => Err(gone()),
            Some((at, End::DiesAfter | End::AnswerLost)) if number == at => {
                let _ = call();
                Err(gone())
            }
            _ => call(),
        }
    }
}

/// Time that moves a little whenever it is looked at.
#[derive(Default)]
pub struct Ticking(AtomicI64);

impl Clock for Ticking {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.fetch_add(1000, Ordering::SeqCst))
    }
    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.now().0.unsigned_abs())
    }
    fn sleep(&self, _: Duration) {}
}

/// What outlives managers.
#[derive(Default)]
pub struct Kept {
    pub points: Vec<Point>,
    /// Every point there ever was.
    pub ever: Vec<base::id::PointId>,
    pub lines: Vec<LogLine>,
    pub ends: Vec<SessionState>,
    pub agents: Vec<(u32, SessionId)>,
    next_agent: u32,
    leases: i64,
    making: BTreeMap<u32, Making>,
}

#[derive(Default)]
struct Making {
    point: Option<base::id::PointId>,
    disks: Vec<PointDisk>,
    files: Vec<PointFile>,
    bytes: BTreeMap<String, Vec<u8>>,
    ends: Vec<TaskEnd>,
}

/// The site.
pub struct Scene {
    pub platform: Arc<Simulated>,
    pub machine: MachineKey,
    pub kept: Arc<Mutex<Kept>>,
    pub keep_points: u32,
    clock: Arc<Ticking>,
    random: Arc<SeededRandom>,
    folder: tempfile::TempDir,
    sessions: AtomicU64,
}

impl Scene {
    pub fn new() -> Self {
        let platform = Arc::new(Simulated::new(7));
        let disks = [("vda", ByteCount(MIB)), ("vdb", ByteCount(2 * MIB))];
        let machine = platform.add_machine("web1", &disks);
        platform.work(&machine, 20).unwrap();
        Self {
            platform,
            machine,
            kept: Arc::default(),
            keep_points: 5,
            clock: Arc::default(),
            random: Arc::new(SeededRandom::new(3)),
            folder: tempfile::tempdir().unwrap(),
            sessions: AtomicU64::new(1),
        }
    }

    pub fn new_session(&self) -> SessionId {
        SessionId::new(self.sessions.fetch_add(1, Ordering::SeqCst), [1; 10])
    }

    /// A manager's process for a session.
    pub fn manager(&self, session: SessionId, fate: &Arc<Fate>) -> Run {
        let order = self.order(session);
        let played = Played {
            kept: self.kept.clone(),
            fate: fate.clone(),
            agent: 0,
        };
        let server: Arc<dyn Ask<ManagerRequest, ManagerResponse>> = Arc::new(played.clone());
        let desk = Arc::new(Desk::new(server, self.clock.clone(), self.random.clone()));
        let folder = self.folder.path().join(session.to_string());
        let journal = Arc::new(Journal::open(&folder).unwrap());
        let dial: Arc<dyn Dial> = Arc::new(played);
        let hosts = order.hosts.clone();
        Run {
            agents: Agents::new(session, hosts, dial, journal.clone(), desk.clone()),
            order,
            desk,
            journal,
            platforms: Arc::new(Platforms {
                inner: self.platform.clone(),
                fate: fate.clone(),
            }),
        }
    }

    fn order(&self, id: SessionId) -> SessionOrder {
        SessionOrder {
            id,
            kind: SessionKind::Backup {
                job: JOB,
                read_all: false,
            },
            job: Some(JobSettings {
                name: "nightly".into(),
                host: HOST,
                platform: PlatformAddress::Libvirt {
                    uri: "simulated".into(),
                },
                selection: Selection::Machines(vec!["web1".into()]),
                repository: REPOSITORY,
                schedule: Schedule::Manual,
                keep_points: self.keep_points,
                quiesce: Quiesce::IfPossible,
                compression: Compression::Fast,
                enabled: true,
            }),
            repository: Some(OrderedRepository {
                id: REPOSITORY,
                name: "main".into(),
                access: RepositoryAccess {
                    location: RepositoryLocation::Folder {
                        path: "/backup".into(),
                    },
                    password: None,
                },
                host: HOST,
            }),
            hosts: vec![OrderedHost {
                id: HOST,
                name: "local".into(),
                mover: "m:1".into(),
            }],
            image_machines: Vec::new(),
        }
    }

    /// Runs a session to its end in a manager that nothing befalls; how it ended.
    pub fn run(&self) -> SessionState {
        let run = self.manager(self.new_session(), &Arc::new(Fate::default()));
        run.to_the_end().unwrap();
        self.kept.lock().unwrap().ends.last().cloned().unwrap()
    }

    /// What a dead manager's successor does.
    pub fn recover(&self, session: SessionId) {
        let run = self.manager(session, &Arc::new(Fate::default()));
        recover::run(&run).unwrap();
    }

    /// Nothing is left but points, and trackers that were some point's.
    pub fn assert_clean(&self, when: &str) {
        let leaks = self.platform.leaks();
        assert!(leaks.is_empty(), "{when}: {leaks:?}");
        let kept = self.kept.lock().unwrap();
        assert!(kept.agents.is_empty(), "{when}: agents {:?}", kept.agents);
        assert_eq!(kept.leases, 0, "{when}: leases");
        for token in self.platform.tracker_tokens() {
            let published = kept.ever.contains(&token.point());
            assert!(
                published,
                "{when}: a tracker of a point that never was: {token}"
            );
        }
    }

    /// As [`Self::assert_clean`], and no tracker is left but the newest point's.
    pub fn assert_tidy(&self, when: &str) {
        self.assert_clean(when);
        let newest = self.kept.lock().unwrap().points.last().unwrap().id;
        let tokens = self.platform.tracker_tokens();
        assert!(
            tokens.iter().all(|token| token.point() == newest),
            "{when}: {tokens:?}"
        );
    }

    pub fn codes(&self) -> Vec<String> {
        self.kept
            .lock()
            .unwrap()
            .lines
            .iter()
            .map(|line| line.code.clone())
            .collect()
    }
}

struct Platforms {
    inner: Arc<Simulated>,
    fate: Arc<Fate>,
}

impl Connect for Platforms {
    fn connect(&self, _: &PlatformAddress) -> Result<Arc<dyn Platform>> {
        Ok(Arc::new(Shown {
            inner: self.inner.clone(),
            fate: self.fate.clone(),
        }))
    }
}

/// The server, the mover and one agent, as one manager reaches them.
#[derive(Clone)]
struct Played {
    kept: Arc<Mutex<Kept>>,
    fate: Arc<Fate>,
    agent: u32,
}

impl Ask<ManagerRequest, ManagerResponse> for Played {
    fn ask(&self, question: &ManagerRequest) -> Result<ManagerResponse> {
        let name = format!("server {question:?}")
            .chars()
            .take(60)
            .collect::<String>();
        self.fate.pass(&name, || {
            let mut kept = self.kept.lock().unwrap();
            match question {
                ManagerRequest::Log(lines) => {
                    for line in lines {
                        let number = kept.lines.len() as u64 + 1;
                        kept.lines.push(LogLine {
                            number,
                            time: line.time,
                            level: line.level,
                            code: line.code.clone(),
                            subject: line.subject.clone(),
                            text: line.text.clone(),
                        });
                    }
                }
                ManagerRequest::Lease(_) => {
                    kept.leases += 1;
                    return Ok(ManagerResponse::Lease(LeaseAnswer::Granted));
                }
                ManagerRequest::Release(_) => kept.leases -= 1,
                ManagerRequest::Heartbeat => return Ok(ManagerResponse::Alive(None)),
                ManagerRequest::Finish { state, .. } => {
                    // As the server does: an ended session holds nothing.
                    kept.leases = 0;
                    kept.ends.push(state.clone());
                }
                _ => {}
            }
            Ok(ManagerResponse::Done)
        })
    }
}

impl Ask<MoverRequest, MoverResponse> for Played {
    fn ask(&self, question: &MoverRequest) -> Result<MoverResponse> {
        self.fate.pass(&format!("mover {question:?}"), || {
            let mut kept = self.kept.lock().unwrap();
            match question {
                MoverRequest::StartAgent { session, purpose } => {
                    kept.next_agent += 1;
                    let pid = kept.next_agent;
                    kept.agents.push((pid, *session));
                    kept.making.insert(pid, Making::default());
                    Ok(MoverResponse::Started(RunningAgent {
                        pid,
                        address: format!("a:{pid}"),
                        session: *session,
                        purpose: purpose.clone(),
                    }))
                }
                MoverRequest::StopAgents { session } => {
                    let before = kept.agents.len();
                    kept.agents.retain(|(_, of)| of != session);
                    let alive: Vec<u32> = kept.agents.iter().map(|(pid, _)| *pid).collect();
                    kept.making.retain(|pid, _| alive.contains(pid));
                    let ended = u32::try_from(before - kept.agents.len()).unwrap();
                    Ok(MoverResponse::Stopped(ended))
                }
                other => panic!("{other:?}"),
            }
        })
    }
}

impl Dial for Played {
    fn mover(&self, _: &OrderedHost) -> Result<Box<dyn Ask<MoverRequest, MoverResponse>>> {
        Ok(Box::new(self.clone()))
    }
    fn agent(
        &self,
        _: &OrderedHost,
        address: &str,
    ) -> Result<Box<dyn Ask<AgentRequest, AgentResponse>>> {
        let agent = address.trim_start_matches("a:").parse().unwrap();
        Ok(Box::new(Self {
            agent,
            ..self.clone()
        }))
    }
}

impl Ask<AgentRequest, AgentResponse> for Played {
    fn ask(&self, question: &AgentRequest) -> Result<AgentResponse> {
        let name = format!("agent {question:?}")
            .chars()
            .take(60)
            .collect::<String>();
        self.fate.pass(&name, || {
            let mut kept = self.kept.lock().unwrap();
            let now = Timestamp(i64::try_from(kept.points.len()).unwrap() + 1);
            kept.command(self.agent, question, now)
        })
    }
}

impl Making {
    fn piece(&mut self, path: &str, from: ByteCount, bytes: &[u8], more: bool) -> AgentResponse {
        let whole = self.bytes.entry(path.to_owned()).or_default();
        assert_eq!(whole.len() as u64, from.0, "{path}");
        whole.extend(bytes);
        if more {
            return AgentResponse::Done;
        }
        let file = PointFile {
            path: path.to_owned(),
            size: ByteCount(whole.len() as u64),
            root: Digest([7; 32]),
        };
        self.files.push(file.clone());
        AgentResponse::File(file)
    }
}

impl Kept {
    /// Small pages, so that a few points take several.
    fn page(&self, after: Option<base::id::PointId>) -> AgentResponse {
        let mut points = self.points.clone();
        points.sort_by_key(|point| point.id);
        points.retain(|point| after.is_none_or(|after| point.id > after));
        let more = points.len() > POINTS_PER_PAGE;
        points.truncate(POINTS_PER_PAGE);
        AgentResponse::Points { points, more }
    }

    fn command(
        &mut self,
        agent: u32,
        question: &AgentRequest,
        now: Timestamp,
    ) -> Result<AgentResponse> {
        let gone = || Error::new(Kind::Unreachable, "protocol.test", "the agent is gone");
        let making = self.making.get_mut(&agent).ok_or_else(gone)?;
        Ok(match question {
            AgentRequest::OpenRepository { .. } => AgentResponse::Repository(RepositorySummary {
                id: REPOSITORY,
                format_version: 1,
                encrypted: false,
                created: Timestamp(0),
                capacity: ByteCount(100),
                free: ByteCount(50),
                points: self.points.len() as u64,
                stored: ByteCount(0),
                damaged_points: Vec::new(),
            }),
            AgentRequest::ListPoints { after } => {
                return Ok(self.page(*after));
            }
            AgentRequest::ShowPoint { point } => {
                let found = self.points.iter().find(|known| known.id == *point);
                AgentResponse::Point(Box::new(found.cloned().ok_or_else(|| {
                    Error::new(Kind::NotFound, "store.point.not-found", "no such point")
                })?))
            }
            AgentRequest::BeginPoint { point, .. } => {
                making.point = Some(*point);
                AgentResponse::Done
            }
            AgentRequest::ProbeImage { .. } => AgentResponse::Image(ImageDescription {
                format: "raw".into(),
                size: ByteCount(MIB),
                allocated: ByteCount(MIB),
                notes: Vec::new(),
            }),
            AgentRequest::PutFile {
                path,
                from,
                bytes,
                more,
            } => making.piece(path, *from, bytes, *more),
            AgentRequest::CopyDisk { order } => {
                let kind = match order.mode {
                    ReadMode::All => PointKind::Full,
                    ReadMode::Changed => PointKind::Incremental,
                };
                let disk = PointDisk {
                    name: order.name.clone(),
                    size: order.size,
                    root: Digest([9; 32]),
                    kind,
                    attributes: order.attributes.clone(),
                    tracker: BTreeMap::new(),
                };
                making.disks.push(disk.clone());
                making.ends.push(TaskEnd::Disk(disk));
                AgentResponse::Started(u32::try_from(making.ends.len()).unwrap())
            }
            AgentRequest::Collect => {
                let (freed, rewritten) = (ByteCount(1), ByteCount(0));
                making.ends.push(TaskEnd::Collected {
                    freed,
                    rewritten,
                    waiting: 0,
                });
                AgentResponse::Started(u32::try_from(making.ends.len()).unwrap())
            }
            AgentRequest::Progress { task, .. } => AgentResponse::Task(Box::new(TaskReport {
                counters: Counters::default(),
                warnings: Vec::new(),
                end: Some(making.ends[*task as usize - 1].clone()),
            })),
            AgentRequest::CommitPoint { draft, trackers } => {
                let mut disks = std::mem::take(&mut making.disks);
                for disk in &mut disks {
                    disk.tracker = trackers.get(&disk.name).cloned().unwrap_or_default();
                }
                let incremental = disks.iter().any(|disk| disk.kind == PointKind::Incremental);
                let point = Point {
                    id: making.point.unwrap(),
                    repository: REPOSITORY,
                    created: now,
                    draft: draft.clone(),
                    kind: if incremental {
                        PointKind::Incremental
                    } else {
                        PointKind::Full
                    },
                    disks,
                    files: std::mem::take(&mut making.files),
                    counters: Counters::default(),
                };
                self.ever.push(point.id);
                self.points.push(point.clone());
                AgentResponse::Point(Box::new(point))
            }
            AgentRequest::DeletePoints { points } => {
                self.points.retain(|point| !points.contains(&point.id));
                AgentResponse::Done
            }
            AgentRequest::Cancel { .. } | AgentRequest::AbortPoint => AgentResponse::Done,
            other => panic!("{other:?}"),
        })
    }
}

pub fn machine_id(machine: &MachineKey) -> MachineId {
    MachineId::of_platform("libvirt", &machine.0)
}
