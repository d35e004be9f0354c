//! Bodies of remote write: the snappy block and the message in it, down to every label set.
#![no_main]

use chronolith_remote::remote_write::{DecodeLimits, DecodedWrite, decode};
use chronolith_remote::snappy;
use chronolith_storage::{KeyHasher, LabelSource, Stores};
use libfuzzer_sys::fuzz_target;

/// Small, so that an allocation by what a block claims would show.
const DECOMPRESSED_BYTES_MAX: usize = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let mut buffer = Vec::new();
    if let Ok(message) = snappy::decompress(data, DECOMPRESSED_BYTES_MAX, &mut buffer) {
        assert!(message.len() <= DECOMPRESSED_BYTES_MAX);
        check(message);
    }
    check(data);
});

fn check(message: &[u8]) {
    let limits = DecodeLimits {
        labels_per_series_max: 20,
        label_name_bytes_max: 50,
        label_value_bytes_max: 100,
        series_per_request_max: 200,
        samples_per_request_max: 500,
        metadata_per_request_max: 20,
        histograms_per_request_max: 50,
        buckets_per_request_max: 1000,
        exemplars_per_request_max: 20,
        stores: Stores { histograms: true, exemplars: true, start_timestamps: true, ..Stores::default() },
    };
    let hasher = KeyHasher::new(7);
    let mut decoded = DecodedWrite::default();
    if decode(message, &hasher, &limits, &mut decoded).is_err() {
        return;
    }
    assert!(decoded.series().len() <= limits.series_per_request_max);
    assert!(decoded.samples().len() <= limits.samples_per_request_max);
    assert!(decoded.histogram_samples().len() <= limits.histograms_per_request_max);
    assert!(decoded.exemplar_samples().len() <= limits.exemplars_per_request_max);
    let labels = decoded.labels(message, &limits);
    for series in 0..decoded.series().len() {
        let Ok(set) = labels.labels(series) else { continue };
        let pairs: Vec<_> = set.iter().collect();
        assert!(pairs.windows(2).all(|two| two[0].0 < two[1].0), "unsorted labels: {pairs:?}");
        assert!(pairs.iter().all(|(name, value)| !name.is_empty() && !value.is_empty()), "{pairs:?}");
    }
    for series in decoded.histogram_series() {
        let _ = labels.of_histograms(series);
    }
    assert!(decoded.take_metadata().len() <= limits.metadata_per_request_max);
}
