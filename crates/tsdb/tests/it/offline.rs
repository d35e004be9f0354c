//! A data directory that is compacted without being served.

use std::path::{Path, PathBuf};

use chronolith_env::{Fs, Op};
use chronolith_model::{TenantId, TimeRange};
use chronolith_storage::{Admin, Queryable as _};
use chronolith_testkit::{
    fake_env::SimRng,
    fault_fs::{CrashMode, Fault},
};
use chronolith_tsdb::{DbOptions, Error, Offline, OfflineReport, Task};

use crate::fixture::{
    Content, DIR, Machine, NOW, append, compiled, content, content_of, count, quick, scrape,
};

const HOUR: i64 = 3_600_000;

fn tenants() -> [TenantId; 2] {
    [TenantId::default(), TenantId::new("other").expect("valid")]
}

/// A head with samples of nine hours, some of them late, of two tenants; and a deletion.
fn filled(machine: &Machine) -> [Content; 2] {
    // Nothing is cut meanwhile.
    let (db, _) = machine.open(DbOptions::default());
    let [a, b] = tenants();
    let write = |tenant: &TenantId, t: i64, value: f64| {
        let appended = append(&db, tenant, &scrape("m", 8, t, value)).expect("taken");
        assert_eq!(appended.outcome.stored, 8);
        appended.ticket.wait().expect("durable");
    };
    for minutes in 0..90 {
        write(&a, NOW - 10 * HOUR + minutes * 360_000, minutes as f64);
    }
    write(&a, NOW - HOUR - HOUR / 2 + 1, -1.0);
    for minutes in 0..10 {
        write(&b, NOW - 3 * HOUR + minutes * 60_000, 0.5);
    }
    let gone = compiled(&[chronolith_model::Matcher::equal("id", "3")]);
    db.delete_series(&a, &[gone], TimeRange::new(NOW - 5 * HOUR, NOW - 4 * HOUR)).expect("deleted");
    let all = tenants().map(|tenant| content(&db, &tenant));
    db.close().expect("closes");
    all
}

fn compact(machine: &Machine, tasks: &mut Vec<Task>) -> Result<OfflineReport, Error> {
    let offline = Offline::open(Path::new(DIR), quick(), &machine.env)?;
    offline.compact(&mut |task| tasks.push(task.clone()))
}

fn blocks(machine: &Machine) -> Vec<PathBuf> {
    let dir = Path::new(DIR).join("blocks");
    let of = |tenant: String| {
        let dir = dir.join(tenant);
        let files = machine.fs.list(&dir).expect("listed");
        files.into_iter().map(move |file| dir.join(file)).collect::<Vec<_>>()
    };
    machine.fs.list(&dir).unwrap_or_default().into_iter().flat_map(of).collect()
}

#[test]
fn everything_becomes_few_blocks_and_a_second_run_does_nothing() {
    let machine = Machine::new();
    let all = filled(&machine);
    let mut tasks = Vec::new();
    let report = compact(&machine, &mut tasks).expect("compacts");
    assert_eq!((report.before.blocks, report.jobs.cuts, report.failures_count), (0, 1, 0));
    assert!(report.jobs.blocks_cut >= 6 && report.jobs.compactions > 0, "{report:?}");
    assert!(report.after.blocks < report.jobs.blocks_cut && !report.short_of_room, "{report:?}");
    let written = tasks.iter().filter(|task| matches!(task, Task::Block { .. })).count() as u64;
    assert_eq!((written, tasks.len() as u64 - written), (report.jobs.blocks_cut, report.jobs.compactions));
    let files = blocks(&machine);

    let mut tasks = Vec::new();
    let again = compact(&machine, &mut tasks).expect("compacts");
    assert_eq!((tasks, again.jobs.cuts, again.jobs.compactions), (Vec::new(), 0, 0));
    assert_eq!((again.before, &blocks(&machine)), (again.after, &files));

    let (db, report) = machine.open(quick());
    assert_eq!((report.samples, report.blocks.blocks), (0, again.after.blocks), "nothing in the log");
    assert_eq!(tenants().map(|tenant| content(&db, &tenant)), all);
    // It goes on as if nothing had been.
    append(&db, &tenants()[0], &scrape("m", 8, NOW, 7.0)).expect("taken").ticket.wait().expect("durable");
    assert_eq!(count(&content(&db, &tenants()[0])), count(&all[0]) + 8);
}

#[test]
fn what_is_out_of_retention_is_not_lost() {
    let machine = Machine::new();
    let all = filled(&machine);
    machine.clock.set(NOW + 1000 * HOUR);
    let report = compact(&machine, &mut Vec::new()).expect("compacts");
    // What is deleted is hidden, and not gone yet.
    assert!(report.after.samples >= (count(&all[0]) + count(&all[1])) as u64, "{report:?}");
    machine.clock.set(NOW);
    let (db, _) = machine.open(quick());
    assert_eq!(tenants().map(|tenant| content(&db, &tenant)), all, "the clock was wrong");
}

#[test]
fn not_while_it_is_served_and_not_where_there_is_nothing() {
    let machine = Machine::new();
    let dir = Path::new(DIR);
    let offline = Offline::open(dir, quick(), &machine.env);
    assert!(matches!(offline, Err(Error::NoDataDirectory { .. })), "{offline:?}");
    assert!(!machine.fs.exists(dir).expect("known"), "none was made");
    machine.fs.create_dir_all(&dir.join("photos")).expect("made");
    let offline = Offline::open(dir, quick(), &machine.env);
    assert!(matches!(offline, Err(Error::NotADataDirectory { .. })), "{offline:?}");

    let machine = Machine::new();
    let (db, _) = machine.open(quick());
    let offline = Offline::open(dir, quick(), &machine.env);
    assert!(matches!(offline, Err(Error::Locked { .. })), "{offline:?}");
    db.close().expect("closes");
    Offline::open(dir, quick(), &machine.env).expect("nobody serves it any more");
}

#[test]
fn a_crash_at_any_call_loses_nothing() {
    let modes = [CrashMode::LoseUnsynced, CrashMode::Tear, CrashMode::Subset, CrashMode::KeepAll];
    let mut calls = 1;
    let mut whole = 0;
    for number in 0_u64.. {
        let machine = Machine::new();
        let all = filled(&machine);
        machine.fs.halt_after(calls);
        let ended = compact(&machine, &mut Vec::new());
        let halted = machine.fs.halted();
        machine.fs.crash(modes[number as usize % 4], &SimRng::new(number));
        machine.fs.heal();
        // Anybody may go on.
        if number % 2 == 0 {
            compact(&machine, &mut Vec::new()).expect("compacts");
        }
        let view = |db: &chronolith_tsdb::Db, tenant: &TenantId| {
            content_of(&*db.querier(tenant, TimeRange::ALL).expect("ready"))
        };
        let (db, report) = machine.open(quick());
        assert_eq!((report.damage_count, report.blocks.quarantined), (0, 0), "after {calls} calls");
        assert_eq!(tenants().map(|tenant| view(&db, &tenant)), all, "after {calls} calls");
        db.close().expect("closes");
        if !halted {
            ended.expect("nothing was in its way");
            whole += 1;
            if whole == 4 {
                assert!(calls > 200, "there was something to interrupt: {calls}");
                return;
            }
        } else {
            // All of the first, then some.
            calls += if calls < 60 { 1 } else { 7 };
        }
    }
}

#[test]
fn a_disk_without_room_is_told_of() {
    let machine = Machine::new();
    let all = filled(&machine);
    machine.fs.fail(Op::Write, 6, u64::MAX / 2, Fault::Full);
    let refused = compact(&machine, &mut Vec::new()).expect_err("there is no room");
    assert!(matches!(refused, Error::Cut(_) | Error::Compaction(_)), "{refused}");
    machine.fs.heal();
    let (db, _) = machine.open(quick());
    assert_eq!(tenants().map(|tenant| content(&db, &tenant)), all);
}
