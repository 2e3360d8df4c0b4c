//! Watching a session live.
//!
//! Knows: bars at a terminal, lines elsewhere, JSON lines where asked. Refuses to know: kinds.

use crate::server::{Server, unexpected};
use crate::show;
use base::{Kind, Result};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use protocol::words::console::{ConsoleRequest, ConsoleResponse};
use protocol::words::session::{Level, LogLine, Session, SessionKind, SessionState, Task};
use std::collections::HashMap;
use std::io::IsTerminal;

/// Whether a command waits for the session it starts.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Wait {
    /// Return at once instead of watching the session to its end
    #[arg(long)]
    pub no_wait: bool,
}

impl Wait {
    /// Shows the session as the command wants it; the exit code.
    pub fn show(self, server: &Server, session: &Session) -> Result<u8> {
        if self.no_wait {
            started(server, session)
        } else {
            follow(server, session)
        }
    }
}

/// Says that a session was started.
pub fn started(server: &Server, session: &Session) -> Result<u8> {
    if server.json() {
        show::json(session)?;
    } else {
        show::line(&format!(
            "session {} started; follow it with: backstay session follow {}",
            session.id.short(),
            session.id.short()
        ))?;
    }
    Ok(0)
}

/// Watches a session to its end; the exit code.
pub fn follow(server: &Server, session: &Session) -> Result<u8> {
    let mut view = View::new(server.json());
    let (mut seen, mut line) = (0, 0);
    loop {
        let request = ConsoleRequest::SessionFollow {
            session: session.id,
            seen,
            line,
        };
        let (session, lines, revision) = match server.ask(&request) {
            Ok(ConsoleResponse::Followed {
                session,
                lines,
                revision,
            }) => (session, lines, revision),
            Ok(other) => return Err(unexpected(&other)),
            // The session goes on without its server, and so does watching it.
            Err(error) if error.kind() == Kind::Unreachable => {
                server.dial_again()?;
                seen = 0;
                continue;
            }
            Err(error) => return Err(error),
        };
        seen = revision;
        line = lines.last().map_or(line, |last| last.number);
        view.update(&session, &lines)?;
        if session.state.is_final() && lines.is_empty() {
            view.end(&session)?;
            return Ok(exit_code(&session.state));
        }
        if session.state.is_final() {
            // Once more for lines beyond one answer; the session does not change any more.
            seen = 0;
        }
    }
}

/// The exit code of a session that has ended.
pub const fn exit_code(state: &SessionState) -> u8 {
    match state {
        SessionState::Warning => 11,
        SessionState::Failed => 12,
        SessionState::Stopped => 13,
        _ => 0,
    }
}

struct View {
    json: bool,
    bars: MultiProgress,
    of_task: HashMap<base::id::TaskId, ProgressBar>,
}

impl View {
    fn new(json: bool) -> Self {
        let live = !json && std::io::stderr().is_terminal();
        let target = if live {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        Self {
            json,
            bars: MultiProgress::with_draw_target(target),
            of_task: HashMap::new(),
        }
    }

    fn update(&mut self, session: &Session, lines: &[LogLine]) -> Result<()> {
        for line in lines {
            if self.json {
                show::json_line(&serde_json::json!({ "line": line }))?;
            } else {
                let text = draw_line(line);
                self.bars.suspend(|| show::line(&text))?;
            }
        }
        for task in &session.tasks {
            // Machines repeat what their disks say.
            if task.name.contains('/') || session.tasks.len() == 1 {
                self.draw_task(task);
            }
        }
        Ok(())
    }

    fn draw_task(&mut self, task: &Task) {
        let bars = &self.bars;
        let bar = self.of_task.entry(task.id).or_insert_with(|| {
            let style = ProgressStyle::with_template(
                "  {prefix:<20!} {bar:30} {percent:>3}% {binary_bytes_per_sec:>12} {msg}",
            );
            let bar = bars.add(ProgressBar::new(task.counters.processed.0));
            bar.set_prefix(show::clean(&task.name));
            if let Ok(style) = style {
                bar.set_style(style);
            }
            bar
        });
        let counters = &task.counters;
        bar.set_length(counters.processed.0.max(1));
        bar.set_position(counters.done.0);
        bar.set_message(match &task.state {
            SessionState::Waiting(reason) => show::clean(reason),
            state if state.is_final() => state.name().to_owned(),
            _ => format!("read {}, stored {}", counters.read, counters.stored),
        });
        if task.state.is_final() && !bar.is_finished() {
            bar.abandon();
        }
    }

    fn end(&self, session: &Session) -> Result<()> {
        if self.json {
            return show::json_line(&serde_json::json!({ "session": session }));
        }
        show::line(&summary(session))
    }
}

/// A line of the log as text.
pub fn draw_line(line: &LogLine) -> String {
    let mark = match line.level {
        Level::Info => " ",
        Level::Warning => "!",
        Level::Error => "x",
    };
    let subject = if line.subject.is_empty() {
        String::new()
    } else {
        format!("{}: ", show::clean(&line.subject))
    };
    let code = if line.level == Level::Info {
        String::new()
    } else {
        format!(" [{}]", line.code)
    };
    let time = show::time(line.time);
    format!(
        "{} {mark} {subject}{}{code}",
        &time[time.len().saturating_sub(8)..],
        show::clean(&line.text)
    )
}

/// How a session ended, on one line.
pub fn summary(session: &Session) -> String {
    let took = match (session.started, session.ended) {
        (Some(started), Some(ended)) => format!(" after {}", show::duration(ended.since(started))),
        _ => String::new(),
    };
    let mut text = format!(
        "{} {}: {}{took}",
        session.kind.name(),
        session.name,
        session.state.name()
    );
    if moves_disks(&session.kind) && session.counters.processed.0 > 0 {
        text += &format!("\n  {}", show::counters(&session.counters));
    }
    if matches!(session.kind, SessionKind::Verify { .. }) && session.counters.read.0 > 0 {
        text += &format!(
            "\n  {} of stored data read and checked",
            session.counters.read
        );
    }
    text
}

/// Whether a session reads or writes disks: of others these counters would say nothing.
const fn moves_disks(kind: &SessionKind) -> bool {
    matches!(
        kind,
        SessionKind::Backup { .. } | SessionKind::RestoreMachine(_) | SessionKind::RestoreDisk(_)
    )
}
