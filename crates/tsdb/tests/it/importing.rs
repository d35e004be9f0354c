//! Imports: everything or nothing, and what is there already counts.

use std::{collections::BTreeMap, path::Path};

use chronolith_env::Fs as _;
use chronolith_model::{Histogram, Labels, TenantId, TimeRange};
use chronolith_storage::{Queryable as _, Samples, SelectHints, SelectRequest, conformance::block_on};
use chronolith_testkit::{fake_env::SimRng, fault_fs::CrashMode};
use chronolith_tsdb::{Db, DbOptions, ImportError, ImportReport};

use crate::fixture::{
    Content, DIR, Machine, NOW, append, compiled, content, count, eventually, metric, quick, scrape,
};

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

/// A megabyte for an import, so that it takes some runs.
fn small() -> DbOptions {
    DbOptions { memory_bytes_max: 16 << 20, ..quick() }
}

fn floats(samples: &[(i64, f64)]) -> Samples {
    let mut columns = Samples::default();
    samples.iter().for_each(|(t, value)| columns.push(*t, *value));
    columns
}

/// Imports `given`, and enters it into the model where that has nothing yet.
fn import(
    db: &Db,
    tenant: &TenantId,
    given: &[(Labels, Vec<(i64, f64)>)],
    model: &mut Content,
) -> Result<ImportReport, ImportError> {
    let mut importer = db.import(tenant)?;
    for (labels, samples) in given {
        importer.append(labels, &floats(samples))?;
        let known = model.entry(labels.clone()).or_default();
        for (t, value) in samples {
            known.entry(*t).or_insert(value.to_bits());
        }
    }
    importer.finish()
}

fn no_directory_is_left(machine: &Machine) {
    let left = machine.fs.list(&Path::new(DIR).join("import")).unwrap_or_default();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_is_there_counts_and_the_rest_comes() {
    let machine = Machine::new();
    let (db, _) = machine.open(small());
    let tenant = TenantId::default();
    let mut model = Content::new();
    let write = |t: i64, model: &mut Content| {
        let batch = scrape("m", 5, t, 0.25);
        append(&db, &tenant, &batch).expect("taken").ticket.wait().expect("durable");
        for (labels, samples) in batch {
            model.entry(labels).or_default().insert(t, samples[0].value.to_bits());
        }
    };
    // Some in blocks, some in the head.
    (0..40).for_each(|n| write(NOW - 30 * HOUR + n * 1_800_000, &mut model));
    db.request_cut(NOW - 12 * HOUR);
    eventually("a cut", || db.stats().jobs.cuts > 0);
    (0..20).for_each(|n| write(NOW - 9 * HOUR + n * 1_200_000, &mut model));
    assert!(db.stats().blocks.blocks > 0);

    // Ten days, in pieces that lie inside each other, newest first.
    let mut given = Vec::new();
    for piece in (0..12).rev() {
        for id in 0..40 {
            let samples = (0..240).map(|n| {
                let t = NOW - 10 * DAY + (n * 12 + piece) * 300_000;
                (t, (piece * 1000 + n) as f64 + id as f64)
            });
            given.push((metric("m", id), samples.collect::<Vec<_>>()));
        }
    }
    let (sent, before) = (given.iter().map(|(_, samples)| samples.len()).sum::<usize>(), count(&model));
    let report = import(&db, &tenant, &given, &mut model).expect("imported");
    assert!(report.runs > report.blocks && report.blocks >= 10 && report.blocks < 30, "{report:?}");
    assert_eq!(report.samples + report.duplicates, sent as u64);
    assert!(report.duplicates > 0 && count(&model) > before + 100_000, "{report:?}");
    assert_eq!(content(&db, &tenant), model);
    no_directory_is_left(&machine);
    assert!(content(&db, &TenantId::new("other").expect("valid")).is_empty());

    // The same once more changes nothing, whatever has been merged by then.
    let again: Vec<_> =
        given.iter().map(|(l, s)| (l.clone(), s.iter().map(|(t, _)| (*t, -1.0)).collect())).collect();
    import(&db, &tenant, &again, &mut model).expect("imported");
    assert_eq!(content(&db, &tenant), model);
    eventually("blocks are merged", || db.stats().jobs.compactions > 0);
    assert_eq!(content(&db, &tenant), model);
    db.close().expect("closes");
    drop(db);
    let (db, report) = machine.open(small());
    assert_eq!((report.blocks.quarantined, report.damage_count), (0, 0));
    assert_eq!(content(&db, &tenant), model);
}

#[test]
fn many_runs_of_a_window() {
    let machine = Machine::new();
    let (db, _) = machine.open(small());
    let tenant = TenantId::default();
    let mut importer = db.import(&tenant).expect("begun");
    let (pieces, series) = (45, 3000);
    for piece in 0..pieces {
        for id in 0..series {
            // Some come again with another value: the first counts.
            let t = NOW - HOUR + i64::from(piece % 40) * 1000;
            importer.append(&metric("m", id), &floats(&[(t, f64::from(piece))])).expect("taken");
        }
    }
    let report = importer.finish().expect("imported");
    assert!(report.runs > 32 && report.blocks <= 2, "{report:?}");
    assert_eq!((report.samples, report.duplicates), (40 * series as u64, 5 * series as u64));
    let seen = content(&db, &tenant);
    let expected = (0..40).map(|piece: i64| (NOW - HOUR + piece * 1000, (piece as f64).to_bits()));
    assert_eq!(seen.len(), series);
    assert!(seen.values().all(|samples| samples.iter().map(|(t, bits)| (*t, *bits)).eq(expected.clone())));
}

#[test]
fn nothing_is_seen_before_the_end() {
    let machine = Machine::new();
    let (db, _) = machine.open(small());
    let tenant = TenantId::default();
    let mut importer = db.import(&tenant).expect("begun");
    for id in 0..100 {
        let samples: Vec<_> = (0..2000).map(|n| (NOW - 3 * DAY + n * 60_000, n as f64)).collect();
        importer.append(&metric("m", id), &floats(&samples)).expect("taken");
    }
    assert!(content(&db, &tenant).is_empty());
    drop(importer);
    no_directory_is_left(&machine);
    assert_eq!(db.stats().blocks.blocks, 0);
    let empty = db.import(&tenant).expect("begun").finish().expect("nothing");
    assert_eq!(empty, ImportReport::default());
    let importer = db.import(&tenant).expect("begun");
    db.close().expect("closes");
    assert!(matches!(importer.finish(), Err(ImportError::Stopped)));
    assert!(matches!(db.import(&tenant), Err(ImportError::Stopped)));
}

#[test]
fn retention_and_the_future_and_order() {
    let machine = Machine::new();
    let (db, _) = machine.open(DbOptions { retention: std::time::Duration::from_secs(86_400), ..quick() });
    let tenant = TenantId::default();
    let mut importer = db.import(&tenant).expect("begun");
    let labels = metric("m", 0);
    let times = [NOW - 3 * DAY, NOW - 2 * DAY, NOW - HOUR, NOW + 2 * HOUR];
    importer.append(&labels, &floats(&times.map(|t| (t, 1.0)))).expect("taken");
    let unsorted = importer.append(&labels, &floats(&[(NOW, 1.0), (NOW - 1, 1.0)]));
    assert!(matches!(unsorted, Err(ImportError::Unsorted { .. })));
    let twice = importer.append(&labels, &floats(&[(NOW, 1.0), (NOW, 1.0)]));
    assert!(matches!(twice, Err(ImportError::Unsorted { .. })));
    assert!(matches!(importer.append(&Labels::default(), &floats(&[])), Err(ImportError::NoLabels)));
    let report = importer.finish().expect("imported");
    assert_eq!((report.samples, report.too_old, report.too_new, report.blocks), (1, 2, 1, 1));
    let seen = content(&db, &tenant);
    assert_eq!(seen, BTreeMap::from([(labels, BTreeMap::from([(NOW - HOUR, 1.0_f64.to_bits())]))]));
}

#[test]
fn dense_series_and_histograms() {
    let machine = Machine::new();
    let (db, _) = machine.open(quick());
    let tenant = TenantId::default();
    let mut importer = db.import(&tenant).expect("begun");
    let dense: Vec<_> = (0..200_000).map(|n| (NOW - DAY + n * 100, n as f64)).collect();
    importer.append(&metric("dense", 0), &floats(&dense)).expect("taken");
    let mut mixed = Samples::default();
    mixed.push(NOW - 5000, 1.0);
    mixed.push_histogram(NOW - 4000, Histogram::stale());
    mixed.push(NOW - 3000, 2.0);
    importer.append(&metric("mixed", 0), &mixed).expect("taken");
    let report = importer.finish().expect("imported");
    assert_eq!(report.samples, 200_003);
    let seen = content(&db, &tenant);
    assert_eq!(seen[&metric("dense", 0)].len(), 200_000);
    let request = SelectRequest {
        matchers: compiled(&[chronolith_model::Matcher::equal("__name__", "mixed")]),
        range: TimeRange::ALL,
        hints: SelectHints::default(),
    };
    let querier = db.querier(&tenant, TimeRange::ALL).expect("ready");
    let set = block_on(querier.select(&request)).expect("valid");
    let mut samples = Samples::default();
    block_on(set.fetch(0..1)).expect("fetched").read(0, &mut samples).expect("whole");
    assert_eq!((&samples.timestamps, &samples.values), (&vec![NOW - 5000, NOW - 3000], &vec![1.0, 2.0]));
    assert_eq!(samples.histogram_timestamps, [NOW - 4000]);
}

#[test]
fn a_crash_at_any_call_leaves_all_or_nothing() {
    let modes = [CrashMode::LoseUnsynced, CrashMode::Tear, CrashMode::Subset, CrashMode::KeepAll];
    let tenant = TenantId::default();
    let given: Vec<_> = (0..12)
        .flat_map(|piece| (0..20).map(move |id| (piece, id)))
        .map(|(piece, id)| {
            let begin = NOW - 11 * DAY + piece * 200 * 360_000;
            (metric("m", id), (0..200).map(|n| (begin + n * 360_000, n as f64)).collect::<Vec<_>>())
        })
        .collect();
    let options = DbOptions { memory_bytes_max: 16 << 20, ..DbOptions::default() };
    let (mut calls, mut done, mut before, mut after) = (1, 0, 0, 0);
    for number in 0_u64.. {
        let machine = Machine::new();
        let (db, _) = machine.open(options);
        append(&db, &tenant, &scrape("m", 3, NOW - HOUR, 0.5))
            .expect("taken")
            .ticket
            .wait()
            .expect("durable");
        let old = content(&db, &tenant);
        let mut new = old.clone();
        machine.fs.halt_after(calls);
        let ended = import(&db, &tenant, &given, &mut Content::new());
        for (labels, samples) in &given {
            for (t, value) in samples {
                new.entry(labels.clone()).or_default().entry(*t).or_insert(value.to_bits());
            }
        }
        let halted = machine.fs.halted();
        machine.fs.halt_after(0);
        machine.fs.crash(modes[number as usize % 4], &SimRng::new(number));
        drop(db);
        machine.fs.heal();
        for _ in 0..2 {
            let (db, report) = machine.open(options);
            assert_eq!((report.damage_count, report.blocks.quarantined), (0, 0), "after {calls} calls");
            let seen = content(&db, &tenant);
            let all = seen == new;
            assert!(all || ended.is_err() && seen == old, "after {calls} calls: {ended:?} {report:?}");
            if all {
                after += 1;
            } else {
                before += 1;
            }
            no_directory_is_left(&machine);
            db.close().expect("closes");
        }
        if halted {
            calls += if number % 3 == 0 { 2 } else { 1 };
        } else {
            done += 1;
            if done == 4 {
                break;
            }
        }
    }
    assert!(calls > 40 && before > 20 && after > 4, "{calls} {before} {after}");
}
