//! Six generated hours with everything that real series do badly: gaps, resets, stale markers, NaN, infinities.

use std::collections::{BTreeMap, BTreeSet};
use std::f64::consts::TAU;

use chronolith_e2e::remote_write::{
    HistogramSample, LabelMap, WriteRequest, encode_labels, labels, stale_nan,
};
use chronolith_e2e::rng::Rng;

/// Length of the stream in ms.
pub(crate) const LENGTH_MS: i64 = 6 * 3_600_000;
/// Interval of the regular series in ms; their samples lie exactly on multiples of it.
pub(crate) const STEP_MS: i64 = 15_000;
const SAMPLES_PER_REQUEST: usize = 2_000;
const MINUTE_MS: i64 = 60_000;

/// Floats by series; times in ms, strictly increasing.
pub(crate) type Stream = BTreeMap<LabelMap, Vec<(i64, f64)>>;
/// Native histograms by series, as [`Stream`].
pub(crate) type Histograms = BTreeMap<LabelMap, Vec<(i64, HistogramSample)>>;

/// The stream that starts at `start_ms`. Equal arguments give equal streams.
pub(crate) fn generate(start_ms: i64) -> Stream {
    let mut stream = Generator { start_ms, rng: Rng::new(42), stream: Stream::new() };
    stream.requests();
    stream.histograms();
    stream.gauges();
    stream.gaps();
    stream.stale_markers();
    stream.special_values();
    stream.joins();
    stream.churn();
    stream.odd_labels();
    let mut stream = stream.stream;
    // Prometheus' head lists series in the order they came, ours by labels. When every series exists from the first
    // step on, sent in the order of the labels, the two orders are the same and can be compared.
    for samples in stream.values_mut() {
        if samples.first().is_some_and(|s| s.0 > start_ms + STEP_MS) {
            samples.splice(0..0, [(start_ms, 0.0), (start_ms + STEP_MS, stale_nan())]);
        }
    }
    stream
}

/// Series of native histograms for the same time: counters and gauges of two resolutions, custom buckets, resets, gaps,
/// and a series (also in `floats`, which is changed for it) that is a float at some times and a histogram at others.
pub(crate) fn generate_histograms(start_ms: i64, floats: &mut Stream) -> Histograms {
    let mut rng = Rng::new(43);
    let mut all = Histograms::new();
    for (series, (instance, path)) in
        [("a", "/x"), ("a", "/y"), ("b", "/x"), ("b", "/y")].into_iter().enumerate()
    {
        // One of them is finer than the others.
        let schema = if series == 3 { 2 } else { 1 };
        let mut now = begun(schema, &mut rng);
        let samples = steps(start_ms, |since| {
            if since > 0 && since % (MINUTE_MS * [400, 47, 101, 33][series]) == 0 {
                now = begun(schema, &mut rng);
            }
            observe(&mut now, &mut rng, path == "/y");
            (series != 2 || since % (20 * MINUTE_MS) < 13 * MINUTE_MS).then(|| now.clone())
        });
        all.insert(
            labels(&[("__name__", "s_native_seconds"), ("instance", instance), ("path", path)]),
            samples,
        );
    }
    for room in ["1", "2"] {
        let samples = steps(start_ms, |_| {
            let mut now = HistogramSample { gauge: true, ..begun(0, &mut rng) };
            now.positive.iter_mut().for_each(|(_, count)| *count *= 0.25);
            Some(now)
        });
        all.insert(labels(&[("__name__", "s_native_gauge"), ("room", room)]), samples);
    }
    // Prometheus 3.5 does not know what to do with different bounds.
    for (instance, bounds) in [("a", vec![0.5, 1.0, 2.0]), ("b", vec![0.5, 1.0, 2.0])] {
        let mut counts = [0.0; 4];
        let mut sum = 0.0;
        let samples = steps(start_ms, |_| {
            let place = rng.below(4) as usize;
            counts[place] += 1.0;
            sum += place as f64;
            let positive = counts.iter().enumerate().map(|(i, count)| (i as i32, *count)).collect();
            Some(HistogramSample {
                schema: -53,
                sum,
                positive,
                bounds: bounds.clone(),
                ..HistogramSample::default()
            })
        });
        all.insert(labels(&[("__name__", "s_native_custom"), ("instance", instance)]), samples);
    }
    let mixed = labels(&[("__name__", "s_native_or_float")]);
    let mut now = begun(1, &mut rng);
    let is_float = |since: i64| since % (11 * MINUTE_MS) < 4 * MINUTE_MS;
    let samples = steps(start_ms, |since| {
        observe(&mut now, &mut rng, false);
        (!is_float(since)).then(|| now.clone())
    });
    let ramp = steps(start_ms, |since| is_float(since).then_some((since / STEP_MS) as f64));
    floats.insert(mixed.clone(), ramp);
    all.insert(mixed, samples);
    all
}

/// What `sample` gives at each step; its argument is the time since the start in ms.
fn steps<T>(start_ms: i64, mut sample: impl FnMut(i64) -> Option<T>) -> Vec<(i64, T)> {
    let all = (0..=LENGTH_MS).step_by(STEP_MS as usize);
    all.filter_map(|since| sample(since).map(|v| (start_ms + since, v))).collect()
}

/// A histogram with some observations above zero: Prometheus 3.5 does not extrapolate one to zero, its successors do, which shows
/// with few of them.
fn begun(schema: i32, rng: &mut Rng) -> HistogramSample {
    let mut histogram = HistogramSample { schema, zero_threshold: 1e-3, ..HistogramSample::default() };
    (0..12).for_each(|_| observe(&mut histogram, rng, false));
    // Whether a side is empty, which may depend on the chunk, decides how the zero bucket is divided.
    histogram.negative = vec![(0, 1.0)];
    histogram.positive.iter_mut().for_each(|(_, count)| *count += 1.0);
    histogram
}

/// Adds a few observations; below zero too, if `both`.
fn observe(histogram: &mut HistogramSample, rng: &mut Rng, both: bool) {
    for _ in 0..=rng.below(6) {
        let index = rng.below(9) as i32 - 4;
        let side = match rng.below(8) {
            0 => {
                histogram.zero_count += 1.0;
                continue;
            }
            1..3 if both => &mut histogram.negative,
            _ => &mut histogram.positive,
        };
        let at = side.partition_point(|(known, _)| *known < index);
        if side.get(at).is_none_or(|(known, _)| *known != index) {
            side.insert(at, (index, 0.0));
        }
        side[at].1 += 1.0;
        histogram.sum += f64::from(index + 5) * 0.125;
    }
}

/// Remote-write bodies in the order of time, at each time in the order of the labels.
pub(crate) fn encode(stream: &Stream, histograms: &Histograms) -> Vec<Vec<u8>> {
    let keys: BTreeSet<&LabelMap> = stream.keys().chain(histograms.keys()).collect();
    let encoded: BTreeMap<&LabelMap, Vec<u8>> = keys
        .into_iter()
        .map(|l| (l, encode_labels(l.iter().map(|(n, v)| (n.as_str(), v.as_str())))))
        .collect();
    let mut all: Vec<(i64, &LabelMap, Result<f64, &HistogramSample>)> = Vec::new();
    for (series, samples) in stream {
        all.extend(samples.iter().map(|(t, v)| (*t, series, Ok(*v))));
    }
    for (series, samples) in histograms {
        all.extend(samples.iter().map(|(t, h)| (*t, series, Err(h))));
    }
    all.sort_by_key(|(t, series, _)| (*t, *series));
    let mut bodies = Vec::new();
    let mut request = WriteRequest::new();
    // Of one request Prometheus takes the floats of a series first, and loses histograms before them.
    let mut floats: BTreeMap<&LabelMap, bool> = BTreeMap::new();
    for (t, series, value) in all {
        let switches = floats.insert(series, value.is_ok()).is_some_and(|before| before != value.is_ok());
        if switches || request.sample_count() >= SAMPLES_PER_REQUEST {
            bodies.push(request.take_body());
            floats = BTreeMap::from([(series, value.is_ok())]);
        }
        match value {
            Ok(v) => request.push_sample(&encoded[series], t, v),
            Err(histogram) => request.push_histogram(&encoded[series], t, histogram),
        }
    }
    if request.sample_count() > 0 {
        bodies.push(request.take_body());
    }
    bodies
}

/// The value at a step.
type ValueAt = fn(f64) -> f64;

struct Generator {
    start_ms: i64,
    rng: Rng,
    stream: Stream,
}

impl Generator {
    fn add(&mut self, pairs: &[(&str, &str)], samples: Vec<(i64, f64)>) {
        let clash = self.stream.insert(labels(pairs), samples);
        assert!(clash.is_none(), "two series with the labels {pairs:?}");
    }

    /// One sample at every step, where `value` gives one; its argument is the time since the start in ms.
    fn regular(&mut self, mut value: impl FnMut(&mut Rng, i64) -> Option<f64>) -> Vec<(i64, f64)> {
        let mut samples = Vec::new();
        for since in (0..=LENGTH_MS).step_by(STEP_MS as usize) {
            if let Some(v) = value(&mut self.rng, since) {
                samples.push((self.start_ms + since, v));
            }
        }
        samples
    }

    fn requests(&mut self) {
        for (i, instance) in ["a", "b", "c", "d"].iter().enumerate() {
            for (c, code) in ["200", "404", "500"].iter().enumerate() {
                for method in ["get", "post"] {
                    // Instances reset at different times, one of them every 20 minutes.
                    let reset_ms = [LENGTH_MS * 2, 20 * MINUTE_MS, 111 * MINUTE_MS, 3 * 60 * MINUTE_MS][i];
                    let mut total = 0.0;
                    let samples = self.regular(|rng, since| {
                        if since % reset_ms == 0 {
                            total = 0.0;
                        }
                        total += rng.below(40 / (c as u64 * 9 + 1)) as f64;
                        Some(total)
                    });
                    let name = ("__name__", "s_requests_total");
                    self.add(
                        &[name, ("code", code), ("instance", instance), ("job", "api"), ("method", method)],
                        samples,
                    );
                }
            }
        }
    }

    fn histograms(&mut self) {
        const BOUNDS: [&str; 7] = ["0.005", "0.05", "0.1", "0.5", "1", "2.5", "+Inf"];
        for instance in ["a", "b"] {
            for path in ["/x", "/y"] {
                let mut counts = [0.0; BOUNDS.len()];
                let mut sum = 0.0;
                let mut columns: Vec<Vec<(i64, f64)>> = vec![Vec::new(); BOUNDS.len()];
                let sums = self.regular(|rng, since| {
                    if since == 150 * MINUTE_MS && instance == "b" {
                        (counts, sum) = ([0.0; BOUNDS.len()], 0.0);
                    }
                    for _ in 0..rng.below(12) {
                        let seconds = rng.unit().powi(3) * if path == "/x" { 3.0 } else { 0.8 };
                        sum += seconds;
                        for (count, bound) in counts.iter_mut().zip(BOUNDS) {
                            if bound == "+Inf" || seconds <= bound.parse().unwrap_or(f64::INFINITY) {
                                *count += 1.0;
                            }
                        }
                    }
                    for (column, count) in columns.iter_mut().zip(counts) {
                        column.push((since, count));
                    }
                    Some(sum)
                });
                let at = |name: &'static str| [("__name__", name), ("instance", instance), ("path", path)];
                self.add(&at("s_latency_seconds_sum"), sums);
                let start = self.start_ms;
                for (column, bound) in columns.into_iter().zip(BOUNDS) {
                    let samples: Vec<_> = column.into_iter().map(|(since, v)| (start + since, v)).collect();
                    if bound == "+Inf" {
                        self.add(&at("s_latency_seconds_count"), samples.clone());
                    }
                    let [name, instance, path] = at("s_latency_seconds_bucket");
                    self.add(&[name, instance, ("le", bound), path], samples);
                }
            }
        }
        for (bound, value) in [("1", 5.0), ("2", 3.0), ("+Inf", 10.0)] {
            let samples = self.regular(|_, since| Some(value * (1.0 + (since / STEP_MS) as f64)));
            self.add(&[("__name__", "s_nonmonotonic_bucket"), ("le", bound)], samples);
        }
        for bound in ["0.5", "+Inf", "abc"] {
            let samples = self.regular(|_, since| Some((since / STEP_MS) as f64));
            self.add(&[("__name__", "s_badle_bucket"), ("le", bound)], samples);
        }
    }

    fn gauges(&mut self) {
        for (i, room) in ["1", "2", "3", "4", "5", "6"].iter().enumerate() {
            let samples = self.regular(|rng, since| {
                let angle = since as f64 / 5_400_000.0 * TAU + i as f64;
                let hundredths = (angle.sin() * 12.0 + i as f64 - 3.0 + rng.unit()) * 100.0;
                Some(hundredths.round() / 100.0)
            });
            let floor = if i < 3 { "ground" } else { "first" };
            self.add(&[("__name__", "s_temperature"), ("floor", floor), ("room", room)], samples);
        }
        let start = self.start_ms;
        let samples = self.regular(|_, since| Some(((start + since) / 1000) as f64));
        self.add(&[("__name__", "s_unixtime")], samples);
        let samples = self.regular(|_, since| Some((since / STEP_MS) as f64));
        self.add(&[("__name__", "s_ramp")], samples);
        for n in ["1", "2"] {
            let mut samples = Vec::new();
            let mut since = 0;
            while since <= LENGTH_MS {
                samples.push((self.start_ms + since, self.rng.unit() * 10.0 - 5.0));
                since += 500 + self.rng.below(40_000) as i64;
            }
            self.add(&[("__name__", "s_irregular"), ("n", n)], samples);
        }
    }

    /// Gaps from shorter to longer than the lookback, and one of exactly its length.
    fn gaps(&mut self) {
        let kinds = [("4m45s", 285_000), ("5m", 300_000), ("5m15s", 315_000), ("20m", 1_200_000)];
        for (name, gap_ms) in kinds {
            // Ten minutes of samples, then the gap.
            let period = 600_000 + gap_ms;
            let samples = self.regular(|rng, since| {
                (since % period <= 600_000 || since % period == period).then(|| rng.unit() * 50.0)
            });
            self.add(&[("__name__", "s_gappy"), ("gap", name)], samples);
        }
    }

    fn stale_markers(&mut self) {
        for (n, every_ms) in [("1", 10 * MINUTE_MS), ("2", 25 * MINUTE_MS), ("3", 61 * MINUTE_MS)] {
            let samples = self.regular(|_, since| match since % every_ms {
                0 if since > 0 => Some(stale_nan()),
                // Silence after the marker for one to four minutes.
                after if since > every_ms && after < MINUTE_MS * 2 => None,
                _ => Some((since / 1000) as f64),
            });
            self.add(&[("__name__", "s_stale"), ("n", n)], samples);
        }
        // Ends for good in the middle, with a marker and without.
        let half = LENGTH_MS / 2;
        let with =
            self.regular(
                |_, since| {
                    if since == half { Some(stale_nan()) } else { (since < half).then_some(1.0) }
                },
            );
        self.add(&[("__name__", "s_ended"), ("how", "marker")], with);
        let without = self.regular(|_, since| (since <= half).then_some(2.0));
        self.add(&[("__name__", "s_ended"), ("how", "silence")], without);
    }

    fn special_values(&mut self) {
        let every = |since: i64, n: i64| (since / STEP_MS) % n == 0;
        let cases: [(&str, ValueAt); 6] = [
            ("huge", |i| 1e300 * (i + 1.0)),
            ("inf", |_| f64::INFINITY),
            ("nan", |_| f64::NAN),
            ("neginf", |_| f64::NEG_INFINITY),
            ("negzero", |_| -0.0),
            ("tiny", |i| 5e-324 * (i + 1.0)),
        ];
        for (name, value) in cases {
            let samples = self.regular(|_, since| Some(value((since / STEP_MS) as f64)));
            self.add(&[("__name__", "s_special"), ("v", name)], samples);
        }
        let samples = self.regular(|rng, since| {
            Some(match () {
                () if every(since, 7) => f64::NAN,
                () if every(since, 11) => f64::INFINITY,
                () if every(since, 13) => f64::NEG_INFINITY,
                () if every(since, 17) => 1e100,
                () => rng.unit(),
            })
        });
        self.add(&[("__name__", "s_special"), ("v", "mixed")], samples);
        let samples =
            self.regular(|_, since| Some(if every(since, 19) { f64::NAN } else { (since / 1000) as f64 }));
        self.add(&[("__name__", "s_nan_sometimes_total")], samples);
    }

    fn joins(&mut self) {
        for instance in ["a", "b", "c"] {
            for device in ["sda", "sdb"] {
                let pairs =
                    |name: &'static str| [("__name__", name), ("device", device), ("instance", instance)];
                let samples = self.regular(|rng, _| Some((rng.unit() * 1e9).round()));
                self.add(&pairs("s_usage_bytes"), samples);
                if (instance, device) != ("c", "sdb") {
                    let samples = self.regular(|_, _| Some(1e9));
                    self.add(&pairs("s_limit_bytes"), samples);
                }
            }
            // The version changes in the middle; the join's one side switches its series.
            let switch = 2 * 3_600_000 + if instance == "a" { 0 } else { 10 * MINUTE_MS };
            for version in ["1.0", "1.1"] {
                let old = version == "1.0";
                let samples = self.regular(|_, since| match since.cmp(&switch) {
                    std::cmp::Ordering::Less => old.then_some(1.0),
                    std::cmp::Ordering::Equal if old => Some(stale_nan()),
                    _ => (!old).then_some(1.0),
                });
                self.add(&[("__name__", "s_info"), ("instance", instance), ("version", version)], samples);
            }
        }
        for name in ["s_twin_a", "s_twin_b"] {
            let samples = self.regular(|rng, _| Some(rng.unit()));
            self.add(&[("__name__", name), ("i", "1")], samples);
        }
    }

    /// A new series every fifteen minutes; every other one ends with a marker.
    fn churn(&mut self) {
        for generation in 0..24 {
            let from = i64::from(generation) * 15 * MINUTE_MS;
            let to = from + 15 * MINUTE_MS;
            let mut total = 0.0;
            let samples = self.regular(|rng, since| {
                total += rng.below(5) as f64;
                match since {
                    s if s == to && generation % 2 == 0 => Some(stale_nan()),
                    s => (from..to).contains(&s).then_some(total),
                }
            });
            let name = format!("g{generation:02}");
            self.add(&[("__name__", "s_churn_total"), ("gen", &name), ("job", "churn")], samples);
        }
    }

    fn odd_labels(&mut self) {
        for value in
            ["", " spaced ", "\"quoted\\", "line\nbreak", "h\u{e9}llo \u{2603}", "<&>", "1", "10", "2"]
        {
            let samples = self.regular(|_, since| Some((since / STEP_MS % 10) as f64));
            if value.is_empty() {
                self.add(&[("__name__", "s_odd")], samples);
            } else {
                self.add(&[("__name__", "s_odd"), ("value", value)], samples);
            }
        }
    }
}
