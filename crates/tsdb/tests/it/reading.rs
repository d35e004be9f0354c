//! A device that does not answer is no damage, and nothing that is not there: whoever asked is told.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use chronolith_env::{Env, Fs as _, Op};
use chronolith_index::CompiledMatcher;
use chronolith_model::{Histogram, MatchOp, Matcher, TenantId, TimeRange};
use chronolith_storage::{
    Admin as _, ExemplarQuery, LabelQuery, Queryable as _, Samples, SelectHints, SelectRequest, StorageError,
    conformance::block_on,
};
use chronolith_testkit::hook_fs::{Call, HookFs};
use chronolith_tsdb::{Db, DbOptions};

use crate::fixture::{Content, DIR, Machine, NOW, append, compiled, content, metric, scrape};

const HOUR: i64 = 3_600_000;

/// A disk on which, of the calls that read of blocks and imports, all behind some do not succeed.
#[derive(Clone, Debug)]
struct Refusing {
    /// Below zero: none fails.
    left: Arc<AtomicI64>,
    failed: Arc<AtomicBool>,
}

impl Refusing {
    fn new(machine: &Machine) -> (Self, Env) {
        let refusing = Self { left: Arc::new(AtomicI64::new(-1)), failed: Arc::default() };
        let asked = refusing.clone();
        let fs = HookFs::new(Arc::new(machine.fs.clone()), move |call| asked.ask(call));
        (refusing, Env { fs: Arc::new(fs), ..machine.env.clone() })
    }

    fn arm(&self, calls: i64) {
        self.left.store(calls, Ordering::SeqCst);
    }

    /// Ends it; whether a call has failed.
    fn disarm(&self) -> bool {
        self.left.store(-1, Ordering::SeqCst);
        self.failed.swap(false, Ordering::SeqCst)
    }

    fn ask(&self, call: Call<'_>) -> chronolith_env::Result<()> {
        let text = call.path.to_string_lossy();
        let reads = matches!(call.op, Op::List | Op::Open | Op::Stat | Op::Read);
        if !reads || (!text.contains("/blocks") && !text.contains("/import")) {
            return Ok(());
        }
        let next = |left: i64| (left > 0).then(|| left - 1);
        match self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next) {
            Err(0) => {
                self.failed.store(true, Ordering::SeqCst);
                call.refuse(std::io::Error::from_raw_os_error(5))
            }
            _ => Ok(()),
        }
    }
}

/// Nothing in the cache, and no job that would meet the refusals.
fn options() -> DbOptions {
    DbOptions { block_cache_bytes: 0, ..DbOptions::default() }
}

fn import(db: &Db, first: i64) -> Result<(), chronolith_tsdb::ImportError> {
    let mut importer = db.import(&TenantId::default())?;
    for id in 0..6 {
        let mut samples = Samples::default();
        (0..100).for_each(|n| samples.push(first + n * HOUR / 2, (n + id) as f64));
        importer.append(&metric("m", id as usize), &samples)?;
        samples = Samples::default();
        (0..20).for_each(|n| samples.push_histogram(first + n * HOUR / 2, Histogram::stale()));
        importer.append(&metric("h", id as usize), &samples)?;
    }
    importer.finish().map(drop)
}

/// Blocks, some with deletions, and something in the head; what there is to see.
fn filled() -> (Machine, Content) {
    let machine = Machine::new();
    let (db, _) = machine.open(options());
    let tenant = TenantId::default();
    import(&db, NOW - 60 * HOUR).expect("imported");
    import(&db, NOW - 100 * HOUR).expect("imported");
    append(&db, &tenant, &scrape("m", 6, NOW, 0.5)).expect("taken").ticket.wait().expect("durable");
    let range = TimeRange::new(NOW - 50 * HOUR, NOW - 30 * HOUR);
    db.delete_series(&tenant, &[compiled(&[Matcher::equal("id", "2")])], range).expect("deleted");
    let model = content(&db, &tenant);
    db.close().expect("closes");
    (machine, model)
}

/// No block is set aside, and everything is there.
#[track_caller]
fn nothing_is_lost(machine: &Machine, model: &Content, what: &str) {
    let quarantine = Path::new(DIR).join("blocks/anonymous/quarantine");
    assert!(!machine.fs.exists(&quarantine).expect("looked"), "{what}");
    let (db, report) = machine.open(options());
    assert_eq!(report.blocks.quarantined, 0, "{what}");
    assert_eq!(content(&db, &TenantId::default()), *model, "{what}");
    db.close().expect("closes");
}

fn everything() -> Vec<CompiledMatcher> {
    compiled(&[Matcher::new("__name__", MatchOp::Regex, ".+")])
}

/// Asks for all that can be asked for; what was read of samples.
fn ask(db: &Db, what: usize) -> Result<Option<usize>, StorageError> {
    let querier = db.querier(&TenantId::default(), TimeRange::ALL)?;
    let matcher_sets = vec![everything()];
    let labels = LabelQuery { matcher_sets: matcher_sets.clone(), ..LabelQuery::default() };
    match what {
        0 => {
            let request = SelectRequest {
                matchers: everything(),
                range: TimeRange::ALL,
                hints: SelectHints::default(),
            };
            let set = block_on(querier.select(&request))?;
            let batch = block_on(set.fetch(0..set.len()))?;
            let mut count = 0;
            for index in 0..set.len() {
                let mut samples = Samples::default();
                batch.read(index, &mut samples)?;
                count += samples.len() + samples.histograms.len();
            }
            Ok(Some(count))
        }
        1 => block_on(querier.label_values("id", &labels)).map(|found| Some(found.items.len())),
        2 => block_on(querier.label_names(&labels)).map(|found| Some(found.items.len())),
        3 => block_on(querier.series(&labels)).map(|found| Some(found.items.len())),
        4 => block_on(querier.metadata(None)).map(|found| Some(found.len())),
        5 => {
            let query = ExemplarQuery { matcher_sets, range: TimeRange::ALL, payer: None };
            block_on(querier.exemplars(&query)).map(|found| Some(found.len()))
        }
        _ => {
            // Counts for people: it may be those of the head alone.
            querier.stats(10);
            Ok(None)
        }
    }
}

#[test]
fn starts_and_queries_fail_and_nothing_is_set_aside() {
    let (machine, model) = filled();
    let (disk, env) = Refusing::new(&machine);
    let (mut failed, mut calls) = (0, 0);
    loop {
        disk.arm(calls);
        let opened = Db::open(Path::new(DIR), options(), env.clone());
        let met = disk.disarm();
        match opened {
            Ok((db, report)) => {
                assert!(!met, "{calls}: a refusal is no success");
                assert_eq!(report.blocks.quarantined, 0);
                db.close().expect("closes");
            }
            Err(_) => failed += 1,
        }
        nothing_is_lost(&machine, &model, &format!("a start, {calls} calls"));
        if !met {
            break;
        }
        calls += 1;
    }
    assert!(failed > 10, "{failed}");

    let (db, _) = Db::open(Path::new(DIR), options(), env).expect("opens");
    for what in 0..7 {
        let whole = ask(&db, what).expect("answered");
        let (mut failed, mut calls) = (0, 0);
        loop {
            disk.arm(calls);
            let answer = ask(&db, what);
            let met = disk.disarm();
            match answer {
                Ok(answer) => assert_eq!(answer, whole, "question {what}, {calls} calls"),
                Err(StorageError::Unavailable { reason }) => {
                    assert!(reason.contains("os error 5"), "{reason}");
                    failed += 1;
                }
                Err(error) => panic!("question {what}, {calls} calls: {error}"),
            }
            assert_eq!(db.stats().blocks.quarantined, 0, "question {what}, {calls} calls");
            if !met {
                break;
            }
            // Mostly the same over and over.
            calls += 1 + calls / 20;
        }
        assert!(what != 0 || failed > 20, "{failed}");
    }
    db.close().expect("closes");
    drop(db);
    nothing_is_lost(&machine, &model, "questions");
}

#[test]
fn changes_fail_and_nothing_is_set_aside() {
    let (machine, mut model) = filled();
    let (disk, env) = Refusing::new(&machine);
    let tenant = TenantId::default();
    let (mut calls, mut failures) = (0, [0; 4]);
    for (what, failures) in failures.iter_mut().enumerate() {
        calls = 0;
        loop {
            let (db, _) = Db::open(Path::new(DIR), options(), env.clone()).expect("opens");
            // Not what is deleted: the same for all.
            let range = TimeRange::new(NOW - 90 * HOUR, NOW - 80 * HOUR);
            disk.arm(calls);
            let done = match what {
                0 => db.snapshot(false).map(drop).map_err(|error| error.to_string()),
                1 => import(&db, NOW - 40 * HOUR).map_err(|error| error.to_string()),
                2 => db
                    .delete_series(&tenant, &[compiled(&[Matcher::equal("id", "3")])], range)
                    .map_err(|error| error.to_string()),
                _ => db.clean_tombstones().map_err(|error| error.to_string()),
            };
            let met = disk.disarm();
            assert!(done.is_err() || !met || what == 1, "{what}, {calls} calls: a refusal is no success");
            *failures += usize::from(done.is_err());
            assert_eq!(db.stats().blocks.quarantined, 0, "{what}, {calls} calls");
            if what == 2 {
                db.delete_series(&tenant, &[compiled(&[Matcher::equal("id", "3")])], range).expect("deleted");
                for (labels, samples) in &mut model {
                    samples.retain(|t, _| labels.get("id") != Some("3") || !range.contains(*t));
                }
                model.retain(|_, samples| !samples.is_empty());
            }
            if what == 1 && done.is_ok() {
                model = content(&db, &tenant);
            }
            db.close().expect("closes");
            drop(db);
            if what == 1 && done.is_err() {
                // It may be complete.
                let (db, _) = machine.open(options());
                let now = content(&db, &tenant);
                assert!(model.iter().all(|(labels, samples)| {
                    samples.iter().all(|(t, bits)| now[labels].get(t) == Some(bits))
                }));
                model = now;
                db.close().expect("closes");
            }
            nothing_is_lost(&machine, &model, &format!("{what}, {calls} calls"));
            if !met {
                break;
            }
            calls += 1 + calls / 10;
        }
    }
    // Copies read nothing.
    assert!(calls > 10 && failures[1..].iter().all(|failures| *failures > 0), "{calls} {failures:?}");
}
