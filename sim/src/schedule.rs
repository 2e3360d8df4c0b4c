//! Several processes at once, in an order that a plan decides.
//!
//! Knows: one thread per process, of which only one runs: at each call that others can notice it
//! asks who goes on. The same plan gives the same order, always.
//! Refuses to know: what the processes do.

use crate::disk::{Call, Gate, SimDisk, SimFiles};
use base::random::SeededRandom;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Who runs when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Plan {
    /// The actors run one after another in this order, but at each of these steps (counted over
    /// all actors) the one named takes over until it ends or another takes over.
    Switches {
        /// All actors.
        order: Vec<usize>,
        /// Step and who takes over, in order.
        at: Vec<(u64, usize)>,
    },
    /// One step in `one_in` another actor takes over, at random.
    Random {
        /// The seed.
        seed: u64,
        /// How seldom.
        one_in: u64,
    },
}

/// What an actor does with its door to the disk.
pub type Actor<'a> = Box<dyn FnOnce(SimFiles) + Send + 'a>;

struct Turn {
    state: Mutex<TurnState>,
    wake: Vec<Condvar>,
}

struct TurnState {
    current: usize,
    alive: Vec<bool>,
    step: u64,
    plan: Plan,
    random: SeededRandom,
}

impl TurnState {
    /// Who goes on at this step.
    fn next(&mut self) -> usize {
        self.step += 1;
        let alive: Vec<usize> = (0..self.alive.len()).filter(|a| self.alive[*a]).collect();
        let still = self.alive[self.current];
        match &self.plan {
            Plan::Switches { order, at } => {
                let wanted = at
                    .iter()
                    .find(|(step, _)| *step == self.step)
                    .map(|(_, to)| *to);
                match wanted {
                    Some(to) if self.alive[to] => to,
                    _ if still => self.current,
                    _ => order
                        .iter()
                        .copied()
                        .find(|a| self.alive[*a])
                        .unwrap_or(self.current),
                }
            }
            Plan::Random { one_in, .. } => {
                if alive.is_empty() || (still && !self.random.one_in(*one_in)) {
                    return self.current;
                }
                let pick = self.random.below(alive.len() as u64);
                alive[usize::try_from(pick).unwrap_or(0)]
            }
        }
    }
}

impl Turn {
    /// Hands over if the plan says so, and waits to be called again.
    fn pass(&self, me: usize) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.current = state.next();
        if state.current != me {
            self.wake[state.current].notify_one();
        }
        while state.current != me {
            state = self.wake[me]
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn wait_for_start(&self, me: usize) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.current != me {
            state = self.wake[me]
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn end(&self, me: usize) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.alive[me] = false;
        state.current = state.next();
        self.wake[state.current].notify_one();
    }
}

struct ActorGate {
    turn: Arc<Turn>,
    actor: usize,
}

impl Gate for ActorGate {
    fn pass(&self, call: Call) {
        if call.is_shared() {
            self.turn.pass(self.actor);
        }
    }
}

/// Hands the turn on even where the actor panics, so that no other waits for ever.
struct Running<'a> {
    turn: &'a Turn,
    actor: usize,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.turn.end(self.actor);
    }
}

/// Runs the actors on `disk` by `plan`. Returns the number of steps.
pub fn run(disk: &SimDisk, plan: &Plan, actors: Vec<Actor<'_>>) -> u64 {
    let (first, seed) = match plan {
        Plan::Switches { order, .. } => (order.first().copied().unwrap_or(0), 0),
        Plan::Random { seed, .. } => (0, *seed),
    };
    let turn = Arc::new(Turn {
        state: Mutex::new(TurnState {
            current: first,
            alive: vec![true; actors.len()],
            step: 0,
            plan: plan.clone(),
            random: SeededRandom::new(seed),
        }),
        wake: actors.iter().map(|_| Condvar::new()).collect(),
    });
    // Doors are made here, in order, so that process numbers do not depend on threads.
    let with_doors: Vec<_> = actors
        .into_iter()
        .enumerate()
        .map(|(actor, deed)| {
            let gate = ActorGate {
                turn: Arc::clone(&turn),
                actor,
            };
            (actor, disk.gated_process(Some(Arc::new(gate))), deed)
        })
        .collect();
    std::thread::scope(|scope| {
        for (actor, files, deed) in with_doors {
            let turn = &turn;
            scope.spawn(move || {
                turn.wait_for_start(actor);
                let _running = Running { turn, actor };
                deed(files);
            });
        }
    });
    turn.state
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .step
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::files::{Files, Path};

    fn order_of(plan: &Plan) -> (Vec<u64>, u64) {
        let disk = SimDisk::new();
        let actor = || -> Actor<'static> {
            Box::new(|files: SimFiles| {
                for _ in 0..4 {
                    files.list(&Path::root()).unwrap();
                }
            })
        };
        let steps = run(&disk, plan, vec![actor(), actor(), actor()]);
        (
            disk.events()
                .iter()
                .filter_map(|event| event.process)
                .collect(),
            steps,
        )
    }

    #[test]
    fn switches_happen_where_the_plan_says() {
        let plan = Plan::Switches {
            order: vec![1, 0, 2],
            at: vec![(3, 2)],
        };
        let (order, steps) = order_of(&plan);
        assert_eq!(order, [2, 2, 3, 3, 3, 3, 2, 2, 1, 1, 1, 1]);
        assert_eq!(steps, 15, "one step per call and one per end");
    }

    #[test]
    fn a_seed_gives_one_order_and_seeds_differ() {
        let of = |seed| order_of(&Plan::Random { seed, one_in: 2 }).0;
        let all: std::collections::BTreeSet<_> = (0..50).map(of).collect();
        assert!(all.len() > 40, "{}", all.len());
        for seed in 0..20 {
            assert_eq!(of(seed), of(seed));
        }
    }

    #[test]
    fn a_panic_in_one_actor_does_not_stop_the_others() {
        let disk = SimDisk::new();
        let done = std::sync::atomic::AtomicBool::new(false);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let bad: Actor<'_> = Box::new(|_| panic!("on purpose"));
            let good: Actor<'_> = Box::new(|files| {
                files.list(&Path::root()).unwrap();
                done.store(true, std::sync::atomic::Ordering::Relaxed);
            });
            run(&disk, &Plan::Random { seed: 1, one_in: 1 }, vec![bad, good]);
        }));
        assert!(outcome.is_err());
        assert!(done.load(std::sync::atomic::Ordering::Relaxed));
    }
}
