//! Deleting, cleaning, copying; damage.

use std::{path::Path, time::Duration};

use chronolith_env::{Fs, Op};
use chronolith_model::{Matcher, TenantId, TimeRange};
use chronolith_storage::{Admin as _, Queryable as _, StorageError};
use chronolith_testkit::fault_fs::{CrashMode, Fault};
use chronolith_tsdb::Db;

use crate::{
    fixture::{Content, DIR, compiled, content, content_of, count},
    sim::{Sim, WINDOW, note, same, series},
};

/// Blocks and a head, and what they have.
fn filled(seed: u64) -> (Sim, Content) {
    let sim = Sim::new(seed);
    let mut model = Content::new();
    sim.scrape(&mut model, 6, 6 * 60);
    assert!(sim.db().stats().blocks.blocks >= 2);
    (sim, model)
}

fn delete(sim: &Sim, id: usize, range: TimeRange) -> Result<(), StorageError> {
    let set = compiled(&[Matcher::equal("id", id.to_string())]);
    sim.db().delete_series(&TenantId::default(), &[set], range)
}

fn forget(model: &mut Content, id: usize, range: TimeRange) {
    if let Some(samples) = model.get_mut(&series(id)) {
        samples.retain(|t, _| !range.contains(*t));
    }
    model.retain(|_, samples| !samples.is_empty());
}

#[test]
fn what_is_deleted_is_gone_from_blocks_and_head_for_good() {
    let (mut sim, mut model) = filled(1);
    let middle = sim.now() - 2 * WINDOW;
    let some = TimeRange::new(middle, sim.now() - 30 * 60_000);
    for (id, range) in [(1, some), (2, TimeRange::ALL)] {
        delete(&sim, id, range).expect("deleted");
        forget(&mut model, id, range);
    }
    same(&sim.content(), &model, "at once");
    assert!(sim.db().stats().blocks.tombstones > 0);
    // What comes later is another matter.
    sim.scrape(&mut model, 6, 2);
    same(&sim.content(), &model, "later samples are kept");
    sim.crash(CrashMode::LoseUnsynced);
    same(&sim.content(), &model, "after a crash");
    sim.scrape(&mut model, 6, 5 * 60);
    assert!(sim.db().stats().head.cut.is_some_and(|cut| cut > middle));
    same(&sim.content(), &model, "after a cut");
    sim.db().clean_tombstones().expect("cleaned");
    assert_eq!(sim.db().stats().blocks.tombstones, 0);
    same(&sim.content(), &model, "cleaned");
    sim.restart();
    same(&sim.content(), &model, "after a restart");
}

#[test]
fn what_was_logged_last_before_a_cut_stays_deleted() {
    // A start reads it from the log again: no mark covers it before there is something behind it.
    for before_the_cut in [true, false] {
        let (mut sim, mut model) = filled(2);
        if before_the_cut {
            delete(&sim, 1, TimeRange::ALL).expect("deleted");
        }
        sim.db().request_cut(sim.now());
        sim.run(Duration::from_secs(60));
        assert_eq!(sim.db().stats().head.series, 0, "all of it is in blocks");
        if !before_the_cut {
            delete(&sim, 1, TimeRange::ALL).expect("deleted");
        }
        forget(&mut model, 1, TimeRange::ALL);
        for when in ["a crash", "another"] {
            let opened = sim.crash(CrashMode::LoseUnsynced);
            assert!(opened.samples > 0, "the log was read");
            same(&sim.content(), &model, &format!("deleted before the cut: {before_the_cut}, behind {when}"));
        }
        sim.scrape(&mut model, 6, 5 * 60);
        same(&sim.content(), &model, "behind the next cut");
    }
}

#[test]
fn a_deletion_of_what_is_in_blocks_alone_does_not_take_what_comes_then() {
    let (mut sim, mut model) = filled(4);
    sim.db().request_cut(sim.now());
    sim.run(Duration::from_secs(60));
    assert_eq!(sim.db().stats().head.series, 0, "all of it is in blocks");
    // Others keep the head at work.
    sim.scrape(&mut model, 1, 40);
    for id in [3, 99] {
        delete(&sim, id, TimeRange::ALL).expect("deleted");
        forget(&mut model, id, TimeRange::ALL);
    }
    // A sender that was held up sends what it has, in order, behind the cut.
    let now = sim.now();
    for id in [3, 99] {
        let samples: Vec<_> = (1..10).map(|n| (id, now - (10 - n) * 3 * 60_000)).collect();
        let taken = sim.send(&TenantId::default(), &samples).expect("acknowledged");
        assert_eq!(taken, samples);
        note(&mut model, &taken);
    }
    same(&sim.content(), &model, "at once");
    sim.crash(CrashMode::LoseUnsynced);
    same(&sim.content(), &model, "behind a crash");
    sim.scrape(&mut model, 6, 5 * 60);
    sim.restart();
    same(&sim.content(), &model, "behind a cut");
}

#[test]
fn a_deletion_is_durable_or_an_error() {
    for op in [Op::Create, Op::Write, Op::Sync, Op::Rename, Op::SyncDir] {
        for nth in 1..6 {
            let (mut sim, mut model) = filled(3);
            sim.fs.fail(op, nth, 1, Fault::Io);
            let deleted = delete(&sim, 1, TimeRange::ALL);
            sim.fs.heal();
            if deleted.is_err() {
                // Some of it may be done; repeated, all is.
                delete(&sim, 1, TimeRange::ALL).expect("deleted");
            }
            forget(&mut model, 1, TimeRange::ALL);
            same(&sim.content(), &model, &format!("{op} {nth}"));
            sim.crash(CrashMode::LoseUnsynced);
            same(&sim.content(), &model, &format!("{op} {nth}, after a crash"));
        }
    }
    let (sim, _) = filled(3);
    assert!(matches!(
        sim.db().delete_series(&TenantId::default(), &[], TimeRange::ALL),
        Err(StorageError::Invalid { .. })
    ));
}

#[test]
fn a_copy_is_a_database_of_its_own() {
    let (sim, mut model) = filled(4);
    delete(&sim, 1, TimeRange::ALL).expect("deleted");
    forget(&mut model, 1, TimeRange::ALL);
    let name = sim.db().snapshot(false).expect("made");
    let bare = sim.db().snapshot(true).expect("made");
    let copied = model.clone();
    sim.scrape(&mut model, 6, 3 * 60);
    same(&sim.content(), &model, "the original goes on");
    let open = |name: &str| {
        let path = Path::new(DIR).join("snapshots").join(name);
        Db::open(&path, sim.options, sim.fake.env.clone()).expect("opens").0
    };
    same(&content(&open(&name), &TenantId::default()), &copied, "the copy");
    let in_blocks = content(&open(&bare), &TenantId::default());
    assert!(count(&in_blocks) > 0 && count(&in_blocks) < count(&copied));

    // One that fails leaves nothing.
    let before = sim.fs.list(&Path::new(DIR).join("snapshots")).expect("listed");
    sim.fs.fail(Op::Link, 2, 1, Fault::Full);
    assert!(sim.db().snapshot(false).is_err());
    assert_eq!(sim.fs.list(&Path::new(DIR).join("snapshots")).expect("listed"), before);
}

#[test]
fn a_damaged_block_is_set_aside_and_named() {
    let (mut sim, model) = filled(5);
    let dir = Path::new(DIR).join("blocks/anonymous");
    let name = sim.fs.list(&dir).expect("listed").remove(0);
    let whole = sim.fs.read(&dir.join(&name)).expect("there");
    let tenant = TenantId::default();
    // In a frame: met when it is read. In the footer: met at the start.
    for (at, restart) in [(40, false), (whole.len() - 5, true)] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        sim.fs.put(&dir.join(&name), bytes);
        if restart {
            let report = sim.restart();
            assert_eq!(report.blocks.quarantined, 1);
        } else {
            // Nothing of the block is in the cache.
            sim.restart();
            let querier = sim.db().querier(&tenant, TimeRange::ALL).expect("ready");
            let error = read_all(&*querier).expect_err("damaged");
            // It can be asked again.
            let StorageError::Unavailable { reason } = &error else { panic!("{error}") };
            assert!(reason.contains(&name) && reason.contains("offset"), "{reason}");
            assert!(reason.starts_with("damaged block set aside, ask again"), "{reason}");
        }
        let quarantine = dir.join("quarantine");
        assert_eq!(sim.fs.list(&quarantine).expect("made"), std::slice::from_ref(&name));
        assert!(!sim.fs.exists(&dir.join(&name)).expect("looked"));
        // Everything else goes on, and says that something is missing.
        let querier = sim.db().querier(&tenant, TimeRange::ALL).expect("ready");
        assert!(querier.warnings().iter().any(|warning| warning.contains(&name)), "{:?}", querier.warnings());
        let left = content_of(&*querier);
        assert!(count(&left) > 0 && count(&left) < count(&model));
        assert_eq!(sim.db().stats().blocks.missing, 1);
        drop(querier);
        sim.restart();
        let now = sim.now();
        let querier = sim.db().querier(&tenant, TimeRange::new(now - 1000, now)).expect("ready");
        assert_eq!(
            querier.warnings().is_empty(),
            !restart,
            "only of the time it is about, where that is known"
        );
        drop(querier);
        sim.db().close().expect("closes");
        sim.fs.remove_file(&quarantine.join(&name)).expect("removed");
        sim.fs.put(&dir.join(&name), whole.clone());
        sim.restart_stepped();
        same(&sim.content(), &model, "mended");
    }
}

fn read_all(querier: &dyn chronolith_storage::Querier) -> Result<(), StorageError> {
    use chronolith_storage::{SelectHints, SelectRequest, conformance::block_on};
    let matchers = compiled(&[Matcher::new("__name__", chronolith_model::MatchOp::Regex, ".+")]);
    let request = SelectRequest { matchers, range: TimeRange::ALL, hints: SelectHints::default() };
    let set = block_on(querier.select(&request))?;
    let batch = block_on(set.fetch(0..set.len()))?;
    (0..set.len()).try_for_each(|index| batch.read(index, &mut chronolith_storage::Samples::default()))
}

#[test]
fn blocks_go_by_age_and_by_size() {
    let mut sim = Sim::new(6);
    sim.options.retention = Duration::from_secs(6 * 3600);
    sim.restart();
    let mut model = Content::new();
    sim.scrape(&mut model, 6, 12 * 60);
    let stats = sim.db().stats();
    assert!(stats.jobs.blocks_dropped >= 1, "{:?}", stats.jobs);
    let floor = stats.head.floor;
    for samples in model.values_mut() {
        samples.retain(|t, _| *t >= floor);
    }
    same(&sim.content(), &model, "within retention");
    sim.db().close().expect("closes");
    sim.options.retention_bytes = 1;
    sim.restart_stepped();
    sim.run(Duration::from_secs(10));
    assert_eq!(sim.db().stats().blocks.blocks, 0);
}

#[test]
fn blocks_do_not_go_for_bytes_of_the_log() {
    let (mut sim, model) = filled(7);
    sim.db().close().expect("closes");
    let lengths = |dir: &str| -> u64 {
        let dir = Path::new(DIR).join(dir);
        let names = sim.fs.list(&dir).expect("listed");
        names.iter().filter_map(|name| Some(sim.fs.read(&dir.join(name))?.len() as u64)).sum()
    };
    let (blocks, beside) = (lengths("blocks/anonymous"), lengths("wal") + lengths("head"));
    let before = sim.fs.list(&Path::new(DIR).join("blocks/anonymous")).expect("listed").len() as u64;
    assert!(before > 1 && beside > blocks, "{before} blocks, {blocks} bytes, {beside} beside them");

    // All together is above the limit, but the blocks have room in their half.
    sim.options.retention_bytes = 2 * blocks;
    sim.restart_stepped();
    sim.run(Duration::from_secs(10));
    assert_eq!(sim.db().stats().blocks.blocks, before);
    same(&sim.content(), &model, "nothing is dropped");

    // The blocks alone are too many: only the oldest go.
    sim.db().close().expect("closes");
    sim.options.retention_bytes = 2 * blocks - 2;
    sim.restart_stepped();
    sim.run(Duration::from_secs(10));
    let left = sim.db().stats().blocks.blocks;
    assert!(left > 0 && left < before, "{left} of {before}");
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_room() {
    let mut sim = Sim::new(8);
    sim.db().close().expect("closes");
    sim.options.disk_reserve = 1 << 20;
    sim.restart_stepped();
    let mut model = Content::new();
    sim.scrape(&mut model, 3, 2);
    sim.fs.fill_after(100 << 10);
    sim.run(Duration::from_secs(10));
    assert!(sim.db().stats().jobs.disk_short);
    assert_eq!(sim.send(&TenantId::default(), &[(0, sim.now())]), None);
    sim.fs.heal();
    sim.run(Duration::from_secs(10));
    let now = [(0, sim.now())];
    assert_eq!(sim.send(&TenantId::default(), &now), Some(now.to_vec()));
    note(&mut model, &now);
    same(&sim.content(), &model, "afterwards");
}

#[test]
fn series_that_come_and_go_give_way_when_memory_is_short() {
    let churn = |sim: &Sim, model: &mut Content, from: usize, minutes: usize| {
        for minute in from..from + minutes {
            sim.run(Duration::from_secs(60));
            for part in 0..2 {
                let t = sim.now();
                let samples: Vec<_> = (0..10).map(|id| (minute * 20 + part * 10 + id, t)).collect();
                let taken = (0..50).find_map(|_| {
                    let taken = sim.send(&TenantId::default(), &samples);
                    if taken.is_none() {
                        sim.run(Duration::from_secs(3));
                    }
                    taken
                });
                note(model, &taken.expect("room is made"));
            }
        }
    };
    let mut sim = Sim::new(9);
    let mut model = Content::new();
    churn(&sim, &mut model, 0, 40);
    sim.db().close().expect("closes");
    sim.options.memory_bytes_max = usize::try_from(sim.db().stats().memory_bytes).expect("small");
    sim.restart_stepped();
    churn(&sim, &mut model, 40, 80);
    let stats = sim.db().stats();
    assert!(stats.jobs.cuts_pressed > 0 && stats.head.series_removed > 0, "{:?}", stats.jobs);
    same(&sim.content(), &model, "nothing is lost");
}
