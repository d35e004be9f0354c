//! The index of a block over about 200,000 series of a Kubernetes cluster: its bytes, how long it takes to build, and
//! matchers to series.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

mod kubernetes;

use std::hint::black_box;
use std::sync::Arc;

use chronolith_index::{CompiledMatcher, DiskIndex, EncodedIndex, IndexWriter, MemorySections, PageCache};
use chronolith_model::{Labels, MatchOp, Matcher};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

const SEED: u64 = 1;
const CACHE_BYTES: usize = 16 << 20;

fn build(series: &[Labels]) -> (EncodedIndex, usize, usize) {
    let mut writer = IndexWriter::new();
    for labels in series {
        writer.add(labels).expect("sorted series");
    }
    let (rows, bytes) = (writer.rows(), writer.heap_bytes());
    (writer.finish(), rows, bytes)
}

fn open(index: &EncodedIndex) -> DiskIndex<MemorySections> {
    let (directory, sections) = MemorySections::new(index.clone());
    DiskIndex::open_with(&directory, sections, Arc::new(PageCache::new(CACHE_BYTES)))
        .expect("an index of our own")
}

/// What the index costs, for people.
fn report(series: &[Labels]) -> EncodedIndex {
    let bytes: usize =
        series.iter().flat_map(Labels::iter).map(|(name, value)| name.len() + value.len()).sum();
    let labels: usize = series.iter().map(Labels::len).sum();
    let count = series.len() as f64;
    let (index, rows, heap) = build(series);
    let opened = open(&index);
    eprintln!(
        "{} series, {:.1} labels and {:.0} label bytes each, {} pairs, {rows} rows",
        series.len(),
        labels as f64 / count,
        bytes as f64 / count,
        opened.pairs_count(),
    );
    for name in ["pod", "name", "namespace", "__name__"] {
        eprintln!("  {name}: {} values", opened.label_values(name, None).expect("a sound index").len());
    }
    let sections = [
        ("directory", &index.directory),
        ("dictionaries", &index.dictionaries),
        ("postings", &index.postings),
        ("forward", &index.forward),
    ];
    for (name, section) in sections {
        eprintln!("  {name}: {} bytes, {:.2} per series", section.len(), section.len() as f64 / count);
    }
    let total: usize = sections.iter().map(|(_, section)| section.len()).sum();
    eprintln!("  total: {total} bytes, {:.2} per series", total as f64 / count);
    eprintln!("  writer: {heap} bytes before it is finished, {:.1} per series", heap as f64 / count);
    let all = opened.select(&[]).expect("a sound index");
    opened.labels(&all).expect("a sound index");
    eprintln!(
        "  open: {} bytes, and {} of cache after reading all labels",
        opened.heap_bytes(),
        opened.cache().bytes()
    );
    index
}

fn matchers() -> Vec<(&'static str, Vec<Matcher>)> {
    let matcher = |name: &str, op, value: &str| Matcher::new(name, op, value);
    let regex = |name: &str, value: &str| Matcher::new(name, MatchOp::Regex, value);
    let metric = || Matcher::equal("__name__", "container_memory_rss");
    let namespace = || Matcher::equal("namespace", "team-api-0");
    vec![
        ("metric", vec![metric()]),
        ("prefix", vec![regex("pod", "web-.*")]),
        ("substring", vec![regex("pod", ".*front.*")]),
        ("alternation_of_prefixes", vec![regex("pod", "(api|web|auth)-(frontend|backend)-.*")]),
        ("arbitrary", vec![regex("pod", ".*-(7|8)[a-z]+.*x")]),
        ("namespace", vec![namespace()]),
        ("metric_and_namespace", vec![metric(), namespace()]),
        ("container_not_app", vec![matcher("container", MatchOp::NotEqual, "app")]),
        ("metric_and_container_not_app", vec![metric(), matcher("container", MatchOp::NotEqual, "app")]),
        ("metric_namespace_and_prefix", vec![metric(), namespace(), regex("pod", "web-.*")]),
        ("metric_prefix", vec![regex("__name__", "container_memory_.*"), namespace()]),
    ]
}

fn bench(c: &mut Criterion) {
    let series = kubernetes::series(SEED);
    let encoded = report(&series);
    let index = open(&encoded);
    let pods = index.label_values("pod", None).expect("a sound index");
    let some: Vec<&str> = pods.iter().step_by(pods.len() / 50).take(50).map(String::as_str).collect();
    let mut cases = matchers();
    cases.push(("one_pod", vec![Matcher::equal("pod", some[7])]));
    cases.push(("alternation_of_50", vec![Matcher::new("pod", MatchOp::Regex, some.join("|"))]));
    let mut group = c.benchmark_group("index");
    for (what, matchers) in cases {
        let compiled = CompiledMatcher::compile_all(&matchers).expect("valid matchers");
        let found = index.select(&compiled).expect("a sound index");
        eprintln!("{what}: {} series", found.len());
        group.bench_function(what, |b| {
            b.iter(|| index.select(black_box(&compiled)).expect("a sound index").len());
        });
        group.bench_function(format!("{what}_cold"), |b| {
            b.iter_batched_ref(
                || open(&encoded),
                |index| index.select(black_box(&compiled)).expect("a sound index").len(),
                BatchSize::PerIteration,
            );
        });
    }
    let memory = index.select(
        &[Matcher::equal("__name__", "container_memory_rss")]
            .map(|m| CompiledMatcher::new(&m).expect("a valid matcher")),
    );
    let ids = memory.expect("a sound index");
    group.bench_function(format!("labels_of_{}", ids.len()), |b| {
        b.iter(|| index.labels(black_box(&ids)).expect("a sound index").len());
    });
    group.sample_size(10);
    group.bench_function("build", |b| b.iter(|| build(black_box(&series)).0.postings.len()));
    group.bench_function("walk", |b| b.iter(|| index.series(0..index.len()).filter(Result::is_ok).count()));
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
