//! Cuts: what was in the head is in blocks, once, whatever happens meanwhile.

use std::{path::Path, time::Duration};

use chronolith_env::{Fs, Op};
use chronolith_model::TenantId;
use chronolith_testkit::fault_fs::{CrashMode, Fault};

use crate::{
    fixture::{Content, DIR, count},
    sim::{START, Sim, WINDOW, note, same},
};

const MODES: [CrashMode; 4] =
    [CrashMode::LoseUnsynced, CrashMode::Tear, CrashMode::Subset, CrashMode::KeepAll];

/// A database shortly before its first cut: a minute more, and it is due.
fn before_a_cut(seed: u64) -> (Sim, Content) {
    let sim = Sim::new(seed);
    let mut model = Content::new();
    sim.scrape(&mut model, 12, (WINDOW + WINDOW / 2) / 60_000 - 11);
    // Late ones too.
    let late: Vec<_> = (0..5).map(|id| (id, sim.now() - 30 * 60_000 + 1)).collect();
    assert_eq!(sim.send(&TenantId::default(), &late), Some(late.clone()));
    note(&mut model, &late);
    assert_eq!(sim.db().stats().jobs.cuts, 0);
    (sim, model)
}

/// Makes the cut due, and lets it happen as far as the disk allows.
fn cut(sim: &Sim, model: &mut Content) {
    sim.run(Duration::from_secs(120));
    let t = sim.now();
    if let Some(taken) = sim.send(&TenantId::default(), &[(0, t), (1, t)]) {
        note(model, &taken);
    }
    sim.run(Duration::from_secs(30));
}

#[test]
fn the_past_goes_to_blocks_and_stays_readable() {
    let (mut sim, mut model) = before_a_cut(1);
    cut(&sim, &mut model);
    let stats = sim.db().stats();
    assert_eq!((stats.jobs.cuts, stats.blocks.blocks), (1, 1), "{:?}", stats.jobs);
    assert!(stats.head.samples_cut >= stats.blocks.samples, "the head has let go of it");
    same(&sim.content(), &model, "after a cut");
    sim.scrape(&mut model, 12, 8 * 60);
    let stats = sim.db().stats();
    assert!(stats.jobs.cuts >= 4 && stats.jobs.compactions >= 1, "{:?}", stats.jobs);
    assert!(stats.wal_disk_bytes < 64 << 10, "the log is short: {}", stats.wal_disk_bytes);
    same(&sim.content(), &model, "after more");
    let report = sim.restart();
    assert_eq!((report.damage_count, report.samples_orphaned), (0, 0));
    same(&sim.content(), &model, "after a restart");
    let names = sim.fs.list(&Path::new(DIR).join("blocks/anonymous")).expect("listed");
    assert_eq!(names.len() as u64, sim.db().stats().blocks.blocks, "{names:?}");
}

#[test]
fn views_from_before_a_cut_see_what_they_saw() {
    use chronolith_storage::Queryable as _;
    let (sim, mut model) = before_a_cut(2);
    let querier = sim.db().querier(&TenantId::default(), chronolith_model::TimeRange::ALL).expect("ready");
    let seen = crate::fixture::content_of(&*querier);
    same(&seen, &model, "before");
    cut(&sim, &mut model);
    let stats = sim.db().stats();
    assert_eq!((stats.blocks.blocks, stats.jobs.cuts), (1, 0), "shown, and not finished while it is read");
    assert_eq!(stats.head.samples_cut, 0);
    same(&crate::fixture::content_of(&*querier), &seen, "after the swap");
    same(&sim.content(), &model, "a new view");
    drop(querier);
    sim.run(Duration::from_secs(10));
    assert_eq!(sim.db().stats().jobs.cuts, 1);
    same(&sim.content(), &model, "after its end");
}

#[test]
fn a_crash_at_any_call_of_a_cut_loses_nothing() {
    for (number, mode) in MODES.into_iter().enumerate() {
        let mut calls = 0;
        loop {
            let (mut sim, mut model) = before_a_cut(number as u64);
            sim.fs.halt_after(calls);
            cut(&sim, &mut model);
            let over = !sim.fs.halted();
            let cuts = sim.db().stats().jobs.cuts;
            let report = sim.crash(mode);
            assert_eq!((report.damage_count, report.samples_orphaned), (0, 0), "{mode:?} {calls}");
            assert_eq!(report.blocks.quarantined, 0, "{mode:?} {calls}");
            let mut got = sim.content();
            // The last samples were sent, and may have become durable without anyone being told.
            drop_unacknowledged(&mut got, &model);
            same(&got, &model, &format!("{mode:?}, crash at call {calls}"));
            // And it goes on.
            sim.run(Duration::from_secs(200));
            sim.scrape(&mut model, 12, 5);
            let mut got = sim.content();
            drop_unacknowledged(&mut got, &model);
            same(&got, &model, &format!("{mode:?}, later, crash at call {calls}"));
            let names = sim.fs.list(&Path::new(DIR).join("blocks/anonymous")).unwrap_or_default();
            assert!(names.iter().all(|name| !name.ends_with(".tmp")), "{names:?}");
            if over {
                assert!(cuts == 1 && calls > 20, "{cuts} {calls}");
                break;
            }
            calls += 1;
        }
    }
}

/// Of the two samples that `cut` sends.
fn drop_unacknowledged(got: &mut Content, model: &Content) {
    let known = |labels, t: &i64| model.get(labels).is_some_and(|samples| samples.contains_key(t));
    for (labels, samples) in got.iter_mut() {
        let before = samples.len();
        samples.retain(|t, _| known(labels, t));
        assert!(before - samples.len() <= 1, "invented");
    }
}

#[test]
fn a_disk_that_fails_delays_a_cut_and_takes_nothing() {
    for (op, fault) in [
        (Op::Create, Fault::Full),
        (Op::Write, Fault::Full),
        (Op::Sync, Fault::Io),
        (Op::Rename, Fault::Io),
        (Op::SyncDir, Fault::Io),
        (Op::Open, Fault::Io),
        (Op::CreateDir, Fault::Full),
    ] {
        for nth in 1..8 {
            let (mut sim, mut model) = before_a_cut(7);
            sim.run(Duration::from_secs(120));
            let t = sim.now();
            model_send(&sim, &mut model, &[(0, t), (1, t)]);
            sim.fs.fail(op, nth, 3, fault);
            sim.run(Duration::from_secs(1));
            // Ingest goes on, or refuses; what it takes is there.
            for _ in 0..5 {
                sim.run(Duration::from_secs(60));
                let t = sim.now();
                model_send(&sim, &mut model, &[(0, t), (2, t)]);
            }
            sim.fs.heal();
            sim.run(Duration::from_secs(120));
            assert_eq!(sim.db().stats().jobs.cuts, 1, "{op} {nth}: {:?}", sim.db().stats().jobs);
            let mut got = sim.content();
            drop_unknown(&mut got, &model);
            same(&got, &model, &format!("{op} {nth}"));
            sim.restart();
            let mut got = sim.content();
            drop_unknown(&mut got, &model);
            same(&got, &model, &format!("{op} {nth}, restarted"));
        }
    }
}

fn model_send(sim: &Sim, model: &mut Content, samples: &[(usize, i64)]) {
    if let Some(taken) = sim.send(&TenantId::default(), samples) {
        note(model, &taken);
    }
}

/// What was sent and not acknowledged may be there.
fn drop_unknown(got: &mut Content, model: &Content) {
    for (labels, samples) in got.iter_mut() {
        samples.retain(|t, _| model.get(labels).is_some_and(|known| known.contains_key(t)));
    }
}

#[test]
fn a_crash_at_any_call_of_a_compaction_loses_nothing() {
    let prepare = || {
        let mut sim = Sim::new(11);
        sim.options.block_range_max = Duration::from_secs(1);
        sim.restart();
        let mut model = Content::new();
        sim.scrape(&mut model, 5, 12 * 60);
        assert!(sim.db().stats().blocks.blocks >= 4);
        (sim, model)
    };
    for mode in [CrashMode::LoseUnsynced, CrashMode::Subset] {
        let mut calls = 0;
        loop {
            let (mut sim, model) = prepare();
            // Only now windows of 8 h are allowed.
            sim.db().close().expect("closes");
            sim.options.block_range_max = Duration::from_secs(24 * 3600);
            sim.restart_stepped();
            let blocks = sim.db().stats().blocks.blocks;
            sim.fs.halt_after(calls);
            sim.run(Duration::from_secs(30));
            let over = !sim.fs.halted();
            let report = sim.crash(mode);
            assert_eq!((report.damage_count, report.blocks.quarantined), (0, 0), "{mode:?} {calls}");
            same(&sim.content(), &model, &format!("{mode:?}, crash at call {calls}"));
            sim.run(Duration::from_secs(60));
            same(&sim.content(), &model, &format!("{mode:?}, later, crash at call {calls}"));
            assert!(sim.db().stats().blocks.blocks < blocks);
            if over {
                assert!(calls > 10, "{calls}");
                break;
            }
            calls += 1;
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let (sim, mut model) = before_a_cut(seed);
        cut(&sim, &mut model);
        let dir = Path::new(DIR).join("blocks/anonymous");
        let names = sim.fs.list(&dir).expect("listed");
        names.into_iter().map(|name| sim.fs.read(&dir.join(name))).collect::<Vec<_>>()
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6), "ids differ");
}

#[test]
fn start_is_inside_a_window() {
    assert_eq!(START.rem_euclid(WINDOW), 600_000);
    let (sim, model) = before_a_cut(1);
    assert_eq!(count(&sim.content()), count(&model));
}

#[test]
fn a_sender_that_lags_goes_on_behind_every_cut() {
    let (sim, mut model) = before_a_cut(7);
    let tenant = TenantId::default();
    // Two series of a sender that was away for twelve hours: in order, faster than time passes.
    let mut t = sim.now() - 12 * 3_600_000;
    loop {
        let until = sim.now().min(t + 6_000_000);
        while t < until {
            let samples = [(100, t), (101, t + 7)];
            assert_eq!(
                sim.send(&tenant, &samples).as_deref(),
                Some(&samples[..]),
                "{} behind",
                sim.now() - t
            );
            note(&mut model, &samples);
            t += 300_000;
        }
        if t >= sim.now() {
            break;
        }
        sim.scrape(&mut model, 3, 60);
    }
    let stats = sim.db().stats();
    assert!(stats.jobs.cuts >= 2, "{:?}", stats.jobs);
    same(&sim.content(), &model, "all of it is there");
    cut(&sim, &mut model);
    same(&sim.content(), &model, "and stays");
}
