//! The series that expressions are evaluated over: ten minutes of counters, gauges, classic and native histograms, with
//! resets, gaps, stale markers, values out of the ordinary, and a series that changes its kind.

use chronolith_model::{
    FloatHistogram, HistogramSample, Labels, Sample, TenantId, histogram::HistogramLiteral, stale_nan,
};
use chronolith_storage::{
    Appender, LabelSource, MemoryStorage, RejectReason, SeriesEntry, WriteBatch, conformance,
};

use crate::random_expr::Words;

const STEP_MS: i64 = 15_000;
const SAMPLES: i64 = 41;

/// What there is, and a little that is not.
pub(crate) static WORDS: Words = Words {
    metrics: &[
        "counter",
        "gauge",
        "native",
        "counter",
        "gauge",
        "twin",
        "x_bucket",
        "special",
        "gappy",
        "mixed",
        "custom",
        "native_gauge",
        "target_info",
        "nosuch",
        "late",
    ],
    labels: &["i", "job", "instance", "le", "v", "__name__", "version", "nosuch"],
    texts: &["a", "", ".*", "b", "a|b", "1", "$1", "[^1]", "0.5|\\+Inf", "x", "i", "(.)(.*)", "counter", "-"],
};

/// All of it, in memory.
pub(crate) fn storage() -> MemoryStorage {
    let storage = MemoryStorage::new();
    counters(&storage);
    gauges(&storage);
    special_values(&storage);
    classic_histogram(&storage);
    native_histograms(&storage);
    storage
}

fn floats(storage: &MemoryStorage, name: &str, labels: &[(&str, &str)], value: impl Fn(i64) -> Option<f64>) {
    let all = [("__name__", name)].into_iter().chain(labels.iter().copied());
    let labels = Labels::from_pairs(all);
    let samples = (0..SAMPLES).filter_map(|i| Some(Sample::new(i * STEP_MS, value(i)?))).collect();
    let outcome = conformance::write(storage, &TenantId::default(), &[(labels, samples)]);
    assert_eq!(outcome.rejected, 0, "{outcome:?}");
}

fn counters(storage: &MemoryStorage) {
    for (n, (instance, i)) in [("a", "1"), ("a", "2"), ("b", "1"), ("b", "2")].into_iter().enumerate() {
        let labels = [("i", i), ("instance", instance), ("job", "x")];
        let n = n as i64;
        floats(storage, "counter", &labels, |at| {
            let since_reset = at % [100, 13, 29, 7][n as usize];
            (n != 2 || at % 11 < 8).then_some((since_reset * (n + 3)) as f64 + 0.1)
        });
    }
}

fn gauges(storage: &MemoryStorage) {
    for (n, i) in ["1", "2", "3"].into_iter().enumerate() {
        floats(storage, "gauge", &[("i", i), ("job", "x")], |at| {
            Some(((at * (7 + n as i64)) % 23 - 11) as f64 / 3.0)
        });
        floats(storage, "twin", &[("i", i)], |at| Some((at / 4 + n as i64) as f64));
        // Silence longer than the lookback; and stale markers, with and without silence behind them.
        floats(storage, "gappy", &[("i", i)], |at| match n {
            0 => (!(5..28).contains(&at)).then_some(at as f64),
            1 => Some(if at % 6 == 5 { stale_nan() } else { at as f64 }),
            _ => (at != 9 && at < 20).then(|| if at == 8 || at == 19 { stale_nan() } else { 1.0 }),
        });
    }
    floats(storage, "late", &[("i", "1")], |at| (at > 25).then_some(at as f64));
    for (version, from) in [("1", 0), ("2", 20)] {
        let labels = [("instance", "a"), ("job", "x"), ("version", version)];
        floats(storage, "target_info", &labels, |at| (at / 20 * 20 == from).then_some(1.0));
    }
}

fn special_values(storage: &MemoryStorage) {
    let values = [
        ("nan", f64::NAN),
        ("inf", f64::INFINITY),
        ("neginf", f64::NEG_INFINITY),
        ("huge", 1e300),
        ("tiny", 5e-324),
        ("negzero", -0.0),
    ];
    for (name, value) in values {
        floats(storage, "special", &[("v", name)], |at| Some(value * (1 + at % 3) as f64));
    }
    floats(storage, "special", &[("v", "mixed")], |at| {
        Some(values.get((at % 9) as usize).map_or(at as f64, |(_, value)| *value))
    });
}

fn classic_histogram(storage: &MemoryStorage) {
    for (n, le) in ["0.5", "1", "+Inf", "abc"].into_iter().enumerate() {
        floats(storage, "x_bucket", &[("instance", "a"), ("le", le)], |at| {
            Some((at % 31 * (n as i64 + 1)) as f64)
        });
    }
}

struct One(Labels);

impl LabelSource for One {
    fn labels(&self, _: usize) -> Result<Labels, RejectReason> {
        Ok(self.0.clone())
    }
}

fn natives(storage: &MemoryStorage, labels: &[(&str, &str)], value: impl Fn(i64) -> Option<FloatHistogram>) {
    let labels = Labels::from_pairs(labels.iter().copied());
    let key = storage.key_hasher().key(labels.to_string().as_bytes());
    let histograms: Vec<HistogramSample> = (0..SAMPLES)
        .filter_map(|at| Some(HistogramSample { timestamp: at * STEP_MS, histogram: value(at)?.into() }))
        .collect();
    let entry = SeriesEntry { histograms: 0..histograms.len() as u32, ..SeriesEntry::of_samples(key, 0..0) };
    let batch = WriteBatch { series: &[entry], samples: &[], histograms: &histograms, labels: &One(labels) };
    let appended = storage.append(&TenantId::default(), &batch).expect("memory takes all");
    assert_eq!(appended.outcome.rejected, 0, "{:?}", appended.outcome);
}

fn histogram(text: &str) -> FloatHistogram {
    HistogramLiteral::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).histogram
}

fn native_histograms(storage: &MemoryStorage) {
    for (i, schema) in [("1", 0), ("2", 2)] {
        natives(storage, &[("__name__", "native"), ("i", i), ("job", "x")], |at| {
            let at = at % if schema == 0 { 17 } else { 100 };
            Some(histogram(&format!(
                "{{{{schema:{schema} count:{} sum:{} z_bucket:{at} z_bucket_w:0.001 offset:-1 buckets:[{at} 2 {at}] \
                 n_offset:1 n_buckets:[1 0 {at}]}}}}",
                at * 4 + 3,
                at * 3
            )))
        });
    }
    natives(storage, &[("__name__", "native_gauge"), ("i", "1")], |at| {
        let at = at * 5 % 7;
        Some(histogram(&format!(
            "{{{{schema:1 counter_reset_hint:gauge count:{} sum:{at} buckets:[{at} 1]}}}}",
            at + 1
        )))
    });
    for (i, bounds) in [("1", "0.5 1 2"), ("2", "0.5 2 3")] {
        natives(storage, &[("__name__", "custom"), ("i", i)], |at| {
            Some(histogram(&format!(
                "{{{{schema:-53 count:{} sum:{at} custom_values:[{bounds}] buckets:[{at} 1 0 {at}]}}}}",
                at * 2 + 1
            )))
        });
    }
    for at in 0..SAMPLES {
        let now = |i: i64| i == at;
        if at % 9 < 4 {
            floats(storage, "mixed", &[("i", "1")], |i| now(i).then_some(at as f64));
            continue;
        }
        natives(storage, &[("__name__", "mixed"), ("i", "1")], |i| {
            now(i).then(|| histogram(&format!("{{{{schema:0 count:{} sum:1 buckets:[{at} 1]}}}}", at + 1)))
        });
    }
}
