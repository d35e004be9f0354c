//! XOR chunks of 120 samples: appending and reading, for values that compress well, badly and not at all.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use std::hint::black_box;

use chronolith_chunk::{XorAppender, XorIter, decode_into};
use chronolith_e2e::rng::Rng;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const SAMPLES: usize = 120;

type Samples = Vec<(i64, f64)>;

fn inputs() -> Vec<(&'static str, Samples)> {
    let mut rng = Rng::new(1);
    let mut total = 0.0;
    let mut at = 1_700_000_000_000i64;
    let mut series = |value: &mut dyn FnMut(&mut Rng) -> f64| -> Samples {
        (0..SAMPLES)
            .map(|_| {
                // The jitter of a real scrape.
                at += 15_000 + rng.below(5) as i64 - 2;
                (at, value(&mut rng))
            })
            .collect()
    };
    vec![
        ("constant", series(&mut |_| 42.0)),
        (
            "counter",
            series(&mut |rng| {
                total += rng.below(100) as f64;
                total
            }),
        ),
        ("random", series(&mut |rng| rng.unit())),
    ]
}

fn encode(samples: &Samples, chunk: &mut Vec<u8>) {
    chunk.clear();
    let mut appender = XorAppender::new();
    for &(t, v) in samples {
        appender.append(chunk, t, v).expect("ascending timestamps");
    }
}

fn bench(c: &mut Criterion) {
    for (name, samples) in inputs() {
        let mut group = c.benchmark_group(format!("chunk/{name}"));
        group.throughput(Throughput::Elements(SAMPLES as u64));
        let mut chunk = Vec::new();
        group.bench_function("encode", |b| {
            b.iter(|| {
                encode(black_box(&samples), &mut chunk);
                chunk.len()
            });
        });
        encode(&samples, &mut chunk);
        let (mut times, mut values) = (Vec::new(), Vec::new());
        group.bench_function("decode_into", |b| {
            b.iter(|| {
                times.clear();
                values.clear();
                decode_into(black_box(&chunk), &mut times, &mut values).expect("a whole chunk")
            });
        });
        group.bench_function("iterate", |b| {
            b.iter(|| XorIter::new(black_box(&chunk)).map(|s| s.expect("a whole chunk").1).sum::<f64>());
        });
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
