//! Imports: everything or nothing, and what is there already counts.

use std::{collections::BTreeMap, path::Path};

use chronolith_env::{Fs as _, Op};
use chronolith_model::{Histogram, Labels, Matcher, TenantId, TimeRange};
use chronolith_storage::{
    Admin as _, MemoryBudget, Queryable as _, Samples, SelectHints, SelectRequest, StorageError,
    conformance::block_on,
};
use chronolith_testkit::{
    fake_env::SimRng,
    fault_fs::{CrashMode, Fault},
};
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
        matchers: compiled(&[Matcher::equal("__name__", "mixed")]),
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

/// Deletes all samples of the series `m` with this id.
fn delete(db: &Db, tenant: &TenantId, id: &str, range: TimeRange) {
    let set = compiled(&[Matcher::equal("id", id)]);
    db.delete_series(tenant, &[set], range).expect("deleted");
}

#[test]
fn an_older_deletion_is_not_about_an_import() {
    for (cut, mode) in [(false, None), (false, Some(CrashMode::LoseUnsynced)), (true, None)] {
        let machine = Machine::new();
        let (mut db, _) = machine.open(quick());
        let tenant = TenantId::default();
        let mut model = Content::new();
        for n in 0..10 {
            let batch = scrape("m", 3, NOW - HOUR + n * 60_000, 0.5);
            append(&db, &tenant, &batch).expect("taken").ticket.wait().expect("durable");
            for (labels, samples) in batch.into_iter().skip(1) {
                model.entry(labels).or_default().insert(samples[0].timestamp, samples[0].value.to_bits());
            }
        }
        delete(&db, &tenant, "0", TimeRange::ALL);
        assert_eq!(content(&db, &tenant), model);
        // Some of it at times at which something has been deleted.
        let given: Vec<_> = (0..3)
            .map(|id| {
                let times = (0..40).map(|n| NOW - 2 * HOUR + n * 120_000);
                (metric("m", id), times.map(|t| (t, 7.0)).collect())
            })
            .collect();
        import(&db, &tenant, &given, &mut model).expect("imported");
        assert_eq!(content(&db, &tenant), model, "at once");
        let restart = |db: Db| match mode {
            Some(mode) => {
                machine.crash(db, mode, 1);
                machine.open(quick()).0
            }
            None => {
                db.close().expect("closes");
                drop(db);
                machine.open(quick()).0
            }
        };
        for _ in 0..2 {
            if cut {
                let cuts = db.stats().jobs.cuts;
                db.request_cut(NOW - HOUR + 200_000);
                eventually("a cut", || db.stats().jobs.cuts > cuts);
            }
            db = restart(db);
            assert_eq!(content(&db, &tenant), model, "{cut} {mode:?}");
        }
        // A later one is, and stays.
        delete(&db, &tenant, "0", TimeRange::ALL);
        model.remove(&metric("m", 0));
        assert_eq!(content(&db, &tenant), model);
        db = restart(db);
        assert_eq!(content(&db, &tenant), model, "{cut} {mode:?}, deleted");
    }
}

#[test]
fn what_the_head_may_lose_is_in_the_import() {
    let machine = Machine::new();
    let (db, _) = machine.open(quick());
    let tenant = TenantId::default();
    // Nobody waits: nothing of it is in the log.
    let waiting = append(&db, &tenant, &scrape("m", 2, NOW - HOUR, 1.0)).expect("taken");
    let (t, other) = (NOW - HOUR, NOW - 2 * HOUR);
    let given = [(metric("m", 0), vec![(other, 5.0), (t, 1.0)]), (metric("m", 1), vec![(t, 9.0)])];
    let report = import(&db, &tenant, &given, &mut Content::new()).expect("imported");
    assert_eq!((report.samples, report.duplicates), (1, 2));
    let expected = Content::from([
        (metric("m", 0), BTreeMap::from([(other, 5.0_f64.to_bits()), (t, 1.0_f64.to_bits())])),
        (metric("m", 1), BTreeMap::from([(t, 2.0_f64.to_bits())])),
    ]);
    assert_eq!(content(&db, &tenant), expected, "what the head has counts");
    assert!(!waiting.ticket.is_done());
    machine.crash(db, CrashMode::LoseUnsynced, 1);
    let (db, _) = machine.open(quick());
    assert_eq!(content(&db, &tenant), expected, "after a crash");
}

#[test]
fn whatever_the_disk_refuses_an_import_is_there_or_it_is_not() {
    let tenant = TenantId::default();
    let given: Vec<_> = (0..3)
        .map(|id| {
            (metric("m", id), (0..50).map(|n| (NOW - 3 * DAY + n * 3_600_000, n as f64)).collect::<Vec<_>>())
        })
        .collect();
    let (mut not_shown, mut uncertain, mut ended) = (0, 0, 0);
    let ops = [
        Op::Remove,
        Op::SyncDir,
        Op::Create,
        Op::Write,
        Op::Sync,
        Op::Rename,
        Op::Open,
        Op::Read,
        Op::List,
        Op::Stat,
        Op::CreateDir,
    ];
    for (op, times) in ops.into_iter().flat_map(|op| [(op, 1), (op, 2), (op, 1000)]) {
        for nth in 1.. {
            let machine = Machine::new();
            let options = DbOptions::default();
            let (db, _) = machine.open(options);
            append(&db, &tenant, &scrape("m", 3, NOW - HOUR, 0.5))
                .expect("taken")
                .ticket
                .wait()
                .expect("durable");
            let old = content(&db, &tenant);
            let mut new = old.clone();
            for (labels, samples) in &given {
                let known = new.entry(labels.clone()).or_default();
                samples.iter().for_each(|(t, value)| {
                    known.entry(*t).or_insert(value.to_bits());
                });
            }
            let calls = machine.fs.calls(op);
            machine.fs.fail(op, nth, times, Fault::Io);
            let ended_as = import(&db, &tenant, &given, &mut Content::new());
            let over = machine.fs.calls(op) < calls + nth;
            machine.fs.heal();
            let what = format!("{op} {nth} {times}: {ended_as:?}");
            let shown = content(&db, &tenant);
            assert_eq!(shown, if ended_as.is_ok() { new.clone() } else { old.clone() }, "{what}");
            let mut expected = vec![match &ended_as {
                Ok(_) | Err(ImportError::NotShown(_)) => new,
                Err(_) => old.clone(),
            }];
            match ended_as {
                Ok(_) => {
                    ended += 1;
                    // What happens to it now is not undone by a start.
                    (0..3).for_each(|id| {
                        delete(&db, &tenant, &id.to_string(), TimeRange::new(0, NOW - 2 * HOUR))
                    });
                    db.clean_tombstones().expect("cleaned");
                    expected = vec![old.clone()];
                }
                Err(ImportError::NotShown(_)) => not_shown += 1,
                Err(ImportError::Uncertain(_)) => {
                    uncertain += 1;
                    let mut all = old.clone();
                    for (labels, samples) in &given {
                        let known = all.entry(labels.clone()).or_default();
                        samples.iter().for_each(|(t, value)| {
                            known.insert(*t, value.to_bits());
                        });
                    }
                    expected.push(all);
                }
                Err(_) => {}
            }
            machine.crash(db, [CrashMode::LoseUnsynced, CrashMode::KeepAll][nth as usize % 2], nth);
            let mut before = None;
            for _ in 0..2 {
                let (db, report) = machine.open(options);
                assert_eq!((report.damage_count, report.blocks.quarantined), (0, 0), "{what}");
                let seen = content(&db, &tenant);
                assert!(
                    expected.contains(&seen),
                    "{what}: {} of {:?}",
                    count(&seen),
                    expected.iter().map(count).collect::<Vec<_>>()
                );
                assert!(
                    before.is_none_or(|before| before == seen),
                    "{what}: another one after a further start"
                );
                before = Some(seen);
                no_directory_is_left(&machine);
                machine.crash(db, CrashMode::LoseUnsynced, nth);
            }
            if over {
                break;
            }
        }
    }
    assert!(not_shown > 4 && uncertain > 1 && ended > 10, "{not_shown} {uncertain} {ended}");
}

#[test]
fn a_damaged_import_is_set_aside() {
    let tenant = TenantId::default();
    let given = [(metric("m", 0), (0..60).map(|n| (NOW - 3 * DAY + n * 3_600_000, n as f64)).collect())];
    // Dies when the blocks are complete and not in their places.
    let (machine, dir) = (1..)
        .find_map(|calls| {
            let machine = Machine::new();
            let (db, _) = machine.open(DbOptions::default());
            machine.fs.halt_after(calls);
            import(&db, &tenant, &given, &mut Content::new()).expect_err("halted");
            machine.crash(db, CrashMode::LoseUnsynced, 1);
            let all = Path::new(DIR).join("import");
            let name = machine.fs.list(&all).ok()?.pop()?;
            let import = all.join(name);
            let ready = machine.fs.exists(&import.join("ready")).expect("looked");
            ready.then(|| (machine, import.join("blocks/anonymous")))
        })
        .expect("there is a moment");
    let names = machine.fs.list(&dir).expect("listed");
    assert!(names.len() >= 3, "{names:?}");
    for (damaged, name) in names.iter().enumerate() {
        let mut bytes = machine.fs.read(&dir.join(name)).expect("there");
        let end = bytes.len();
        bytes[end - 6] ^= 1;
        machine.fs.put(&dir.join(name), bytes);
        let fs = machine.fs.clone();
        let whole: Vec<_> =
            names.iter().map(|name| (name, fs.read(&dir.join(name)).expect("there"))).collect();
        let (db, report) = machine.open(DbOptions::default());
        assert_eq!(report.blocks.quarantined, damaged as u64 + 1);
        let blocks = Path::new(DIR).join("blocks/anonymous");
        let mut aside = machine.fs.list(&blocks.join("quarantine")).expect("made");
        aside.sort_unstable();
        assert_eq!(aside, &names[..=damaged], "those that are damaged");
        let left = count(&content(&db, &tenant));
        assert_eq!(left == 0, damaged + 1 == names.len());
        let querier = db.querier(&tenant, TimeRange::ALL).expect("ready");
        assert_eq!(querier.warnings().len(), damaged + 1, "queries say so");
        drop(querier);
        db.close().expect("closes");
        drop(db);
        no_directory_is_left(&machine);
        // As it was before, and one more is damaged.
        for name in &aside {
            fs.remove_file(&blocks.join("quarantine").join(name)).expect("removed");
        }
        for (name, bytes) in whole {
            let _ = fs.remove_file(&blocks.join(name));
            fs.create_dir_all(&dir).expect("made");
            fs.put(&dir.join(name), bytes);
        }
        let import = dir.parent().and_then(Path::parent).expect("the import's");
        fs.put(&import.join("ready"), Vec::new());
    }
}

#[test]
fn a_file_system_without_links_will_do() {
    let machine = Machine::new();
    let (db, _) = machine.open(quick());
    let tenant = TenantId::default();
    machine.fs.fail(Op::Link, 1, u64::MAX, Fault::Denied);
    let mut model = Content::new();
    let given = [(metric("m", 0), (0..60).map(|n| (NOW - 3 * DAY + n * 3_600_000, n as f64)).collect())];
    import(&db, &tenant, &given, &mut model).expect("imported");
    assert_eq!(content(&db, &tenant), model);
    append(&db, &tenant, &scrape("m", 1, NOW - HOUR, 0.5)).expect("taken").ticket.wait().expect("durable");
    let mut deleted = model.clone();
    let early = TimeRange::new(0, NOW - 2 * DAY);
    deleted.values_mut().for_each(|samples| samples.retain(|t, _| !early.contains(*t)));
    deleted.entry(metric("m", 0)).or_default().insert(NOW - HOUR, 0.5_f64.to_bits());
    delete(&db, &tenant, "0", early);
    assert_eq!(content(&db, &tenant), deleted);
    // Copies have bytes of their own.
    let copy = db.snapshot(false).expect("copied");
    delete(&db, &tenant, "0", TimeRange::ALL);
    db.clean_tombstones().expect("cleaned");
    machine.crash(db, CrashMode::LoseUnsynced, 1);
    let (db, _) = machine.open(quick());
    assert!(content(&db, &tenant).is_empty());
    let path = Path::new(DIR).join("snapshots").join(copy);
    let (copied, report) = Db::open(&path, quick(), machine.env.clone()).expect("opens");
    assert_eq!((report.blocks.quarantined, content(&copied, &tenant)), (0, deleted));
}

#[test]
fn memory_is_taken_out_of_what_all_share() {
    let machine = Machine::new();
    let (db, _) = machine.open(DbOptions::default());
    let tenant = TenantId::default();
    let budget = MemoryBudget::new(256 << 10);
    db.share_memory(&budget);
    let mut importer = db.import(&tenant).expect("begun");
    let mut expected = Content::new();
    let mut most = 0;
    for piece in 0..10 {
        for id in 0..20 {
            let first = NOW - 20 * HOUR + piece * 500 * 5000;
            let samples: Vec<_> = (0..500).map(|n| (first + n * 5000, n as f64)).collect();
            importer.append(&metric("m", id), &floats(&samples)).expect("taken");
            assert!(budget.used() >= 500 * 16, "what is kept is reserved");
            most = most.max(budget.used());
            let all = expected.entry(metric("m", id)).or_default();
            all.extend(samples.iter().map(|(t, value)| (*t, value.to_bits())));
        }
    }
    let report = importer.finish().expect("imported");
    assert!(report.runs > 4 && most <= budget.max(), "{report:?} {most}");
    assert_eq!((report.samples, budget.used()), (100_000, 0));
    assert_eq!(content(&db, &tenant), expected);

    // Somebody else has all of it.
    let all = budget.reserve(budget.max()).expect("free");
    let mut importer = db.import(&tenant).expect("begun");
    let more = [(NOW - 30 * HOUR, 1.0)];
    let refused = importer.append(&metric("n", 0), &floats(&more));
    assert!(matches!(refused, Err(ImportError::Memory(_))), "{refused:?}");
    delete(&db, &tenant, "3", TimeRange::ALL);
    let refused = db.clean_tombstones();
    assert!(matches!(refused, Err(StorageError::Unavailable { .. })), "{refused:?}");
    drop(all);
    importer.append(&metric("n", 0), &floats(&more)).expect("there is room again");
    assert_eq!(importer.finish().expect("imported").samples, 1);
    db.clean_tombstones().expect("cleaned");
    assert_eq!((db.stats().blocks.tombstones, budget.used()), (0, 0));
    assert!(!content(&db, &tenant).contains_key(&metric("m", 3)));
}

#[test]
fn a_series_of_many_runs_is_merged_in_pieces() {
    let machine = Machine::new();
    let (db, _) = machine.open(DbOptions::default());
    let tenant = TenantId::default();
    // Little memory: many runs, all of one series and a few hours.
    db.share_memory(&MemoryBudget::new(1100 << 10));
    let mut importer = db.import(&tenant).expect("begun");
    let (pieces, length) = (10, 50_000);
    for piece in 0..pieces {
        let samples: Vec<_> =
            (0..length).map(|n| (NOW - 5 * HOUR + n * pieces * 20 + piece * 20, n as f64)).collect();
        importer.append(&metric("m", 0), &floats(&samples)).expect("taken");
    }
    let report = importer.finish().expect("imported");
    assert!(report.runs >= pieces as u64 && report.blocks > 4, "{report:?}");
    assert_eq!((report.samples, report.duplicates), (pieces as u64 * length as u64, 0));
    assert_eq!(count(&content(&db, &tenant)), (pieces * length) as usize);
}
