//! Evaluation over the in-memory storage: rate() over a matrix, and what is usually around it.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use chronolith_e2e::rng::Rng;
use chronolith_model::{Labels, Sample, TenantId};
use chronolith_promql::{Engine, EngineOptions, Query};
use chronolith_storage::MemoryStorage;
use chronolith_storage::conformance::{block_on, write};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const SERIES: usize = 1_000;
const STEP_MS: i64 = 15_000;
const SAMPLES: i64 = 240;
const START_MS: i64 = 1_700_000_000_000;

fn storage() -> MemoryStorage {
    let storage = MemoryStorage::new();
    let mut rng = Rng::new(1);
    let series: Vec<(Labels, Vec<Sample>)> = (0..SERIES)
        .map(|i| {
            let labels = Labels::from_pairs([
                ("__name__", "requests_total".to_owned()),
                ("code", (i % 5).to_string()),
                ("instance", (i / 5).to_string()),
            ]);
            let mut total = 0.0;
            let samples = (0..SAMPLES)
                .map(|k| {
                    total += rng.below(50) as f64;
                    Sample { timestamp: START_MS + k * STEP_MS, value: total }
                })
                .collect();
            (labels, samples)
        })
        .collect();
    let outcome = write(&storage, &TenantId::default(), &series);
    assert_eq!(outcome.stored, SERIES as u64 * SAMPLES as u64, "all samples are stored");
    storage
}

fn bench(c: &mut Criterion) {
    let storage = storage();
    let engine = Engine::new(EngineOptions::default());
    let end = START_MS + (SAMPLES - 1) * STEP_MS;
    let mut group = c.benchmark_group("query_range_1h");
    group.sample_size(20);
    group.throughput(Throughput::Elements(SERIES as u64 * SAMPLES as u64));
    let cases = [
        ("selector", "requests_total"),
        ("rate", "rate(requests_total[5m])"),
        ("rate_narrow", "rate(requests_total[1m])"),
        ("sum_by_rate", "sum by (code) (rate(requests_total[5m]))"),
        ("max_over_time", "max_over_time(requests_total[5m])"),
        ("quantile_over_time", "quantile_over_time(0.9, requests_total[5m])"),
    ];
    for (name, text) in cases {
        let query = Query::range(text, START_MS, end, STEP_MS);
        group.bench_function(name, |b| {
            b.iter(|| block_on(engine.run(&storage, &query)).expect("a result"));
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
