//! Many writers, readers and the background at once.

use std::{
    sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    time::Duration,
};

use chronolith_model::{Matcher, TenantId, TimeRange};
use chronolith_storage::{Admin as _, LabelQuery, Queryable, conformance::block_on};
use chronolith_tsdb::{DbOptions, JobStats};

use crate::fixture::{Machine, NOW, append, compiled, content, count, quick, scrape};

const WRITERS: usize = 4;
const ROUNDS: i64 = 150;
const SERIES: usize = 200;

#[test]
fn writers_readers_and_maintenance_do_not_disturb_each_other() {
    let machine = Machine::new();
    let options = DbOptions { segment_bytes: 64 << 10, ..quick() };
    let (db, _) = machine.open(options);
    let tenant = TenantId::default();
    let acked: Vec<AtomicI64> = (0..WRITERS).map(|_| AtomicI64::new(-1)).collect();
    let running = AtomicBool::new(true);
    // Readings that met samples, and that met new ones coming.
    let (read, while_written) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (db, tenant, acked) = (&db, &tenant, &acked);
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        // All writers share one metric's series too, so that shards and identities are contended.
                        let mut batch = scrape(&format!("own{writer}"), SERIES, NOW + round, round as f64);
                        batch.extend(scrape("shared", 20, NOW + round, round as f64));
                        let appended = append(db, tenant, &batch).expect("taken");
                        let outcome = &appended.outcome;
                        assert_eq!(outcome.stored + outcome.duplicates + outcome.rejected, 220);
                        assert!(outcome.stored >= SERIES as u64, "{outcome:?}");
                        appended.ticket.wait().expect("durable");
                        acked[writer].store(round, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        for _ in 0..2 {
            scope.spawn(|| {
                while running.load(Ordering::SeqCst) {
                    let before: Vec<i64> = acked.iter().map(|round| round.load(Ordering::SeqCst)).collect();
                    let seen = content(&db, &tenant);
                    for (writer, round) in before.iter().enumerate().filter(|(_, round)| **round >= 0) {
                        for (labels, samples) in
                            seen.iter().filter(|(l, _)| l.metric_name() == Some(&format!("own{writer}")))
                        {
                            // Everything acknowledged before the query is in it, in one piece.
                            let expected: Vec<i64> = (0..=*round).map(|r| NOW + r).collect();
                            let got: Vec<i64> = samples.keys().copied().take(expected.len()).collect();
                            assert_eq!(got, expected, "{labels}");
                        }
                    }
                    let querier = db.querier(&tenant, TimeRange::ALL).expect("ready");
                    let values = block_on(querier.label_values("id", &LabelQuery::default())).expect("valid");
                    assert!(values.items.is_sorted());
                    machine.clock.advance(Duration::from_millis(250));
                    assert!(db.stats().head.series > 0 || before.iter().all(|round| *round < 0));
                    let after = acked.iter().map(|round| round.load(Ordering::SeqCst));
                    read.fetch_add(u64::from(before.iter().any(|round| *round >= 0)), Ordering::SeqCst);
                    while_written.fetch_add(u64::from(!after.eq(before)), Ordering::SeqCst);
                }
            });
        }
        for writer in writers {
            writer.join().expect("no panic");
        }
        running.store(false, Ordering::SeqCst);
    });
    let (read, while_written) = (read.into_inner(), while_written.into_inner());
    assert!(read >= 5 && while_written >= 5, "{read}, {while_written}");
    let seen = content(&db, &tenant);
    assert_eq!(count(&seen), (WRITERS * SERIES + 20) * ROUNDS as usize);
    db.close().expect("closes");
    let (db, _) = machine.open(options);
    assert_eq!(content(&db, &tenant), seen);
}

/// What went on while somebody was reading.
#[derive(Debug, Default)]
struct During {
    reads: AtomicU64,
    cuts: AtomicU64,
    merges: AtomicU64,
    deletions: AtomicU64,
}

impl During {
    fn add(&self, before: (JobStats, i64), after: (JobStats, i64)) {
        let add = |counter: &AtomicU64, some: bool| counter.fetch_add(u64::from(some), Ordering::SeqCst);
        add(&self.reads, true);
        add(&self.cuts, after.0.blocks_cut > before.0.blocks_cut || after.0.cuts > before.0.cuts);
        add(&self.merges, after.0.compactions > before.0.compactions);
        add(&self.deletions, after.1 > before.1);
    }

    /// Whether readings met some of each.
    fn enough(&self) -> bool {
        let get = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        get(&self.reads) >= 50 && get(&self.cuts) >= 3 && get(&self.merges) >= 1 && get(&self.deletions) >= 3
    }
}

#[test]
fn readers_see_all_through_cuts_and_compactions_and_deletions() {
    const IDS: usize = 30;
    const STEP: i64 = 60_000;
    let machine = Machine::new();
    let options = DbOptions { segment_bytes: 16 << 10, ..quick() };
    let (db, _) = machine.open(options);
    let tenant = TenantId::default();
    let acked = AtomicI64::new(-1);
    // Of the metric `gone`, what is being deleted and what has been: rounds up to here.
    let (deleting, deleted) = (AtomicI64::new(-1), AtomicI64::new(-1));
    let during = During::default();
    let running = AtomicBool::new(true);
    let begun = std::time::Instant::now();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 0.. {
                let jobs = db.stats().jobs;
                let enough = jobs.cuts >= 6 && jobs.compactions >= 1 && during.enough();
                if enough || begun.elapsed() > Duration::from_secs(300) {
                    break;
                }
                machine.clock.set(NOW + round * STEP);
                let mut batch = scrape("m", IDS, NOW + round * STEP, round as f64);
                batch.extend(scrape("gone", 5, NOW + round * STEP, round as f64));
                let appended = append(&db, &tenant, &batch).expect("taken");
                assert_eq!(appended.outcome.stored, IDS as u64 + 5);
                appended.ticket.wait().expect("durable");
                acked.store(round, Ordering::SeqCst);
                // Windows pass quickly; cuts take their time.
                std::thread::sleep(Duration::from_millis(2));
            }
            running.store(false, Ordering::SeqCst);
        });
        scope.spawn(|| {
            while running.load(Ordering::SeqCst) {
                let until = acked.load(Ordering::SeqCst) - 10;
                if until > deleted.load(Ordering::SeqCst) + 20 {
                    deleting.store(until, Ordering::SeqCst);
                    let range = TimeRange::new(0, NOW + until * STEP);
                    let gone = compiled(&[Matcher::equal("__name__", "gone")]);
                    db.delete_series(&tenant, &[gone], range).expect("deleted");
                    deleted.store(until, Ordering::SeqCst);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                while running.load(Ordering::SeqCst) {
                    let before = acked.load(Ordering::SeqCst);
                    let gone_before = deleted.load(Ordering::SeqCst);
                    let jobs = db.stats().jobs;
                    let seen = content(&db, &tenant);
                    during.add((jobs, gone_before), (db.stats().jobs, deleted.load(Ordering::SeqCst)));
                    let gone_after = deleting.load(Ordering::SeqCst);
                    let (gone, kept): (Vec<_>, Vec<_>) =
                        seen.iter().partition(|(labels, _)| labels.metric_name() == Some("gone"));
                    assert!(before < 0 || kept.len() == IDS);
                    for (labels, samples) in kept {
                        let expected = (0..samples.len() as i64).map(|round| NOW + round * STEP);
                        assert!(samples.keys().copied().eq(expected), "{labels}: a gap");
                        assert!(samples.len() as i64 > before, "{labels}: {} of {before}", samples.len());
                    }
                    // What was deleted before is not there; what nobody has deleted is.
                    assert!(
                        before <= gone_after || gone.len() == 5,
                        "{before}, {gone_after}: {}",
                        gone.len()
                    );
                    for (labels, samples) in gone {
                        let rounds: Vec<i64> = samples.keys().map(|t| (t - NOW) / STEP).collect();
                        assert!(rounds[0] > gone_before, "{labels}: {} of {gone_before}", rounds[0]);
                        let there = rounds.iter().filter(|round| (gone_after + 1..=before).contains(round));
                        assert_eq!(there.count() as i64, (before - gone_after).max(0), "{labels}: {before}");
                    }
                }
            });
        }
        writer.join().expect("no panic");
    });
    let jobs = db.stats().jobs;
    assert!(jobs.cuts >= 6 && jobs.compactions >= 1 && during.enough(), "{jobs:?}, {during:?}");
    let seen = content(&db, &tenant);
    db.close().expect("closes");
    let (db, _) = machine.open(options);
    assert_eq!(content(&db, &tenant), seen);
}
