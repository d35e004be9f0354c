//! Many writers, readers and the background at once.

use std::{
    sync::atomic::{AtomicBool, AtomicI64, Ordering},
    time::Duration,
};

use chronolith_model::{TenantId, TimeRange};
use chronolith_storage::{LabelQuery, Queryable, conformance::block_on};
use chronolith_tsdb::DbOptions;

use crate::fixture::{Machine, NOW, append, content, count, quick, scrape};

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
                }
            });
        }
        for writer in writers {
            writer.join().expect("no panic");
        }
        running.store(false, Ordering::SeqCst);
    });
    let seen = content(&db, &tenant);
    assert_eq!(count(&seen), (WRITERS * SERIES + 20) * ROUNDS as usize);
    db.close().expect("closes");
    let (db, _) = machine.open(options);
    assert_eq!(content(&db, &tenant), seen);
}

#[test]
fn readers_see_all_through_cuts_and_compactions() {
    const IDS: usize = 30;
    const STEP: i64 = 60_000;
    let machine = Machine::new();
    let options = DbOptions { segment_bytes: 16 << 10, ..quick() };
    let (db, _) = machine.open(options);
    let tenant = TenantId::default();
    let acked = AtomicI64::new(-1);
    let running = AtomicBool::new(true);
    let begun = std::time::Instant::now();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 0.. {
                let jobs = db.stats().jobs;
                if (jobs.cuts >= 6 && jobs.compactions >= 1) || begun.elapsed() > Duration::from_secs(40) {
                    break;
                }
                machine.clock.set(NOW + round * STEP);
                let batch = scrape("m", IDS, NOW + round * STEP, round as f64);
                let appended = append(&db, &tenant, &batch).expect("taken");
                assert_eq!(appended.outcome.stored, IDS as u64);
                appended.ticket.wait().expect("durable");
                acked.store(round, Ordering::SeqCst);
                // Windows pass quickly; cuts take their time.
                std::thread::sleep(Duration::from_millis(2));
            }
            running.store(false, Ordering::SeqCst);
        });
        for _ in 0..2 {
            scope.spawn(|| {
                while running.load(Ordering::SeqCst) {
                    let before = acked.load(Ordering::SeqCst);
                    let seen = content(&db, &tenant);
                    assert!(before < 0 || seen.len() == IDS);
                    for (labels, samples) in &seen {
                        let expected = (0..samples.len() as i64).map(|round| NOW + round * STEP);
                        assert!(samples.keys().copied().eq(expected), "{labels}: a gap");
                        assert!(samples.len() as i64 > before, "{labels}: {} of {before}", samples.len());
                    }
                }
            });
        }
        writer.join().expect("no panic");
    });
    let jobs = db.stats().jobs;
    assert!(jobs.cuts >= 6 && jobs.compactions >= 1, "{jobs:?}");
    let seen = content(&db, &tenant);
    db.close().expect("closes");
    let (db, _) = machine.open(options);
    assert_eq!(content(&db, &tenant), seen);
}
