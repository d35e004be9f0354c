//! Metadata of metrics: there again behind each end, and logged when it changes.

use std::{path::Path, time::Duration};

use chronolith_env::Op;
use chronolith_model::{MetricMetadata, MetricType, TenantId, TimeRange};
use chronolith_storage::{Appender, Queryable, conformance::block_on};
use chronolith_testkit::fault_fs::{CrashMode, Fault};

use crate::{
    fixture::{Content, DIR},
    sim::Sim,
};

fn entry(metric: &str, help: &str) -> MetricMetadata {
    let unit = "bytes".to_owned();
    MetricMetadata { metric: metric.to_owned(), kind: MetricType::Counter, unit, help: help.to_owned() }
}

fn send(sim: &Sim, tenant: &TenantId, entries: &[MetricMetadata]) {
    sim.db().append_metadata(tenant, entries.to_vec());
    sim.run(Duration::from_millis(50));
}

fn known(sim: &Sim, tenant: &TenantId) -> Vec<MetricMetadata> {
    let querier = sim.db().querier(tenant, TimeRange::ALL).expect("ready");
    block_on(querier.metadata(None)).expect("answered")
}

fn tenants() -> [TenantId; 2] {
    [TenantId::default(), TenantId::new("other").expect("valid")]
}

#[test]
fn it_outlives_a_crash() {
    for mode in [CrashMode::LoseUnsynced, CrashMode::Tear, CrashMode::KeepAll] {
        let mut sim = Sim::new(1);
        let [a, b] = tenants();
        send(&sim, &a, &[entry("x", "one"), entry("y", "one")]);
        send(&sim, &b, &[entry("x", "of another")]);
        send(&sim, &a, &[entry("x", "two")]);
        for _ in 0..2 {
            sim.crash(mode);
            assert_eq!(known(&sim, &a), [entry("x", "two"), entry("y", "one")]);
            assert_eq!(known(&sim, &b), [entry("x", "of another")]);
        }
    }
}

#[test]
fn it_outlives_clean_restarts_and_the_log_that_goes_with_them() {
    let mut sim = Sim::new(2);
    let [a, b] = tenants();
    let mut model = Content::new();
    send(&sim, &a, &[entry("x", "one"), entry("y", "one")]);
    for round in 0..4 {
        sim.scrape(&mut model, 10, 20);
        send(&sim, &b, &[entry("z", &round.to_string())]);
        sim.restart();
        assert_eq!(known(&sim, &a), [entry("x", "one"), entry("y", "one")]);
        assert_eq!(known(&sim, &b), [entry("z", &round.to_string())]);
    }
    assert_eq!(
        sim.fs.read(&Path::new(DIR).join("wal/00000001.wal")),
        None,
        "the segment that had it is gone"
    );
    // A crash behind that finds the newest, in the snapshot or in the log.
    send(&sim, &a, &[entry("y", "two")]);
    sim.crash(CrashMode::LoseUnsynced);
    assert_eq!(known(&sim, &a), [entry("x", "one"), entry("y", "two")]);
}

#[test]
fn a_snapshot_has_what_came_while_it_was_written() {
    let mut sim = Sim::new(3);
    let [a, _] = tenants();
    let mut model = Content::new();
    let mut last = 0;
    // Through cuts, each with a snapshot behind it, and segments that go.
    for round in 0..20 {
        sim.scrape(&mut model, 5, 17);
        last = round;
        send(&sim, &a, &[entry("x", &round.to_string()), entry(&format!("m{}", round % 3), "")]);
    }
    assert!(sim.db().stats().jobs.snapshots >= 2);
    sim.crash(CrashMode::LoseUnsynced);
    let known = known(&sim, &a);
    assert!(known.contains(&entry("x", &last.to_string())) && known.len() == 4, "{known:?}");
}

#[test]
fn what_is_sent_again_does_not_grow_the_log() {
    let sim = Sim::new(4);
    let [a, _] = tenants();
    let all: Vec<_> =
        (0..500).map(|i| entry(&format!("metric_{i}"), "a text that says what it is")).collect();
    send(&sim, &a, &all);
    let written = || sim.db().stats().wal.bytes;
    let once = written();
    assert!(once > 500, "{once}");
    for _ in 0..60 {
        send(&sim, &a, &all);
        sim.run(Duration::from_secs(60));
    }
    assert_eq!(written(), once);
    send(&sim, &a, &[entry("metric_7", "another text")]);
    assert!(written() - once < 200, "only what has changed: {}", written() - once);
}

#[test]
fn a_log_that_cannot_be_written_is_made_up_for_later() {
    let mut sim = Sim::new(5);
    let [a, _] = tenants();
    sim.fs.fail(Op::Sync, 1, 3, Fault::Io);
    send(&sim, &a, &[entry("x", "one")]);
    assert_eq!(known(&sim, &a), [entry("x", "one")]);
    sim.run(Duration::from_secs(60));
    sim.crash(CrashMode::LoseUnsynced);
    assert_eq!(known(&sim, &a), [entry("x", "one")]);
}
