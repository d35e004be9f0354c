//! What a database does about a head that contradicts itself.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use chronolith_env::{Clock as _, Fs as _};
use chronolith_head::test_support::cut_open_chunk_short;
use chronolith_index::CompiledMatcher;
use chronolith_model::{Labels, MatchOp, Matcher, Sample, TenantId, TimeRange};
use chronolith_storage::{
    Appender as _, LabelSource, Queryable as _, RejectReason, Samples, SelectHints, SelectRequest,
    SeriesEntry, WriteBatch, conformance::block_on,
};
use chronolith_testkit::{fake_env::FakeEnv, fault_fs::FaultFs};

use super::*;

/// Ten minutes into a window.
const START: i64 = 1_699_992_000_000 + 600_000;
const STEP: Duration = Duration::from_secs(30);

type Content = BTreeMap<i64, u64>;

struct One(Labels);

impl LabelSource for One {
    fn labels(&self, _: usize) -> std::result::Result<Labels, RejectReason> {
        Ok(self.0.clone())
    }
}

fn series(id: usize) -> Labels {
    Labels::from_pairs([("__name__", "m".to_owned()), ("id", id.to_string())])
}

fn append(db: &Db, fake: &FakeEnv, id: usize, t: i64) {
    let labels = series(id);
    let key = db.key_hasher().key(labels.to_string().as_bytes());
    let samples = [Sample::new(t, (t % 977) as f64 / 7.0 + id as f64)];
    let (series, labels) = ([SeriesEntry::of_samples(key, 0..1)], One(labels));
    let batch = WriteBatch::of_samples(&series, &samples, &labels);
    let appended = db.append(&TenantId::default(), &batch).expect("taken");
    while !appended.ticket.is_done() {
        fake.scheduler.run_for(Duration::from_millis(2));
    }
    appended.ticket.wait().expect("durable");
}

fn read(db: &Db, id: usize) -> Content {
    let querier = db.querier(&TenantId::default(), TimeRange::ALL).expect("ready");
    let id = id.to_string();
    let matchers = [Matcher::new("__name__", MatchOp::Equal, "m"), Matcher::equal("id", &id)];
    let matchers = CompiledMatcher::compile_all(&matchers).expect("valid");
    let request = SelectRequest { matchers, range: TimeRange::ALL, hints: SelectHints::default() };
    let set = block_on(querier.select(&request)).expect("valid");
    let batch = block_on(set.fetch(0..set.len())).expect("fetched");
    let mut samples = Samples::default();
    batch.read(0, &mut samples).expect("whole");
    samples.timestamps.iter().copied().zip(samples.values.iter().map(|value| value.to_bits())).collect()
}

fn warnings(db: &Db) -> Vec<String> {
    db.querier(&TenantId::default(), TimeRange::ALL).expect("ready").warnings()
}

#[test]
fn what_contradicts_itself_is_left_out_of_a_cut_at_the_sixth_attempt_and_nothing_else() {
    let fs = FaultFs::new();
    fs.create_dir_all(Path::new("/")).expect("a disk has a root");
    let fake = FakeEnv::new(Arc::new(fs.clone()), 1);
    fake.clock.set_now_ms(START);
    let options = DbOptions {
        maintenance_interval: Duration::from_secs(1),
        disk_reserve: 0,
        ooo_window: Duration::ZERO,
        ..DbOptions::default()
    };
    let (db, _) = Db::open(Path::new("/data"), options, fake.env.clone()).expect("opens");
    let scrape = |ids: std::ops::Range<usize>| {
        fake.scheduler.run_for(STEP);
        ids.for_each(|id| append(&db, &fake, id, fake.clock.now_ms()));
    };
    // One series ends in the middle of the window: its last chunk stays open.
    (0..200).for_each(|_| scrape(0..4));
    let whole: Vec<Content> = (0..4).map(|id| read(&db, id)).collect();
    assert!(whole.iter().all(|of| of.len() == 200));
    assert!(cut_open_chunk_short(&db.head, &TenantId::default(), &series(3)));
    let jobs = || db.stats().jobs;
    // The cut is due when the newest sample is an hour behind the window.
    let due = START + 7_200_000 - 600_000 + 3_600_000 + 1;
    while fake.clock.now_ms() + 30_000 < due {
        scrape(0..3);
    }
    fake.scheduler.run_for(Duration::from_millis((due - fake.clock.now_ms()).unsigned_abs()));
    assert_eq!((jobs().cuts, jobs().cuts_failed), (0, 0));
    append(&db, &fake, 0, due);
    while jobs().cuts_failed == 0 {
        assert_eq!(jobs().cuts, 0, "it is met");
        fake.scheduler.run_for(Duration::from_millis(100));
    }
    // Whole or not at all, five times, with longer and longer pauses.
    for (failed, pause) in (1..).zip([1, 2, 4, 8]) {
        assert_eq!((jobs().cuts, jobs().cuts_failed), (0, failed));
        assert_eq!(
            (db.stats().losses, fs.list(Path::new("/data/blocks/anonymous")).expect("listed").len()),
            (0, 0)
        );
        let begun = fake.clock.monotonic();
        while jobs().cuts_failed == failed {
            fake.scheduler.run_for(Duration::from_millis(500));
            let waited = fake.clock.monotonic() - begun;
            assert!(waited <= Duration::from_secs(pause + 3), "{failed}: {waited:?}");
        }
    }
    fake.scheduler.run_for(Duration::from_secs(20));
    let stats = db.stats();
    assert_eq!((stats.jobs.cuts, stats.jobs.cuts_failed, stats.losses), (1, 5, 1));
    // It is told, as long as it is new, and nothing else is lost.
    let told = warnings(&db);
    assert!(told.len() == 1 && told[0].contains("may be missing"), "{told:?}");
    for (id, of) in whole.iter().enumerate() {
        let now = read(&db, id);
        let lost = of.iter().filter(|(t, bits)| now.get(t) != Some(bits)).count();
        if id == 3 {
            assert!(lost > 0 && lost < 90, "the closed chunk is whole: {lost}");
            assert_eq!(now.len() + lost, of.len(), "nothing is invented");
        } else {
            assert_eq!(lost, 0, "{id}");
        }
    }
    // The next cut is whole at once.
    while jobs().cuts < 2 {
        scrape(0..4);
    }
    assert_eq!((jobs().cuts_failed, db.stats().losses, warnings(&db)), (5, 1, Vec::new()));
}
