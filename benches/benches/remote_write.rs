//! Remote-write requests of 2,000 samples: decompression, decoding, and the labels of new series.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use std::hint::black_box;

use chronolith_e2e::remote_write::{WriteRequest, encode_labels};
use chronolith_e2e::rng::Rng;
use chronolith_remote::remote_write::{DecodeLimits, DecodedWrite, decode};
use chronolith_remote::snappy;
use chronolith_storage::{KeyHasher, LabelSource};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const SAMPLES: usize = 2_000;
const DECOMPRESSED_BYTES_MAX: usize = 32 << 20;

/// A request as Prometheus sends it: every sample in a series of its own, with its full labels.
fn request() -> Vec<u8> {
    let mut rng = Rng::new(1);
    let mut request = WriteRequest::new();
    for i in 0..SAMPLES {
        let (instance, cpu) = (format!("10.0.{}.{}:9100", i / 256, i % 256), (i % 16).to_string());
        let labels = encode_labels([
            ("__name__", "node_cpu_seconds_total"),
            ("cpu", &cpu),
            ("instance", &instance),
            ("job", "node"),
            ("mode", ["idle", "iowait", "system", "user"][i % 4]),
        ]);
        request.push_sample(&labels, 1_700_000_000_000 + i as i64, rng.unit() * 1e6);
    }
    request.take_body()
}

fn bench(c: &mut Criterion) {
    let body = request();
    let mut buffer = Vec::new();
    let message =
        snappy::decompress(&body, DECOMPRESSED_BYTES_MAX, &mut buffer).expect("a snappy block").to_vec();
    let (hasher, limits) = (KeyHasher::new(1), DecodeLimits::default());
    let mut decoded = DecodedWrite::default();

    let mut group = c.benchmark_group("remote_write");
    group.throughput(Throughput::Elements(SAMPLES as u64));
    group.bench_function("decompress", |b| {
        let mut buffer = Vec::new();
        b.iter(|| {
            snappy::decompress(black_box(&body), DECOMPRESSED_BYTES_MAX, &mut buffer).expect("a block").len()
        });
    });
    group.bench_function("decode", |b| {
        b.iter(|| {
            decode(black_box(&message), &hasher, &limits, &mut decoded).expect("a message");
            decoded.samples().len()
        });
    });
    decode(&message, &hasher, &limits, &mut decoded).expect("a message");
    group.bench_function("labels_of_new_series", |b| {
        b.iter(|| {
            let labels = decoded.labels(black_box(&message), &limits);
            (0..decoded.series().len()).map(|i| labels.labels(i).expect("valid labels").len()).sum::<usize>()
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
