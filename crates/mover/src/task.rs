//! Long work in the background.
//!
//! Knows: numbers for tasks, their live counters, their warnings, their end, and how to stop them.
//! Refuses to know: what they do.

use crate::pipeline::gauge::Gauge;
use base::cancel::Cancel;
use base::{Error, Kind, Result};
use protocol::words::agent::{TaskEnd, TaskNumber, TaskReport};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// The most tasks an agent remembers, running or ended. One run of a large machine needs one for
/// each disk; ended ones are forgotten oldest first.
const TASKS_MAX: usize = 2048;
/// The most tasks that run at once: each has its own threads and memory.
const RUNNING_MAX: usize = 64;
/// The most warnings one task keeps.
const WARNINGS_MAX: usize = 100;

/// One task, as its own work sees it.
#[derive(Default)]
pub struct Task {
    /// Its live numbers.
    pub gauge: Gauge,
    /// Asked to stop?
    pub cancel: Cancel,
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    warnings: Vec<(String, String)>,
    end: Option<TaskEnd>,
}

impl Task {
    /// Notes something a person should know; each code and sentence once.
    pub fn warn(&self, code: &str, sentence: impl Into<String>) {
        let warning = (code.to_owned(), sentence.into());
        tracing::warn!(code, "{}", warning.1);
        let mut state = self.state();
        if state.warnings.len() < WARNINGS_MAX && !state.warnings.contains(&warning) {
            state.warnings.push(warning);
        }
    }

    /// How far it is; waits up to `wait` for its end.
    pub fn report(&self, wait: Duration) -> TaskReport {
        let state = self.state();
        let waited = self
            .ended
            .wait_timeout_while(state, wait, |state| state.end.is_none());
        let state = waited.unwrap_or_else(PoisonError::into_inner).0;
        TaskReport {
            counters: self.gauge.counters(),
            warnings: state.warnings.clone(),
            end: state.end.clone(),
        }
    }

    fn has_ended(&self) -> bool {
        self.state().end.is_some()
    }

    fn end(&self, result: Result<TaskEnd>) {
        let end = result.unwrap_or_else(|error| {
            tracing::warn!(code = error.code(), "task failed: {error}");
            failed(&error)
        });
        self.state().end = Some(end);
        self.ended.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How an error ends a task.
fn failed(error: &Error) -> TaskEnd {
    TaskEnd::Failed {
        kind: error.kind(),
        code: error.code().to_owned(),
        message: error.to_string(),
        hint: error.hint_text().map(str::to_owned),
    }
}

/// All tasks of a process. Dropping it stops them and waits for their threads.
#[derive(Default)]
pub struct Tasks(Mutex<Table>);

#[derive(Default)]
struct Table {
    last: TaskNumber,
    closed: bool,
    tasks: BTreeMap<TaskNumber, Entry>,
}

struct Entry {
    task: Arc<Task>,
    thread: Option<JoinHandle<()>>,
}

impl Tasks {
    /// Starts work on a thread of its own.
    ///
    /// # Errors
    /// `Limit` (`mover.task.too-many`) where too many run; `Conflict` after [`Tasks::stop`].
    pub fn start(
        &self,
        name: &str,
        deed: impl FnOnce(&Task) -> Result<TaskEnd> + Send + 'static,
    ) -> Result<TaskNumber> {
        let mut table = self.table();
        if table.closed {
            return Err(Error::new(
                Kind::Conflict,
                "mover.task.ending",
                "this agent is ending and starts no more work",
            ));
        }
        table.make_room()?;
        table.last = table.last.wrapping_add(1);
        let number = table.last;
        let task = Arc::new(Task::default());
        let inside = Arc::clone(&task);
        let thread = std::thread::Builder::new()
            .name(format!("task-{number}"))
            .spawn(move || inside.end(run(&inside, deed)))
            .map_err(|error| Error::io("starting a thread", error))?;
        tracing::info!(task = number, "{name}: started");
        table.tasks.insert(
            number,
            Entry {
                task,
                thread: Some(thread),
            },
        );
        Ok(number)
    }

    /// The task of that number.
    ///
    /// # Errors
    /// `NotFound` (`mover.task.unknown`).
    pub fn find(&self, number: TaskNumber) -> Result<Arc<Task>> {
        let table = self.table();
        let entry = table.tasks.get(&number).ok_or_else(|| {
            Error::new(
                Kind::NotFound,
                "mover.task.unknown",
                format!("this agent has no task {number}"),
            )
        })?;
        Ok(Arc::clone(&entry.task))
    }

    /// Asks all tasks to stop and waits until their threads are gone.
    pub fn stop_all(&self) {
        let threads: Vec<_> = {
            let mut table = self.table();
            table.tasks.values_mut().filter_map(Entry::stop).collect()
        };
        join(threads);
    }

    /// Asks these tasks to stop and waits until their threads are gone.
    pub fn stop_these(&self, numbers: &[TaskNumber]) {
        let threads: Vec<_> = {
            let mut table = self.table();
            let entries = numbers.iter();
            entries
                .filter_map(|number| table.tasks.get_mut(number)?.stop())
                .collect()
        };
        join(threads);
    }

    /// As [`Tasks::stop_all`], and starts no more.
    pub fn stop(&self) {
        self.table().closed = true;
        self.stop_all();
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn stop(&mut self) -> Option<JoinHandle<()>> {
        self.task.cancel.cancel();
        self.thread.take()
    }
}

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        // A task never stops tasks, so no thread waits for itself here; panics were caught.
        drop(thread.join());
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Table {
    fn make_room(&mut self) -> Result<()> {
        let running = self
            .tasks
            .values()
            .filter(|entry| !entry.task.has_ended())
            .count();
        if running >= RUNNING_MAX {
            return Err(Error::new(
                Kind::Limit,
                "mover.task.too-many",
                format!("{running} tasks run already in this agent"),
            )
            .hint("wait for one to end"));
        }
        while self.tasks.len() >= TASKS_MAX {
            let oldest = self.tasks.iter().find(|(_, entry)| entry.task.has_ended());
            let Some(number) = oldest.map(|(number, _)| *number) else {
                break;
            };
            self.tasks.remove(&number);
        }
        Ok(())
    }
}

fn run(task: &Task, deed: impl FnOnce(&Task) -> Result<TaskEnd>) -> Result<TaskEnd> {
    catch_unwind(AssertUnwindSafe(|| deed(task))).unwrap_or_else(|_| {
        Err(Error::new(
            Kind::Bug,
            "mover.task.panic",
            "a task ended in an unforeseen way",
        )
        .hint("please report this with the log of the agent"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_waited_for_and_its_panic_is_an_error() {
        let tasks = Tasks::default();
        let good = tasks.start("good", |_| Ok(TaskEnd::Sent)).unwrap();
        let bad = tasks.start("bad", |_| panic!("no")).unwrap();
        let wait = Duration::from_secs(10);
        assert_eq!(
            tasks.find(good).unwrap().report(wait).end,
            Some(TaskEnd::Sent)
        );
        let end = tasks.find(bad).unwrap().report(wait).end;
        assert!(matches!(
            end,
            Some(TaskEnd::Failed {
                kind: Kind::Bug,
                ..
            })
        ));
        assert_eq!(tasks.find(77).err().unwrap().code(), "mover.task.unknown");
    }

    #[test]
    fn stopping_asks_waits_and_starts_no_more() {
        let tasks = Tasks::default();
        let number = tasks
            .start("long", |task| {
                loop {
                    task.cancel.check()?;
                    std::thread::sleep(Duration::from_millis(1));
                }
            })
            .unwrap();
        assert_eq!(tasks.find(number).unwrap().report(Duration::ZERO).end, None);
        tasks.stop();
        let end = tasks.find(number).unwrap().report(Duration::ZERO).end;
        assert!(matches!(
            end,
            Some(TaskEnd::Failed {
                kind: Kind::Cancelled,
                ..
            })
        ));
        assert_eq!(
            tasks
                .start("late", |_| Ok(TaskEnd::Sent))
                .unwrap_err()
                .code(),
            "mover.task.ending"
        );
    }

    #[test]
    fn a_warning_is_kept_once() {
        let task = Task::default();
        task.warn("a.b.c", "twice");
        task.warn("a.b.c", "twice");
        assert_eq!(task.report(Duration::ZERO).warnings.len(), 1);
    }
}
