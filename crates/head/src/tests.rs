//! Appends beside long questions.

use std::{
    collections::BTreeSet,
    ops::ControlFlow,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use chronolith_env::Env;
use chronolith_index::{CompiledMatcher, MemoryIndex, resolve};
use chronolith_model::{Labels, MatchOp, Matcher, Sample, TenantId, TimeRange};
use chronolith_storage::{LabelSource, RejectReason, SeriesEntry, WriteBatch};
use chronolith_wal::{LogSource, Wal, WalOptions};
use parking_lot::RwLock;
use roaring::RoaringBitmap;

use crate::{Applied, Head, HeadOptions, HeadView, SHARDS, shared_index::SharedIndex};

/// A head with a log on disk whose segments have room for one batch.
struct Bench {
    head: Arc<Head>,
    wal: Wal,
    tenant: TenantId,
    env: Env,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::real();
        let head = Arc::new(Head::new(HeadOptions::default(), env.clone()));
        let options = WalOptions { shards: SHARDS, segment_bytes: 1, ..WalOptions::default() };
        let opened = Wal::open(&env, &Path::new(dir.path()).join("wal"), options).unwrap();
        let wal = opened.start(Arc::clone(&head) as Arc<dyn LogSource>).unwrap();
        head.attach_log(wal.waiter());
        let tenant = TenantId::new("anonymous").unwrap();
        Self { head, wal, tenant, env, _dir: dir }
    }

    /// One sample of now for each of `numbers`.
    fn append(&self, numbers: impl IntoIterator<Item = usize>) -> Applied {
        let numbers: Vec<usize> = numbers.into_iter().collect();
        let hasher = self.head.key_hasher();
        let entries: Vec<SeriesEntry> = (0_u32..)
            .zip(&numbers)
            .map(|(at, number)| SeriesEntry::of_samples(hasher.key(&number.to_le_bytes()), at..at + 1))
            .collect();
        let now = self.env.clock.now_ms();
        let samples = vec![Sample { timestamp: now, value: 1.0 }; numbers.len()];
        let labels = Numbered(&numbers);
        let batch = WriteBatch::of_samples(&entries, &samples, &labels);
        self.head.append(&self.tenant, &batch).unwrap()
    }
}

struct Numbered<'a>(&'a [usize]);

impl LabelSource for Numbered<'_> {
    fn labels(&self, series: usize) -> Result<Labels, RejectReason> {
        Ok(labels(self.0[series]))
    }
}

fn labels(number: usize) -> Labels {
    let (id, group) = (format!("host-{number:07}"), format!("{:03}", number % 100));
    Labels::from_pairs([("__name__", "m"), ("group", group.as_str()), ("id", id.as_str())])
}

fn compiled(matchers: &[(&str, MatchOp, &str)]) -> Vec<CompiledMatcher> {
    let matchers: Vec<_> =
        matchers.iter().map(|(name, op, value)| Matcher::new(*name, *op, *value)).collect();
    CompiledMatcher::compile_all(&matchers).unwrap()
}

#[test]
fn a_definition_does_not_queue_behind_who_waits_for_the_index() {
    let bench = Bench::new();
    for _ in 0..3 {
        // Each segment is full at once: the next sample is of another epoch, and defined anew.
        let applied = bench.append(0..1);
        bench.wal.wait(applied.batch).unwrap();
        thread::sleep(Duration::from_millis(2));
    }
    let tenant = bench.head.tenants.get(&bench.tenant).unwrap();
    thread::scope(|scope| {
        let question = tenant.index.read();
        let creator = scope.spawn(|| tenant.change_index(|_| {}));
        while tenant.index.try_read().is_some() {
            thread::yield_now();
        }
        let (tell, told) = mpsc::channel();
        let bench = &bench;
        scope.spawn(move || {
            let applied = bench.append(0..1);
            tell.send(applied.outcome.stored).unwrap();
        });
        let stored = told.recv_timeout(Duration::from_secs(10));
        assert!(!creator.is_finished(), "somebody has waited all the time");
        drop(question);
        assert_eq!(stored, Ok(1));
    });
}

/// Shows names one after the other, until it is told to stop.
type Visit<'a> = dyn Fn(&mut dyn FnMut(&str) -> ControlFlow<()>) -> ControlFlow<()> + 'a;

#[test]
fn questions_in_pieces_have_the_same_answers() {
    let mut index = MemoryIndex::default();
    for number in 0..5000 {
        // Scattered, so that the order of ids is not that of labels.
        index.insert(u32::try_from(number * 2971 % 5000).unwrap(), &labels(number));
    }
    let shared = RwLock::new(index);
    let shared = SharedIndex(&shared);
    let questions = [
        compiled(&[]),
        compiled(&[("id", MatchOp::Regex, "host-.*7.*")]),
        compiled(&[("id", MatchOp::NotRegex, "host-.*[13].*"), ("group", MatchOp::NotEqual, "042")]),
        compiled(&[("group", MatchOp::Equal, "042"), ("id", MatchOp::Regex, ".*2$")]),
        compiled(&[("group", MatchOp::Regex, "01.|02."), ("id", MatchOp::NotRegex, ".*1")]),
        compiled(&[("nope", MatchOp::Equal, ""), ("group", MatchOp::Regex, ".+5")]),
    ];
    for matchers in questions {
        let whole = shared.0.read();
        let Ok(want) = resolve(&*whole, &matchers);
        let Ok(got) = resolve(&shared, &matchers);
        assert!(!want.is_empty() || matchers.len() == 2);
        assert_eq!(got, want);
        let labelled = shared.labelled(&want, usize::MAX);
        assert_eq!(labelled.iter().map(|(_, id)| *id).collect::<Vec<_>>(), whole.sorted_by_labels(&want));
        assert!(labelled.iter().all(|(labels, id)| whole.has_labels(*id, labels)));
        for wanted in [0, 1, 17, 3000] {
            assert_eq!(shared.labelled(&want, wanted)[..], labelled[..wanted.min(labelled.len())]);
        }
        let visited = |visit: &Visit<'_>| {
            let mut texts = BTreeSet::new();
            let flow = visit(&mut |text| {
                texts.insert(text.to_owned());
                ControlFlow::Continue(())
            });
            assert!(flow.is_continue());
            texts
        };
        assert!(visited(&|visit| shared.visit_names_among(&want, visit)).iter().eq(whole.names_among(&want)));
        for name in ["id", "group"] {
            let values = visited(&|visit| shared.visit_values_among(name, &want, visit));
            assert!(values.iter().eq(&whole.values_among(name, &want)), "{name}");
        }
        assert!(shared.values("id").iter().eq(whole.values("id")));
    }
    // What has gone since is passed over.
    let Ok(all) = resolve(&shared, &[]);
    shared.0.write().remove(7);
    assert_eq!(shared.labelled(&all, usize::MAX).len(), 4999);
    assert_eq!(shared.labelled(&RoaringBitmap::from_iter([7]), usize::MAX), []);
}

/// `cargo test -p chronolith-head -- --ignored --nocapture latency`
#[test]
#[ignore = "measures: run by hand"]
fn latency_of_appends_beside_a_heavy_selection() {
    const SERIES: usize = 200_000;
    let bench = Bench::new();
    for first in (0..SERIES).step_by(2000) {
        let applied = bench.append(first..first + 2000);
        bench.wal.wait(applied.batch).unwrap();
    }
    let (stop, selections) = (AtomicBool::new(false), AtomicUsize::new(0));
    let matchers = compiled(&[
        ("id", MatchOp::Regex, "(host|node)-.*[0-9]+.*[02468]$"),
        ("group", MatchOp::NotRegex, "9."),
    ]);
    let run = |what: &str, new: usize| {
        let mut took: Vec<Duration> = (0..1500)
            .map(|i| {
                let first = i * 97 % (SERIES - 500);
                let known = (first..first + 500).chain(new * (i + SERIES)..new * (i + SERIES + 1));
                let begin = Instant::now();
                bench.append(known);
                let took = begin.elapsed();
                thread::sleep(Duration::from_millis(1));
                took
            })
            .collect();
        took.sort_unstable();
        let at = |percent: usize| took[(took.len() - 1) * percent / 100];
        eprintln!("{what}: p50 {:?} p99 {:?} max {:?}", at(50), at(99), at(100));
        at(99)
    };
    run("known series, alone", 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let view =
                    HeadView::open(Arc::clone(&bench.head), &bench.tenant, TimeRange::new(0, i64::MAX));
                let begin = Instant::now();
                let found = view.select(&matchers).series.len();
                if selections.fetch_add(1, Ordering::Relaxed) == 0 {
                    eprintln!("a selection of {found} of {SERIES} series takes {:?}", begin.elapsed());
                }
            }
        });
        let known = run("known series, beside selections", 0);
        let new = run("with a new series each, beside selections", 1);
        stop.store(true, Ordering::Relaxed);
        assert!(known < Duration::from_millis(50) && new < Duration::from_millis(50), "{known:?} {new:?}");
    });
    eprintln!("{} selections", selections.into_inner());
}
