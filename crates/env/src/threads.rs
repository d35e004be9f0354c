//! One thread per job.

use std::fmt;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::{Error, Job, JobHandle, Result, Scheduler, Step, Wake};

/// How long a stopping job is let sleep or park between two steps.
const STOPPING_PAUSE: Duration = Duration::from_millis(1);

/// Runs each job on a thread of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThreadScheduler;

#[derive(Debug, Default)]
struct Signal {
    state: Mutex<SignalState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct SignalState {
    woken: bool,
    stopping: bool,
}

impl Wake for Signal {
    fn wake(&self) {
        self.state.lock().woken = true;
        self.changed.notify_one();
    }
}

struct ThreadHandle {
    name: String,
    signal: Arc<Signal>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for ThreadHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadHandle").field("name", &self.name).finish_non_exhaustive()
    }
}

fn run(job: &mut dyn Job, signal: &Signal) {
    let mut stopping = false;
    loop {
        let pause = match job.step(stopping) {
            Step::Done => return,
            Step::Again => Some(Duration::ZERO),
            Step::SleepFor(pause) => Some(pause),
            Step::Park => None,
        };
        let mut state = signal.state.lock();
        if !state.woken && pause != Some(Duration::ZERO) {
            match if stopping { Some(STOPPING_PAUSE) } else { pause } {
                Some(pause) => {
                    signal.changed.wait_for(&mut state, pause);
                }
                // A spurious return costs one step; jobs tolerate steps without a reason.
                None => signal.changed.wait(&mut state),
            }
        }
        // A wake that arrives during a step that returned `Again` is answered by the coming step just as well.
        state.woken = false;
        stopping = state.stopping;
    }
}

/// A job that lowers the priority of its thread first.
struct Yielding {
    job: Box<dyn Job>,
    lowered: bool,
}

/// How far the priority is lowered, of 19.
const NICE: i32 = 10;

impl Job for Yielding {
    fn step(&mut self, stopping: bool) -> Step {
        if !self.lowered {
            self.lowered = true;
            // Of this thread only, on Linux; where it is refused, the job competes with the others.
            let _ = rustix::process::nice(NICE);
        }
        self.job.step(stopping)
    }
}

impl Scheduler for ThreadScheduler {
    fn spawn(&self, name: &str, mut job: Box<dyn Job>) -> Result<Box<dyn JobHandle>> {
        let signal = Arc::new(Signal::default());
        let seen = Arc::clone(&signal);
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(job.as_mut(), &seen))
            .map_err(|source| Error::Spawn { name: name.to_owned(), source })?;
        Ok(Box::new(ThreadHandle { name: name.to_owned(), signal, thread: Mutex::new(Some(thread)) }))
    }

    fn spawn_yielding(&self, name: &str, job: Box<dyn Job>) -> Result<Box<dyn JobHandle>> {
        self.spawn(name, Box::new(Yielding { job, lowered: false }))
    }

    fn run_all<'env>(&self, tasks: Vec<Box<dyn FnOnce() + Send + 'env>>) {
        thread::scope(|scope| {
            let mut tasks = tasks.into_iter();
            // The calling thread takes the first task itself.
            let first = tasks.next();
            for task in tasks {
                scope.spawn(task);
            }
            if let Some(task) = first {
                task();
            }
        });
    }

    fn parallelism(&self) -> usize {
        thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
    }
}

impl JobHandle for ThreadHandle {
    fn waker(&self) -> Arc<dyn Wake> {
        Arc::<Signal>::clone(&self.signal)
    }

    fn stop(&self) {
        let thread = self.thread.lock().take();
        {
            let mut state = self.signal.state.lock();
            state.stopping = true;
            state.woken = true;
        }
        self.signal.changed.notify_one();
        if let Some(thread) = thread
            && thread.thread().id() != thread::current().id()
        {
            // A panic of the job has been printed by its thread; it is not ours to repeat while stopping.
            let _ = thread.join();
        }
    }
}

impl Drop for ThreadHandle {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    struct Count {
        steps: Arc<AtomicUsize>,
        after: Step,
    }

    impl Job for Count {
        fn step(&mut self, stopping: bool) -> Step {
            self.steps.fetch_add(1, Ordering::SeqCst);
            if stopping { Step::Done } else { self.after }
        }
    }

    fn started(after: Step) -> (Arc<AtomicUsize>, Box<dyn JobHandle>) {
        let steps = Arc::new(AtomicUsize::new(0));
        let handle =
            ThreadScheduler.spawn("count", Box::new(Count { steps: Arc::clone(&steps), after })).unwrap();
        (steps, handle)
    }

    fn until(what: impl Fn() -> bool) {
        for _ in 0..2000 {
            if what() {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
        panic!("did not happen within two seconds");
    }

    #[test]
    fn a_parked_job_steps_once_per_wake() {
        let (steps, handle) = started(Step::Park);
        until(|| steps.load(Ordering::SeqCst) == 1);
        thread::sleep(Duration::from_millis(20));
        assert_eq!(steps.load(Ordering::SeqCst), 1, "parked means parked");
        handle.waker().wake();
        until(|| steps.load(Ordering::SeqCst) == 2);
        handle.stop();
        assert_eq!(steps.load(Ordering::SeqCst), 3, "one last step, stopping");
        handle.stop();
    }

    #[test]
    fn a_sleeping_job_steps_again_by_itself() {
        let (steps, handle) = started(Step::SleepFor(Duration::from_millis(1)));
        until(|| steps.load(Ordering::SeqCst) > 3);
        drop(handle);
    }

    #[test]
    fn run_all_runs_all() {
        let sum = AtomicUsize::new(0);
        let task = |n| -> Box<dyn FnOnce() + Send + '_> {
            let sum = &sum;
            Box::new(move || {
                sum.fetch_add(n, Ordering::SeqCst);
            })
        };
        ThreadScheduler.run_all(vec![task(1), task(10), task(100)]);
        assert_eq!(sum.into_inner(), 111);
    }
}
