//! Retention, memory, series, times.

use std::time::Duration;

use chronolith_model::{Sample, TenantId};
use chronolith_storage::{RejectReason, StorageError};
use chronolith_tsdb::DbOptions;

use crate::fixture::{Machine, NOW, append, content, count, eventually, metric, quick, scrape};

#[test]
fn the_memory_limit_loses_nothing_and_then_refuses() {
    let machine = Machine::new();
    let (db, _) = machine.open(DbOptions { memory_bytes_max: 3 << 20, ..quick() });
    let tenant = TenantId::default();
    // Noise, so that chunks are large.
    let mut bits = 1_u64;
    let mut noise = || {
        bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f64::from_bits(bits >> 12 | 0x3ff0_0000_0000_0000)
    };
    let start = NOW - 10 * 3_600_000;
    for round in 0..1500 {
        let batch: Vec<_> = (0..500)
            .map(|id| (metric("m", id), vec![Sample::new(start + round * 15_000, noise())]))
            .collect();
        let appended = (0..5000)
            .find_map(|_| match append(&db, &tenant, &batch) {
                Ok(appended) => Some(appended),
                Err(StorageError::Unavailable { reason }) => {
                    assert!(reason.contains("memory limit"), "{reason}");
                    machine.clock.advance(Duration::from_secs(1));
                    std::thread::sleep(Duration::from_millis(5));
                    None
                }
                Err(other) => panic!("{other}"),
            })
            .expect("room is made");
        assert_eq!(appended.outcome.stored, 500, "round {round}: {:?}", appended.outcome);
        assert!(db.stats().memory_bytes <= (3 << 20) + (1 << 20), "the limit holds");
    }
    let stats = db.stats();
    assert!(stats.jobs.cuts > 0 && stats.blocks.blocks > 0, "{:?}", stats.jobs);
    assert_eq!((stats.head.memory_truncations, stats.head.samples_dropped), (0, 0));
    // Nothing is lost for want of memory: it is in blocks.
    let before = content(&db, &tenant);
    assert_eq!((before.len(), count(&before)), (500, 500 * 1500));
    db.close().expect("closes");
    let (db, _) = machine.open(DbOptions { memory_bytes_max: 3 << 20, ..quick() });
    assert_eq!(content(&db, &tenant), before);
    eventually("the limit holds again", || db.stats().memory_bytes <= 3 << 20);
    let newest = start + 1499 * 15_000;
    drop(db);

    // With a limit below what open chunks need, writes are refused.
    let (db, _) = machine.open(DbOptions { memory_bytes_max: 100 << 10, ..quick() });
    let refused = append(&db, &tenant, &scrape("m", 1, newest + 15_000, 0.0));
    assert!(matches!(refused, Err(StorageError::Unavailable { .. })), "{refused:?}");
}

#[test]
fn retention_drops_samples_series_and_log_segments() {
    let machine = Machine::new();
    let hour = Duration::from_secs(3600);
    let options = DbOptions { retention: 2 * hour, segment_bytes: 16 << 10, ..quick() };
    let (db, _) = machine.open(options);
    let tenant = TenantId::default();
    for minute in 0..300_i64 {
        machine.clock.advance(Duration::from_secs(60));
        let mut batch = scrape("stays", 20, NOW + minute * 60_000, 1.0);
        if minute < 60 {
            batch.extend(scrape("goes", 20, NOW + minute * 60_000, 1.0));
        }
        append(&db, &tenant, &batch).expect("taken").ticket.wait().expect("durable");
    }
    eventually("old series are removed", || db.stats().head.series == 20);
    eventually("old segments are removed", || {
        machine.clock.advance(Duration::from_millis(300));
        db.stats().wal_disk_bytes < 150 << 10
    });
    let stats = db.stats();
    assert_eq!((stats.head.series_created, stats.head.series_removed), (40, 20));
    let seen = content(&db, &tenant);
    assert_eq!(seen.len(), 20);
    assert!(
        seen.values().all(|samples| samples.keys().all(|t| *t >= stats.head.floor) && samples.len() > 100)
    );
    // A series that comes back is a new one, with a new number.
    let back = scrape("goes", 20, NOW + 300 * 60_000, 7.0);
    append(&db, &tenant, &back).expect("taken").ticket.wait().expect("durable");
    let expected = content(&db, &tenant);
    assert_eq!(expected.len(), 40);
    db.close().expect("closes");
    let (db, report) = machine.open(options);
    assert_eq!((report.samples_orphaned, report.damage_count), (0, 0));
    let after = content(&db, &tenant);
    let floor = db.stats().head.floor;
    for (labels, samples) in &expected {
        let kept: Vec<_> = samples.iter().filter(|(t, _)| **t >= floor).collect();
        assert_eq!(after[labels].iter().filter(|(t, _)| **t >= floor).collect::<Vec<_>>(), kept, "{labels}");
    }
}

#[test]
fn samples_outside_the_times_are_refused_and_make_no_series() {
    let machine = Machine::new();
    let ooo_window = Duration::from_secs(300);
    let options = DbOptions { retention: Duration::from_secs(3600), ooo_window, ..quick() };
    let (db, _) = machine.open(options);
    let tenant = TenantId::default();
    let reason = |t: i64| {
        let outcome = append(&db, &tenant, &scrape("m", 1, t, 0.0)).expect("taken").outcome;
        outcome.rejections.first().map(|rejection| rejection.reason.clone())
    };
    assert_eq!(reason(NOW + 600_001), Some(RejectReason::TooFarInFuture));
    assert_eq!(reason(NOW - 3_600_001), Some(RejectReason::OutOfBounds));
    assert_eq!(db.stats().head.series, 0);
    assert_eq!(reason(NOW + 600_000), None);
    assert_eq!(reason(NOW + 299_999), Some(RejectReason::TooOld));
    assert_eq!(reason(NOW + 300_000), None, "late, inside the window");
    let stats = db.stats().head;
    assert_eq!((stats.samples, stats.samples_late), (2, 1));
    let rejected = db.stats().head.rejected;
    assert_eq!(rejected.iter().map(|(_, n)| n).sum::<u64>(), 3);
}

#[test]
fn the_series_limit_is_each_tenants_own() {
    let machine = Machine::new();
    let (db, _) = machine.open(DbOptions { series_max: 10, ..quick() });
    let (a, b) = (TenantId::new("a").expect("valid"), TenantId::new("b").expect("valid"));
    let outcome = append(&db, &a, &scrape("m", 15, NOW, 0.0)).expect("taken").outcome;
    assert_eq!((outcome.stored, outcome.rejected), (10, 5));
    assert!(outcome.rejections.iter().all(|r| r.reason == RejectReason::SeriesLimit { limit: 10 }));
    assert_eq!(outcome.rejections.iter().map(|r| r.series).collect::<Vec<_>>(), [10, 11, 12, 13, 14]);
    assert_eq!(outcome.rejections[0].labels, Some(metric("m", 10)));
    let outcome = append(&db, &b, &scrape("m", 10, NOW, 0.0)).expect("taken").outcome;
    assert_eq!(outcome.stored, 10);
    let outcome = append(&db, &a, &scrape("m", 10, NOW + 1, 0.0)).expect("taken").outcome;
    assert_eq!(outcome.stored, 10, "known series go on");
}

#[test]
fn series_that_were_removed_are_found_again_by_their_old_keys() {
    let machine = Machine::new();
    let (db, _) = machine.open(DbOptions { retention: Duration::from_secs(600), ..quick() });
    let tenant = TenantId::default();
    for round in 0..5_i64 {
        let t = NOW + round * 3_600_000;
        let outcome = append(&db, &tenant, &scrape("m", 300, t, 0.0)).expect("taken").outcome;
        assert_eq!(outcome.stored, 300);
        machine.clock.advance(Duration::from_secs(3600));
        eventually("all series go", || {
            machine.clock.advance(Duration::from_millis(300));
            db.stats().head.series == 0
        });
        assert!(content(&db, &tenant).is_empty());
    }
    let stats = db.stats().head;
    assert_eq!((stats.series_created, stats.series_removed, stats.aliases), (1500, 1500, 0));
    assert_eq!(stats.chunk_bytes, 0);
}

#[test]
fn a_clock_that_is_ahead_destroys_nothing() {
    let machine = Machine::new();
    let options = DbOptions { segment_bytes: 1, ..quick() };
    let tenant = TenantId::default();
    let (db, _) = machine.open(options);
    for minute in 0..5 {
        let batch = scrape("m", 10, NOW - 600_000 + minute * 60_000, 1.0);
        append(&db, &tenant, &batch).expect("taken").ticket.wait().expect("durable");
    }
    let before = content(&db, &tenant);
    assert_eq!(count(&before), 50);
    let day = 24 * 3_600_000;

    // For a moment, while it runs.
    machine.clock.set(NOW + 100 * day);
    std::thread::sleep(Duration::from_millis(500));
    machine.clock.set(NOW);
    assert_eq!(content(&db, &tenant), before);
    let appended = append(&db, &tenant, &scrape("m", 10, NOW, 1.0)).expect("taken");
    assert_eq!((appended.outcome.stored, appended.outcome.rejected), (10, 0));
    appended.ticket.wait().expect("durable");
    let before = content(&db, &tenant);
    db.close().expect("closes");

    // From the start on.
    machine.clock.set(NOW + 100 * day);
    let (db, report) = machine.open(options);
    assert_eq!((report.damage_count, count(&content(&db, &tenant))), (0, 0), "too old by that clock");
    std::thread::sleep(Duration::from_millis(500));
    db.close().expect("closes");
    machine.clock.set(NOW);
    let (db, report) = machine.open(options);
    assert_eq!((report.samples, report.damage_count), (60, 0));
    assert_eq!(content(&db, &tenant), before);
}

#[test]
fn extreme_times_are_stored_and_read() {
    let machine = Machine::new();
    let options = DbOptions { retention: Duration::MAX, future_max: Duration::MAX, ..quick() };
    let (db, _) = machine.open(options);
    let tenant = TenantId::default();
    let floor = db.stats().head.floor;
    let times = [i64::MIN, floor - 1, floor, -7_200_001, -7_200_000, -1, 0, 1, NOW, i64::MAX - 1, i64::MAX];
    let samples: Vec<Sample> = times.iter().map(|t| Sample::new(*t, *t as f64)).collect();
    let batch = [(metric("m", 0), samples.clone()), (metric("m", 1), vec![Sample::new(i64::MIN, 0.0)])];
    let appended = append(&db, &tenant, &batch).expect("taken");
    assert_eq!((appended.outcome.stored, appended.outcome.rejected), (9, 3), "{:?}", appended.outcome);
    assert!(appended.outcome.rejections.iter().all(|r| r.reason == RejectReason::OutOfBounds));
    appended.ticket.wait().expect("durable");
    let expected: Vec<i64> = times[2..].to_vec();
    let check = |db: &chronolith_tsdb::Db| {
        let content = content(db, &tenant);
        assert_eq!(content.len(), 1);
        assert!(content[&metric("m", 0)].keys().eq(&expected), "{content:?}");
    };
    check(&db);
    std::thread::sleep(Duration::from_millis(300));
    check(&db);
    let again = append(&db, &tenant, &[(metric("m", 0), samples)]).expect("taken");
    // What has gone to blocks is not looked up.
    assert_eq!((again.outcome.stored, again.outcome.duplicates + again.outcome.rejected), (0, 11));
    db.close().expect("closes");
    let (db, report) = machine.open(options);
    assert_eq!(report.damage_count, 0);
    check(&db);
}

#[test]
fn an_entry_without_samples_makes_no_series() {
    let machine = Machine::new();
    let (db, _) = machine.open(quick());
    let appended = append(&db, &TenantId::default(), &[(metric("m", 0), Vec::new())]).expect("taken");
    assert_eq!((appended.outcome.stored, appended.outcome.rejected), (0, 0));
    assert_eq!(db.stats().head.series_created, 0);
}
