//! Dense frames of 100 columns of 480 samples: building, opening and reading, for columns of each kind.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use std::hint::black_box;

use chronolith_chunk::dense::{Frame, FrameBuilder, Statistics};
use chronolith_e2e::rng::Rng;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const COLUMNS: usize = 100;
const SAMPLES: usize = 480;

/// Columns whose values come one by one from `value`, which is told when a column begins.
fn columns(mut value: impl FnMut(&mut Rng, bool) -> f64) -> Vec<Vec<f64>> {
    let mut rng = Rng::new(1);
    (0..COLUMNS).map(|_| (0..SAMPLES).map(|i| value(&mut rng, i == 0)).collect()).collect()
}

fn counter(rng: &mut Rng, total: &mut f64, step: impl Fn(&mut Rng) -> f64, begins: bool) -> f64 {
    *total = if begins { 0.0 } else { *total + step(rng) };
    *total
}

fn inputs() -> Vec<(&'static str, Vec<Vec<f64>>)> {
    let (mut total, mut sum) = (0.0, 0.0);
    vec![
        ("constant", columns(|_, _| 42.0)),
        ("counter", columns(|rng, begins| counter(rng, &mut total, |rng| rng.below(100) as f64, begins))),
        ("decimal_gauge", columns(|rng, _| 20.0 + rng.below(1000) as f64 / 1000.0)),
        (
            "float_sum",
            columns(|rng, begins| counter(rng, &mut sum, |rng| rng.below(1000) as f64 * 0.001, begins)),
        ),
        ("random", columns(|rng, _| rng.unit())),
    ]
}

fn encode(builder: &mut FrameBuilder, columns: &[Vec<f64>], frame: &mut Vec<u8>) {
    frame.clear();
    for (values, family) in columns.iter().zip(0..) {
        builder.push(values, 1, family).expect("100 columns fit");
    }
    builder.finish(frame);
}

fn bench(c: &mut Criterion) {
    for (name, columns) in inputs() {
        let mut group = c.benchmark_group(format!("dense/{name}"));
        group.throughput(Throughput::Elements((COLUMNS * SAMPLES) as u64));
        let (mut builder, mut bytes) = (FrameBuilder::new(), Vec::new());
        group.bench_function("encode", |b| {
            b.iter(|| {
                encode(&mut builder, black_box(&columns), &mut bytes);
                bytes.len()
            });
        });
        encode(&mut builder, &columns, &mut bytes);
        group.bench_function("open", |b| b.iter(|| Frame::open(black_box(&bytes)).expect("a frame").slots()));
        let frame = Frame::open(&bytes).expect("a frame");
        let mut values = Vec::new();
        group.bench_function("decode", |b| {
            b.iter(|| {
                let mut decoder = frame.decoder();
                for slot in 0..frame.slots() {
                    values.clear();
                    decoder.decode(slot, &mut values).expect("a slot");
                }
                values.len()
            });
        });
        group.bench_function("statistics", |b| {
            b.iter(|| columns.iter().map(|values| Statistics::of(black_box(values)).sum).sum::<f64>());
        });
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
