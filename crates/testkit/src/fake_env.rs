//! A clock turned by hand, randomness from a seed, and jobs that are stepped.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use chronolith_env::{Clock, Env, Fs, Job, JobHandle, Result, Rng, Scheduler, Step, SystemClock, Wake};
use parking_lot::Mutex;

/// A wall clock that is turned by hand. Monotonic time is the system's: threads are real, and so are their pauses.
#[derive(Debug)]
pub struct WallClock {
    now_ms: AtomicI64,
    system: SystemClock,
}

impl WallClock {
    /// A clock that shows `now_ms`, milliseconds since 1970.
    #[must_use]
    pub fn new(now_ms: i64) -> Self {
        Self { now_ms: AtomicI64::new(now_ms), system: SystemClock::new() }
    }

    /// Sets it.
    pub fn set(&self, now_ms: i64) {
        self.now_ms.store(now_ms, Ordering::SeqCst);
    }

    /// Turns it on.
    pub fn advance(&self, by: Duration) {
        self.now_ms.fetch_add(by.as_millis() as i64, Ordering::SeqCst);
    }
}

impl Clock for WallClock {
    fn now_ms(&self) -> i64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        self.system.monotonic()
    }
}

/// A clock that moves only when told to.
#[derive(Debug)]
pub struct FakeClock {
    start_ms: i64,
    elapsed_nanos: AtomicU64,
    shift_ms: AtomicI64,
}

impl FakeClock {
    /// A clock that shows `now_ms`, milliseconds since 1970.
    #[must_use]
    pub const fn new(now_ms: i64) -> Self {
        Self { start_ms: now_ms, elapsed_nanos: AtomicU64::new(0), shift_ms: AtomicI64::new(0) }
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        self.elapsed_nanos.fetch_add(by.as_nanos() as u64, Ordering::SeqCst);
    }

    /// Sets the wall clock, as a correction would: monotonic time stays.
    pub fn set_now_ms(&self, now_ms: i64) {
        let elapsed = (self.elapsed_nanos.load(Ordering::SeqCst) / 1_000_000) as i64;
        self.shift_ms.store(now_ms - self.start_ms - elapsed, Ordering::SeqCst);
    }
}

impl Clock for FakeClock {
    fn now_ms(&self) -> i64 {
        let elapsed = (self.elapsed_nanos.load(Ordering::SeqCst) / 1_000_000) as i64;
        self.start_ms + elapsed + self.shift_ms.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.elapsed_nanos.load(Ordering::SeqCst))
    }
}

/// Random numbers that follow from a seed (splitmix64).
#[derive(Debug)]
pub struct SimRng {
    state: AtomicU64,
}

impl SimRng {
    /// The numbers of `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: AtomicU64::new(seed) }
    }
}

impl Rng for SimRng {
    fn next_u64(&self) -> u64 {
        let step = 0x9e37_79b9_7f4a_7c15_u64;
        let mut z = self.state.fetch_add(step, Ordering::SeqCst).wrapping_add(step);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Steps jobs on the caller's thread, when told to. Clones are the same scheduler.
#[derive(Clone, Debug)]
pub struct StepScheduler {
    clock: Arc<FakeClock>,
    jobs: Arc<Mutex<Vec<Arc<Cell>>>>,
}

struct Cell {
    name: String,
    /// Taken out while it runs; gone when it is done.
    job: Mutex<Option<Box<dyn Job>>>,
    /// When the next step is due, monotonic.
    due: Mutex<Option<Duration>>,
}

impl fmt::Debug for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cell").field("name", &self.name).field("due", &self.due).finish_non_exhaustive()
    }
}

impl Wake for Cell {
    fn wake(&self) {
        *self.due.lock() = Some(Duration::ZERO);
    }
}

#[derive(Debug)]
struct StepHandle {
    cell: Arc<Cell>,
    clock: Arc<FakeClock>,
}

impl Cell {
    /// One step; whether the job lives on.
    fn step(&self, now: Duration, stopping: bool) -> bool {
        let Some(mut job) = self.job.lock().take() else { return false };
        // Before the step, so that a wake during it counts.
        *self.due.lock() = None;
        let next = match job.step(stopping) {
            Step::Done => {
                return false;
            }
            Step::Again => Some(now),
            Step::SleepFor(pause) => Some(now + pause),
            Step::Park => None,
        };
        let mut due = self.due.lock();
        *due = [*due, next].into_iter().flatten().min();
        drop(due);
        *self.job.lock() = Some(job);
        true
    }
}

impl StepScheduler {
    /// A scheduler without jobs, on `clock`.
    #[must_use]
    pub fn new(clock: Arc<FakeClock>) -> Self {
        Self { clock, jobs: Arc::default() }
    }

    /// Steps the jobs that are due until none is.
    ///
    /// # Panics
    /// After a million steps: some job never rests.
    pub fn run(&self) {
        for _ in 0..1_000_000 {
            let now = self.clock.monotonic();
            let jobs = self.jobs.lock().clone();
            let mut stepped = false;
            for cell in jobs {
                let due = *cell.due.lock();
                if due.is_some_and(|due| due <= now) {
                    stepped = true;
                    if !cell.step(now, false) {
                        self.jobs.lock().retain(|other| !Arc::ptr_eq(other, &cell));
                    }
                }
            }
            if !stepped {
                return;
            }
        }
        panic!("a job never rests");
    }

    /// Makes a step of one of the jobs that are due, the one that `rng` chooses; false if none is due.
    pub fn step_one(&self, rng: &dyn Rng) -> bool {
        let now = self.clock.monotonic();
        let is_due = |cell: &&Arc<Cell>| cell.due.lock().is_some_and(|due| due <= now);
        let due: Vec<_> = self.jobs.lock().iter().filter(is_due).cloned().collect();
        let Some(cell) = (rng.next_u64() as usize).checked_rem(due.len()).and_then(|at| due.get(at)) else {
            return false;
        };
        if !cell.step(now, false) {
            self.jobs.lock().retain(|other| !Arc::ptr_eq(other, cell));
        }
        true
    }

    /// How long nothing is due, if anything ever will be.
    #[must_use]
    pub fn idle(&self) -> Option<Duration> {
        let next = self.jobs.lock().iter().filter_map(|cell| *cell.due.lock()).min()?;
        Some(next.saturating_sub(self.clock.monotonic()))
    }

    /// Lets `time` pass, stepping jobs when they are due.
    pub fn run_for(&self, time: Duration) {
        let end = self.clock.monotonic() + time;
        loop {
            self.run();
            let now = self.clock.monotonic();
            let next = self.jobs.lock().iter().filter_map(|cell| *cell.due.lock()).min();
            let until = next.map_or(end, |next| next.min(end));
            self.clock.advance(until.saturating_sub(now));
            if until >= end {
                self.run();
                return;
            }
        }
    }

    /// Forgets all jobs without another step, as a crash does.
    pub fn kill(&self) {
        for cell in self.jobs.lock().drain(..) {
            *cell.job.lock() = None;
        }
    }
}

impl Scheduler for StepScheduler {
    fn spawn(&self, name: &str, job: Box<dyn Job>) -> Result<Box<dyn JobHandle>> {
        let cell = Arc::new(Cell {
            name: name.to_owned(),
            job: Mutex::new(Some(job)),
            due: Mutex::new(Some(Duration::ZERO)),
        });
        self.jobs.lock().push(Arc::clone(&cell));
        Ok(Box::new(StepHandle { cell, clock: Arc::clone(&self.clock) }))
    }

    fn run_all<'env>(&self, tasks: Vec<Box<dyn FnOnce() + Send + 'env>>) {
        for task in tasks {
            task();
        }
    }

    fn parallelism(&self) -> usize {
        1
    }
}

impl JobHandle for StepHandle {
    fn waker(&self) -> Arc<dyn Wake> {
        Arc::<Cell>::clone(&self.cell)
    }

    fn stop(&self) {
        while self.cell.step(self.clock.monotonic(), true) {
            self.clock.advance(Duration::from_millis(1));
        }
    }
}

impl Drop for StepHandle {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An environment of fakes, with the fakes themselves.
#[derive(Clone, Debug)]
pub struct FakeEnv {
    /// What the code under test gets.
    pub env: Env,
    /// Its clock.
    pub clock: Arc<FakeClock>,
    /// Its randomness.
    pub rng: Arc<SimRng>,
    /// Its jobs.
    pub scheduler: StepScheduler,
}

impl FakeEnv {
    /// Fakes around `fs`, with the randomness of `seed`, at a fixed time in 2023.
    #[must_use]
    pub fn new(fs: Arc<dyn Fs>, seed: u64) -> Self {
        let clock = Arc::new(FakeClock::new(1_700_000_000_000));
        let rng = Arc::new(SimRng::new(seed));
        let scheduler = StepScheduler::new(Arc::clone(&clock));
        let env = Env {
            clock: Arc::<FakeClock>::clone(&clock),
            rng: Arc::<SimRng>::clone(&rng),
            fs,
            scheduler: Arc::new(scheduler.clone()),
        };
        Self { env, clock, rng, scheduler }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sleeper(Arc<AtomicU64>);

    impl Job for Sleeper {
        fn step(&mut self, stopping: bool) -> Step {
            self.0.fetch_add(1, Ordering::SeqCst);
            if stopping { Step::Done } else { Step::SleepFor(Duration::from_secs(1)) }
        }
    }

    #[test]
    fn jobs_step_by_the_fake_clock() {
        let clock = Arc::new(FakeClock::new(0));
        let scheduler = StepScheduler::new(Arc::clone(&clock));
        let steps = Arc::new(AtomicU64::new(0));
        let handle = scheduler.spawn("sleeper", Box::new(Sleeper(Arc::clone(&steps)))).unwrap();
        scheduler.run();
        assert_eq!(steps.load(Ordering::SeqCst), 1);
        scheduler.run_for(Duration::from_millis(3500));
        assert_eq!((steps.load(Ordering::SeqCst), clock.now_ms()), (4, 3500));
        handle.waker().wake();
        scheduler.run();
        assert_eq!(steps.load(Ordering::SeqCst), 5);
        handle.stop();
        scheduler.run_for(Duration::from_secs(5));
        assert_eq!(steps.load(Ordering::SeqCst), 6);
    }
}
