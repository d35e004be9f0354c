//! Background work as jobs that are stepped.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use crate::Result;

/// What a job wants after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Another step at once.
    Again,
    /// Another step after this time, or earlier when woken.
    SleepFor(Duration),
    /// Another step when woken.
    Park,
    /// No further step.
    Done,
}

/// A piece of background work. A step does a bounded amount of it and holds no lock between steps.
pub trait Job: Send {
    /// Does some work. `stopping`: the owner has asked for the end; what must be done before is done in this and
    /// further steps, and then [`Step::Done`] is returned. While stopping, `SleepFor` and `Park` are taken as `Again`
    /// after at most a millisecond.
    fn step(&mut self, stopping: bool) -> Step;
}

/// Wakes one job. A wake that meets a running job makes its next `Park` or `SleepFor` return at once: none is lost.
pub trait Wake: Send + Sync + Debug {
    /// Wakes the job.
    fn wake(&self);
}

/// The owner's end of a running job. Dropping it stops the job.
pub trait JobHandle: Send + Sync + Debug {
    /// A cheap, clonable waker of this job.
    fn waker(&self) -> Arc<dyn Wake>;

    /// Asks the job to end, wakes it and waits until it has; fine if it has ended already.
    fn stop(&self);
}

/// Runs jobs.
pub trait Scheduler: Send + Sync + Debug {
    /// Starts a job.
    ///
    /// # Errors
    /// [`crate::Error::Spawn`] when the system refuses another thread.
    fn spawn(&self, name: &str, job: Box<dyn Job>) -> Result<Box<dyn JobHandle>>;

    /// Starts a job that is to give way to all others: it gets what time of the processors they leave.
    ///
    /// # Errors
    /// As [`Scheduler::spawn`].
    fn spawn_yielding(&self, name: &str, job: Box<dyn Job>) -> Result<Box<dyn JobHandle>> {
        self.spawn(name, job)
    }

    /// Runs all tasks, in parallel if it can, and returns when the last has ended.
    ///
    /// # Panics
    /// When a task panics.
    fn run_all<'env>(&self, tasks: Vec<Box<dyn FnOnce() + Send + 'env>>);

    /// How many tasks make sense in one [`Scheduler::run_all`].
    fn parallelism(&self) -> usize;
}
