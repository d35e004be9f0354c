//! Damage of the head's files: what the log has comes back, what it does not have is said, everything else is answered.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use chronolith_env::{Fs, Op};
use chronolith_head::SnapshotDamageReason;
use chronolith_model::{TenantId, TimeRange};
use chronolith_storage::Queryable;
use chronolith_testkit::fault_fs::Fault;
use chronolith_tsdb::{Offline, OpenReport};

use crate::{
    fixture::{Content, DIR, count},
    sim::{Sim, WINDOW, note, same},
};

const MINUTE: i64 = 60_000;
/// A segment is not full.
const WHOLE_LOG: u64 = 64 << 20;
/// Segments go with each snapshot.
const SHORT_LOG: u64 = 4 << 10;

fn at(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

/// A database some of whose chunks are in files.
fn spilled(seed: u64, segment_bytes: u64) -> (Sim, Content) {
    let mut sim = Sim::new(seed);
    sim.options.ooo_window = Duration::from_secs(300);
    sim.options.segment_bytes = segment_bytes;
    sim.restart();
    let mut model = Content::new();
    sim.scrape(&mut model, 10, 150);
    assert_eq!(sim.db().stats().jobs.cuts, 0);
    (sim, model)
}

/// The chunk files, or snapshots, that are there.
fn files(sim: &Sim, dir: &str, suffix: &str) -> Vec<PathBuf> {
    let names = sim.fs.list(&at(dir)).unwrap_or_default();
    names.into_iter().filter(|name| name.ends_with(suffix)).map(|name| at(dir).join(name)).collect()
}

fn flip(sim: &Sim, path: &Path, at: usize) {
    let mut bytes = sim.fs.read(path).expect("there");
    bytes[at] ^= 4;
    sim.fs.put(path, bytes);
}

fn warnings(sim: &Sim, range: TimeRange) -> Vec<String> {
    sim.db().querier(&TenantId::default(), range).expect("ready").warnings()
}

/// Samples of `model` that are missing.
fn missing(sim: &Sim, model: &Content) -> usize {
    let content = sim.content();
    let mut missing = 0;
    for (labels, samples) in model {
        missing += samples
            .iter()
            .filter(|(t, bits)| content.get(labels).and_then(|of| of.get(t)) != Some(bits))
            .count();
    }
    assert_eq!(count(&content) + missing, count(model), "nothing is invented");
    missing
}

#[track_caller]
fn reported(report: &OpenReport, path: &Path, offset: u64) {
    let place = report.snapshot_damage.first().expect("it is said");
    assert_eq!((place.path.as_path(), place.offset, report.snapshot_damage_count), (path, offset, 1));
    assert_eq!(place.reason, SnapshotDamageReason::ChunkFile);
    assert_eq!(place.section, "chunk of a series");
}

#[test]
fn a_damaged_chunk_costs_nothing_while_the_log_is_there() {
    for seed in 1..3 {
        let (mut sim, model) = spilled(seed, WHOLE_LOG);
        sim.db().close().expect("closes");
        let path = files(&sim, "head/chunks", ".chunks").remove(0);
        flip(&sim, &path, 24 + 30);
        let report = sim.restart_stepped();
        reported(&report, &path, 24);
        let kept = report.snapshot_damage[0].quarantined.clone().expect("kept");
        assert!(kept.starts_with(at("head/quarantine")) && sim.fs.exists(&kept).expect("looked"), "{kept:?}");
        same(&sim.content(), &model, "the log has it");
        assert_eq!(warnings(&sim, TimeRange::ALL), [""; 0]);
        let stats = sim.db().stats();
        assert_eq!((stats.head_damage, stats.losses, stats.samples_lost), (1, 0, 0));
        // What comes behind does not depend on it any more.
        let mut model = model;
        sim.scrape(&mut model, 10, 5);
        let report = sim.restart();
        assert_eq!(report.snapshot_damage_count, 0, "{:?}", report.snapshot_damage);
        same(&sim.content(), &model, "after a restart");
        sim.scrape(&mut model, 10, 40);
        assert_eq!(sim.db().stats().jobs.cuts, 1);
        same(&sim.content(), &model, "after a cut");
    }
}

#[test]
fn a_missing_chunk_file_is_made_up_for_by_the_log_in_a_compaction_too() {
    let (mut sim, model) = spilled(3, WHOLE_LOG);
    sim.db().close().expect("closes");
    for path in files(&sim, "head/chunks", ".chunks") {
        sim.fs.remove_file(&path).expect("removed");
    }
    let compacted = {
        let offline = Offline::open(Path::new(DIR), sim.options, &sim.fake.env).expect("opens");
        offline.compact(&mut |_| {}).expect("compacts")
    };
    assert!(compacted.open.snapshot_damage_count > 0 && compacted.failures_count == 0);
    assert!(compacted.after.blocks > 0);
    sim.restart_stepped();
    same(&sim.content(), &model, "after a compaction");
}

#[test]
fn what_the_log_has_not_is_told_until_a_cut_has_passed() {
    let (mut sim, mut model) = spilled(4, SHORT_LOG);
    sim.db().close().expect("closes");
    let path = files(&sim, "head/chunks", ".chunks").remove(0);
    flip(&sim, &path, 24 + 30);
    let report = sim.restart_stepped();
    reported(&report, &path, 24);
    let lost = missing(&sim, &model);
    assert!(lost > 10, "{lost}");
    let texts = warnings(&sim, TimeRange::ALL);
    let said =
        format!("{lost} samples of 1 series are missing, lost by damage of {} at byte 24", path.display());
    assert_eq!(texts, [said]);
    let stats = sim.db().stats();
    assert_eq!((stats.head_damage, stats.losses, stats.samples_lost), (1, 1, lost as u64));
    assert_eq!(warnings(&sim, TimeRange::new(sim.now() - 5 * MINUTE, sim.now())), [""; 0], "another time");
    let other = TenantId::new("other").expect("valid");
    let of_other = sim.db().querier(&other, TimeRange::ALL).expect("ready").warnings();
    assert_eq!(of_other, [""; 0], "another tenant");
    // Also behind another start, which finds no damage any more.
    sim.scrape(&mut model, 10, 5);
    let report = sim.restart();
    assert_eq!((report.snapshot_damage_count, warnings(&sim, TimeRange::ALL).len()), (0, 1));
    assert_eq!(missing(&sim, &model), lost);
    sim.scrape(&mut model, 10, 2 * WINDOW / MINUTE);
    assert!(sim.db().stats().jobs.cuts >= 2);
    assert_eq!((missing(&sim, &model), warnings(&sim, TimeRange::ALL)), (lost, Vec::new()));
}

#[test]
fn a_chunk_that_becomes_unreadable_is_made_again_from_the_log() {
    let (mut sim, mut model) = spilled(5, WHOLE_LOG);
    let path = files(&sim, "head/chunks", ".chunks").remove(0);
    flip(&sim, &path, 24 + 30);
    let lost = missing(&sim, &model);
    assert!(lost > 0, "the rest is answered");
    let texts = warnings(&sim, TimeRange::ALL);
    assert_eq!(texts, ["1 chunks of the head cannot be read and are not part of the answer"]);
    sim.run(Duration::from_secs(10));
    same(&sim.content(), &model, "made again");
    assert_eq!(warnings(&sim, TimeRange::ALL), [""; 0]);
    assert!(sim.fs.exists(&at("head/quarantine").join(path.file_name().expect("named"))).expect("looked"));
    let stats = sim.db().stats();
    assert_eq!((stats.head_damage, stats.samples_lost), (1, 0));
    sim.scrape(&mut model, 10, 3);
    let report = sim.restart();
    assert_eq!(report.snapshot_damage_count, 0);
    same(&sim.content(), &model, "after a restart");
}

#[test]
fn neither_snapshot_nor_cut_lets_the_log_go_with_what_cannot_be_read() {
    // Nobody asks: the snapshot, and the cut, find it themselves.
    for closing in [true, false] {
        let (mut sim, mut model) = spilled(6, WHOLE_LOG);
        let path = files(&sim, "head/chunks", ".chunks").remove(0);
        flip(&sim, &path, 24 + 30);
        if closing {
            let report = sim.restart();
            assert_eq!(report.samples_in_snapshot, 0, "there is none");
        } else {
            sim.scrape(&mut model, 10, 60);
            assert_eq!(sim.db().stats().jobs.cuts, 1);
        }
        same(&sim.content(), &model, "the log has it");
        assert_eq!((sim.db().stats().samples_lost, warnings(&sim, TimeRange::ALL)), (0, Vec::new()));
    }
}

#[test]
fn a_chunk_that_nothing_has_any_more_is_told_of_and_holds_up_nothing() {
    let (mut sim, mut model) = spilled(7, SHORT_LOG);
    // A snapshot that knows the chunks: the log has let go of them.
    sim.restart();
    let path = files(&sim, "head/chunks", ".chunks").remove(0);
    flip(&sim, &path, 24 + 30);
    let lost = missing(&sim, &model);
    assert!(lost > 0);
    sim.run(Duration::from_secs(10));
    let texts = warnings(&sim, TimeRange::ALL);
    assert!(texts.len() == 1 && texts[0].contains("24") && texts[0].contains("chunks"), "{texts:?}");
    sim.scrape(&mut model, 10, 60);
    let stats = sim.db().stats();
    assert_eq!((stats.jobs.cuts, stats.samples_lost), (1, lost as u64));
    assert_eq!(missing(&sim, &model), lost);
    let late = [(0, sim.now() - MINUTE / 2)];
    note(&mut model, &sim.send(&TenantId::default(), &late).expect("taken"));
    assert_eq!(missing(&sim, &model), lost);
}

/// Where the first section of series begins in a snapshot.
fn first_of_series(snapshot: &[u8]) -> usize {
    let mut at = 32;
    while snapshot[at] != 1 {
        at += 24 + u32::from_le_bytes(snapshot[at + 4..at + 8].try_into().expect("four")) as usize;
    }
    at
}

#[test]
fn a_damaged_section_of_a_snapshot_is_told_of_where_the_log_has_not_all() {
    for (seed, segment_bytes) in [(8, WHOLE_LOG), (9, SHORT_LOG)] {
        let (mut sim, model) = spilled(seed, segment_bytes);
        // More than one segment, so that the first of them has gone.
        sim.restart();
        sim.db().close().expect("closes");
        let path = files(&sim, "head", ".snapshot").remove(0);
        let at = first_of_series(&sim.fs.read(&path).expect("there"));
        flip(&sim, &path, at + 24 + 20);
        let report = sim.restart_stepped();
        let place = report.snapshot_damage.first().expect("it is said");
        assert_eq!(
            (place.path.as_path(), place.section, place.offset),
            (path.as_path(), "series", at as u64)
        );
        assert_eq!(place.reason, SnapshotDamageReason::Payload);
        assert!(place.quarantined.is_some());
        assert_eq!(sim.db().stats().head_damage, 1);
        let (lost, texts) = (missing(&sim, &model), warnings(&sim, TimeRange::ALL));
        if segment_bytes == WHOLE_LOG {
            assert_eq!((lost, texts), (0, Vec::new()));
        } else {
            assert!(lost > 0 && texts.len() == 1, "{lost} {texts:?}");
            assert!(texts[0].contains("may be missing") && texts[0].contains("snapshot"), "{texts:?}");
        }
    }
}

#[test]
fn a_cut_waits_for_a_device_however_long_it_takes() {
    let (sim, mut model) = spilled(10, WHOLE_LOG);
    sim.fs.fail(Op::Read, 1, u64::MAX, Fault::Io);
    sim.scrape(&mut model, 10, 45);
    let stats = sim.db().stats();
    assert!(stats.jobs.cuts == 0 && stats.jobs.cuts_failed > 10, "{:?}", stats.jobs);
    assert_eq!((stats.losses, stats.samples_lost), (0, 0));
    assert!(missing(&sim, &model) > 0 && warnings(&sim, TimeRange::ALL).len() == 1);
    sim.fs.heal();
    sim.run(Duration::from_secs(120));
    let stats = sim.db().stats();
    assert_eq!((stats.jobs.cuts, stats.samples_lost), (1, 0));
    same(&sim.content(), &model, "nothing was left out");
    assert_eq!(warnings(&sim, TimeRange::ALL), [""; 0]);
}
