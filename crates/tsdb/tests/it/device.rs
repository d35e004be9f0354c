//! A device that refuses a call while a database is opened: it is not opened, or has everything; and nothing is taken for
//! damaged on that account.

use std::{error::Error as _, path::Path, sync::Arc, time::Duration};

use chronolith_env::{Fs as _, Op};
use chronolith_model::{Labels, Matcher, TenantId, TimeRange};
use chronolith_storage::{Admin as _, Queryable as _, Samples};
use chronolith_testkit::{
    fake_env::FakeEnv,
    fault_fs::{CrashMode, Fault, FaultFs},
};
use chronolith_tsdb::{Db, DbOptions, OpenReport};

use crate::{
    fixture::{Content, DIR, compiled, content},
    sim::{Sim, WINDOW, same, series},
};

const MINUTE: i64 = 60_000;

/// A disk with everything on it: blocks, deletions in them and in the head, a snapshot, chunk files, a log behind the
/// snapshot whose end is not known to be durable, and an import that is to be finished.
fn full() -> (FaultFs, DbOptions, i64, Content) {
    let mut sim = Sim::new(11);
    sim.options.ooo_window = Duration::from_secs(300);
    sim.options.segment_bytes = 8 << 10;
    sim.restart();
    let mut model = Content::new();
    sim.scrape(&mut model, 8, 2 * WINDOW / MINUTE + 100);
    assert!(sim.db().stats().jobs.cuts >= 2);
    let mut importer = sim.db().import(&TenantId::default()).expect("begun");
    let mut samples = Samples::default();
    (0..50).for_each(|n| samples.push(sim.now() - 20 * WINDOW + n * MINUTE, n as f64));
    let imported = Labels::from_pairs([("__name__", "imported")]);
    importer.append(&imported, &samples).expect("taken");
    importer.finish().expect("imported");
    let bits = samples.timestamps.iter().zip(&samples.values).map(|(t, value)| (*t, value.to_bits()));
    model.insert(imported, bits.collect());
    // In a block and in the head.
    for (id, minutes) in [(1, 230), (2, 20)] {
        let range = TimeRange::new(sim.now() - minutes * MINUTE, sim.now() - (minutes - 9) * MINUTE);
        let id = id.to_string();
        let set = compiled(&[Matcher::equal("id", &id)]);
        sim.db().delete_series(&TenantId::default(), &[set], range).expect("deleted");
        let of = model.get_mut(&series(id.parse().expect("a number"))).expect("known");
        of.retain(|t, _| !range.contains(*t));
    }
    sim.restart();
    sim.scrape(&mut model, 8, 30);
    same(&sim.content(), &model, "before");
    let (options, now) = (sim.options, sim.now());
    sim.crash(CrashMode::KeepAll);
    sim.scrape(&mut model, 8, 5);
    let disk = sim.fs.fork();
    (disk, options, now, model)
}

fn open(
    fs: &FaultFs,
    options: DbOptions,
    now: i64,
) -> Result<(Db, OpenReport, FakeEnv), chronolith_tsdb::Error> {
    let fake = FakeEnv::new(Arc::new(fs.clone()), 1);
    fake.clock.set_now_ms(now + 10 * MINUTE);
    Db::open(Path::new(DIR), options, fake.env.clone()).map(|(db, report)| (db, report, fake))
}

/// An error, and its causes.
fn told(error: &chronolith_tsdb::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Names below a directory called `quarantine`, and what ends in `.damaged`.
fn set_aside(fs: &FaultFs, dir: &Path, found: &mut Vec<String>) {
    for name in fs.list(dir).expect("listed") {
        let path = dir.join(&name);
        if fs.read(&path).is_none() {
            set_aside(fs, &path, found);
        } else if dir.ends_with("quarantine") || name.ends_with(".damaged") {
            found.push(path.display().to_string());
        }
    }
}

fn refused_in_turn(op: Op) {
    let (disk, options, now, model) = full();
    let calls = {
        let fs = disk.fork();
        let before = fs.calls(op);
        let (db, report, _fake) = open(&fs, options, now).expect("opens");
        assert_eq!((report.damage_count, report.snapshot_damage_count), (0, 0), "{report:?}");
        let calls = fs.calls(op) - before;
        same(&content(&db, &TenantId::default()), &model, "without faults");
        calls
    };
    assert!(calls > 0, "{op}");
    let (mut refused, mut opened, mut wrong) = (0, 0, Vec::new());
    for nth in 1..=calls {
        let fs = disk.fork();
        fs.fail(op, nth, 1, Fault::Io);
        match open(&fs, options, now) {
            Ok((db, report, _fake)) => {
                opened += 1;
                let warnings = db.querier(&TenantId::default(), TimeRange::ALL).expect("ready").warnings();
                let damage = report.damage_count + report.snapshot_damage_count;
                if damage > 0 || !warnings.is_empty() || content(&db, &TenantId::default()) != model {
                    wrong.push(format!("{nth}: opened without all: {report:?} {warnings:?}"));
                }
            }
            Err(error) => {
                refused += 1;
                let text = told(&error);
                assert!(text.contains(DIR) && text.contains("os error 5"), "{op} {nth}: {text}");
            }
        }
        fs.heal();
        let mut aside = Vec::new();
        set_aside(&fs, Path::new(DIR), &mut aside);
        if !aside.is_empty() {
            wrong.push(format!("{nth}: set aside: {aside:?}"));
        }
        let (db, report, _fake) = open(&fs, options, now).expect("opens");
        let damage = report.damage_count + report.snapshot_damage_count + report.blocks.quarantined;
        if damage > 0 || report.mark_damaged || content(&db, &TenantId::default()) != model {
            wrong.push(format!("{nth}: the next start does not have all: {report:?}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{op}, {calls} calls, {refused} refused, {opened} opened:\n{}",
        wrong.join("\n")
    );
    assert!(opened + refused == calls && calls > 5 && refused > 0, "{calls} {refused} {opened}");
}

#[test]
fn each_read_of_a_start_is_refused_in_turn() {
    refused_in_turn(Op::Read);
}

#[test]
fn each_opening_of_a_file_is_refused_in_turn() {
    refused_in_turn(Op::Open);
}

#[test]
fn each_listing_of_a_directory_is_refused_in_turn() {
    refused_in_turn(Op::List);
}

#[test]
fn each_question_for_a_file_is_refused_in_turn() {
    refused_in_turn(Op::Stat);
}
