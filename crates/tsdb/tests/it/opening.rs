//! Opening and closing data directories.

use std::{
    error::Error as _,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use chronolith_env::{Env, Fs, Job, JobHandle, Op, Scheduler, ThreadScheduler};
use chronolith_model::TenantId;
use chronolith_storage::StorageError;
use chronolith_testkit::fault_fs::{CrashMode, Fault};
use chronolith_tsdb::{Db, DbOptions, Error};

use crate::fixture::{DIR, Machine, NOW, append, content, count, quick, scrape};

fn refused(machine: &Machine) -> Error {
    Db::open(Path::new(DIR), quick(), machine.env.clone()).expect_err("must not open")
}

#[test]
fn a_second_process_is_told_which_directory_is_in_use() {
    let machine = Machine::new();
    let (db, _) = machine.open(quick());
    let error = refused(&machine);
    assert!(matches!(error, Error::Locked { .. }), "{error:?}");
    assert!(error.to_string().contains(DIR), "{error}");
    db.close().expect("closes");
    machine.open(quick());
}

#[test]
fn a_second_process_is_refused_on_a_real_file_system_too() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let path = dir.path().join("not/yet/there");
    let (db, _) = Db::open(&path, DbOptions::default(), Env::real()).expect("made and opened");
    let second = Db::open(&path, DbOptions::default(), Env::real());
    assert!(matches!(second, Err(Error::Locked { .. })));
    let now = Env::real().clock.now_ms();
    append(&db, &TenantId::default(), &scrape("m", 10, now, 1.0))
        .expect("taken")
        .ticket
        .wait()
        .expect("durable");
    drop(db);
    let (db, report) = Db::open(&path, DbOptions::default(), Env::real()).expect("opens again");
    assert_eq!((report.samples, report.series), (10, 10));
    assert_eq!(count(&content(&db, &TenantId::default())), 10);
}

#[test]
fn a_directory_of_something_else_stays_as_it_is() {
    let machine = Machine::new();
    machine.fs.create_dir_all(Path::new(DIR)).expect("made");
    machine.fs.put(&Path::new(DIR).join("thesis.tex"), b"years of work".to_vec());
    let error = refused(&machine);
    assert!(
        matches!(&error, Error::NotADataDirectory { example, .. } if example == "thesis.tex"),
        "{error:?}"
    );
    assert!(error.to_string().contains(DIR) && error.to_string().contains("thesis.tex"), "{error}");
    assert_eq!(machine.fs.list(Path::new(DIR)).expect("listed"), ["thesis.tex"]);
}

#[test]
fn a_directory_of_another_version_stays_as_it_is() {
    let machine = Machine::new();
    machine.open(quick()).0.close().expect("closes");
    let format = Path::new(DIR).join("format");
    let ours = String::from_utf8(machine.fs.read(&format).expect("written")).expect("text");
    let theirs = ours.replace('2', "9");
    assert_ne!(ours, theirs);
    machine.fs.put(&format, theirs.clone().into_bytes());
    let error = refused(&machine);
    assert!(matches!(&error, Error::ForeignVersion { got, .. } if got == theirs.trim_end()), "{error:?}");
    assert_eq!(machine.fs.read(&format).expect("there"), theirs.into_bytes());
}

#[test]
fn a_read_only_directory_is_a_clear_error() {
    for (op, fault) in
        [(Op::CreateDir, Fault::ReadOnly), (Op::Lock, Fault::ReadOnly), (Op::Create, Fault::Denied)]
    {
        let machine = Machine::new();
        machine.fs.fail(op, 1, u64::MAX, fault);
        let error = refused(&machine);
        let cause = error.source().map(ToString::to_string).unwrap_or_default();
        assert!(cause.contains("read-only") || cause.contains("permission denied"), "{error:?}");
        assert!(cause.contains(DIR) && error.to_string().contains("data"), "{error}: {cause}");
    }
}

#[test]
fn a_closed_database_takes_nothing_and_still_answers() {
    let machine = Machine::new();
    let (db, _) = machine.open(quick());
    let tenant = TenantId::default();
    let unwaited = append(&db, &tenant, &scrape("m", 5, NOW, 1.0)).expect("taken");
    db.close().expect("closes");
    db.close().expect("closing again is fine");
    unwaited.ticket.wait().expect("closing made it durable");
    let refused = append(&db, &tenant, &scrape("m", 5, NOW + 1, 1.0));
    assert!(matches!(refused, Err(StorageError::Unavailable { .. })));
    assert_eq!(count(&content(&db, &tenant)), 5);
    let (db, report) = machine.open(quick());
    assert_eq!(report.samples, 5);
    assert_eq!(count(&content(&db, &tenant)), 5);
}

/// Threads, of which a start is told to use three; and how many tasks it gave them.
#[derive(Debug, Default)]
struct Three {
    threads: ThreadScheduler,
    tasks: Mutex<Vec<usize>>,
    /// Tasks that were at work at the same time, at most.
    at_once: AtomicUsize,
}

impl Scheduler for Three {
    fn spawn(&self, name: &str, job: Box<dyn Job>) -> chronolith_env::Result<Box<dyn JobHandle>> {
        self.threads.spawn(name, job)
    }

    /// No task begins before all have a thread, or a minute has passed.
    fn run_all<'env>(&self, tasks: Vec<Box<dyn FnOnce() + Send + 'env>>) {
        let (count, begun) = (tasks.len(), AtomicUsize::new(0));
        self.tasks.lock().expect("nobody panics").push(count);
        let together = tasks.into_iter().map(|task| {
            let begun = &begun;
            Box::new(move || {
                let now = begun.fetch_add(1, Ordering::SeqCst) + 1;
                self.at_once.fetch_max(now, Ordering::SeqCst);
                let end = Instant::now() + Duration::from_secs(60);
                while begun.load(Ordering::SeqCst) < count && Instant::now() < end {
                    std::thread::yield_now();
                }
                assert_eq!(begun.load(Ordering::SeqCst), count, "one waits for the other");
                task();
            }) as Box<dyn FnOnce() + Send + '_>
        });
        self.threads.run_all(together.collect());
    }

    fn parallelism(&self) -> usize {
        3
    }
}

#[test]
fn a_start_reads_the_log_and_the_snapshot_with_as_many_threads_as_it_may() {
    let mut machine = Machine::new();
    let tenant = TenantId::default();
    let (db, _) = machine.open(quick());
    let write = |db: &Db, t| append(db, &tenant, &scrape("m", 100, t, 1.0)).expect("taken").ticket.wait();
    write(&db, NOW).expect("durable");
    db.close().expect("closes");
    drop(db);
    for closed in [true, false] {
        let scheduler = Arc::new(Three::default());
        machine.env.scheduler = Arc::clone(&scheduler) as Arc<dyn Scheduler>;
        let (db, report) = machine.open(quick());
        assert!(report.samples >= 100, "{report:?}");
        let tasks = std::mem::take(&mut *scheduler.tasks.lock().expect("nobody panics"));
        // The snapshot; behind a kill also the log, its definitions and its samples.
        assert!(tasks.len() >= if closed { 1 } else { 3 }, "{tasks:?}");
        assert!(tasks.iter().all(|tasks| *tasks == 3), "{tasks:?}");
        assert_eq!(scheduler.at_once.load(Ordering::SeqCst), 3);
        if closed {
            (1..20).for_each(|n| write(&db, NOW + n * 1000).expect("durable"));
            machine.crash(db, CrashMode::LoseUnsynced, 1);
        } else {
            assert_eq!(count(&content(&db, &tenant)), 2000);
        }
    }
}
