//! Matchers to series ids over an index of 100,000 series.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use std::hint::black_box;

use chronolith_index::{CompiledMatcher, MemoryIndex, resolve};
use chronolith_model::{Labels, MatchOp, Matcher};
use criterion::{Criterion, criterion_group, criterion_main};

const METRICS: u32 = 500;
const INSTANCES: u32 = 200;

fn index() -> MemoryIndex {
    let mut index = MemoryIndex::default();
    for metric in 0..METRICS {
        for instance in 0..INSTANCES {
            let labels = Labels::from_pairs([
                ("__name__", format!("metric_{metric:03}_total")),
                ("code", ["200", "404", "500"][(metric + instance) as usize % 3].to_owned()),
                ("instance", format!("10.0.0.{instance}:9100")),
                ("job", if instance % 4 == 0 { "api" } else { "node" }.to_owned()),
            ]);
            index.insert(metric * INSTANCES + instance, &labels);
        }
    }
    index
}

fn bench(c: &mut Criterion) {
    let index = index();
    let matcher = |name: &str, op, value: &str| Matcher::new(name, op, value);
    let name = || matcher("__name__", MatchOp::Equal, "metric_123_total");
    let cases = [
        ("one_metric", vec![name()]),
        ("metric_and_job", vec![name(), matcher("job", MatchOp::Equal, "api")]),
        ("metric_not_code", vec![name(), matcher("code", MatchOp::NotEqual, "200")]),
        ("job_and_code", vec![matcher("job", MatchOp::Equal, "api"), matcher("code", MatchOp::Equal, "500")]),
        ("alternation", vec![matcher("instance", MatchOp::Regex, "10.0.0.1:9100|10.0.0.2:9100"), name()]),
        (
            "regex",
            vec![
                matcher("__name__", MatchOp::Regex, "metric_1.*_total"),
                matcher("job", MatchOp::Equal, "api"),
            ],
        ),
        ("not_regex", vec![name(), matcher("instance", MatchOp::NotRegex, "10.0.0.1.*")]),
    ];
    let mut group = c.benchmark_group("postings");
    for (what, matchers) in cases {
        let compiled = CompiledMatcher::compile_all(&matchers).expect("valid matchers");
        group.bench_function(what, |b| {
            b.iter(|| resolve(black_box(&index), black_box(&compiled)).expect("an index in memory").len());
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
