//! Series made up for tests: the same seed gives the same series, everywhere.
//!
//! A [`Scenario`] says when its targets are scraped; its methods make series with the oddities that engines get
//! wrong: counter resets, NaN and infinities, stale markers, gaps longer than the lookback, label churn, classic
//! histograms. [`Scenario::everything`] has all of them, [`in_time_order`] turns series into a stream as a sender
//! would send it.

use chronolith_model::{Labels, METRIC_NAME, Sample, Timestamp, stale_nan};

/// A gap longer than Prometheus' lookback of 5 minutes, in milliseconds.
pub const LONG_GAP: i64 = 7 * 60_000;

/// Deterministic pseudo-random numbers (SplitMix64). Not for secrets.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Numbers that follow from `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which must not be 0. Slightly biased for huge bounds.
    pub const fn below(&mut self, bound: u64) -> u64 {
        self.next_u64() % bound
    }

    /// A float in `[0, 1)`.
    pub fn fraction(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True once in `n` times.
    pub const fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A generated series.
#[derive(Clone, Debug, PartialEq)]
pub struct GeneratedSeries {
    /// Its labels, the metric name among them.
    pub labels: Labels,
    /// Its samples: times strictly increasing, stale markers included.
    pub samples: Vec<Sample>,
}

/// When targets are scraped, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Decides everything else.
    pub seed: u64,
    /// First scrape.
    pub start: Timestamp,
    /// No scrape after this.
    pub end: Timestamp,
    /// Distance of scrapes, positive.
    pub interval: i64,
    /// A scrape is up to so much late; below `interval`. 0 puts samples exactly on the grid.
    pub jitter: i64,
}

/// One thing that happens to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// It is scraped.
    Scrape,
    /// It was restarted since the last scrape, and is scraped.
    Restart,
    /// The scrape fails: its series get stale markers.
    Fail,
}

impl Scenario {
    /// The times of `target` and what happens then. About one scrape in 150 begins an outage: half of them begin with
    /// stale markers, half of them last longer than the lookback; some end in a restart.
    fn events(&self, target: u64) -> Vec<(Timestamp, Event)> {
        let mut random = Random::new(self.seed ^ target.wrapping_mul(0xa076_1d64_78bd_642f));
        let interval = self.interval.max(1);
        let jitter = self.jitter.clamp(0, interval - 1);
        let mut events = Vec::new();
        let mut time = self.start;
        let mut restarted = false;
        while time <= self.end {
            let at = (time + random.below(jitter.unsigned_abs() + 1) as i64).min(self.end);
            if random.one_in(150) {
                if random.one_in(2) {
                    events.push((at, Event::Fail));
                }
                let gap = if random.one_in(2) { LONG_GAP } else { 3 * interval };
                time += (gap / interval + 1) * interval;
                restarted = random.one_in(2);
                continue;
            }
            events.push((at, if restarted || random.one_in(400) { Event::Restart } else { Event::Scrape }));
            restarted = false;
            time += interval;
        }
        events
    }

    /// Counters `name{instance, code}`, one per target and code (`200`, `404`, `500`); restarts reset all counters of
    /// a target at once. Some steps add nothing, some add fractions.
    #[must_use]
    pub fn counters(&self, name: &str, targets: u64) -> Vec<GeneratedSeries> {
        let mut all = Vec::new();
        for target in 0..targets {
            let events = self.events(target);
            for (index, code) in (0_u64..).zip(["200", "404", "500"]) {
                let mut random = self.random(name, target, index);
                let rate = 10.0 / (1.0 + index as f64 * 4.0);
                let mut value = 0.0;
                let labels = [(METRIC_NAME, name), ("instance", &instance(target)), ("code", code)];
                all.push(GeneratedSeries::new(labels, &events, |event| {
                    if event == Event::Restart {
                        value = 0.0;
                    }
                    if !random.one_in(5) {
                        value += if target.is_multiple_of(2) {
                            (random.fraction() * rate).round()
                        } else {
                            random.fraction()
                        };
                    }
                    value
                }));
            }
        }
        all
    }

    /// Gauges `name{instance}`: random walks around 20, positive and negative.
    #[must_use]
    pub fn gauges(&self, name: &str, targets: u64) -> Vec<GeneratedSeries> {
        (0..targets)
            .map(|target| {
                let mut random = self.random(name, target, 0);
                let mut value = 20.0;
                let labels = [(METRIC_NAME, name), ("instance", &instance(target))];
                GeneratedSeries::new(labels, &self.events(target), |_| {
                    value += (random.fraction() - 0.5) * 8.0;
                    // Repeated and whole values occur too.
                    if random.one_in(3) {
                        value = value.round();
                    }
                    value
                })
            })
            .collect()
    }

    /// Gauges `name{instance}` with NaN, infinities, huge, tiny and negative zero values among ordinary ones.
    #[must_use]
    pub fn special_gauges(&self, name: &str, targets: u64) -> Vec<GeneratedSeries> {
        const SPECIAL: [f64; 8] =
            [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 1e100, -1.7e308, 5e-324, f64::NAN];
        (0..targets)
            .map(|target| {
                let mut random = self.random(name, target, 0);
                let labels = [(METRIC_NAME, name), ("instance", &instance(target))];
                GeneratedSeries::new(labels, &self.events(target), |_| {
                    if random.one_in(12) {
                        SPECIAL[random.below(SPECIAL.len() as u64) as usize]
                    } else {
                        random.below(100) as f64
                    }
                })
            })
            .collect()
    }

    /// Gauges `name{slot, pod}`: each slot is held by one pod after another, each for about `lifetime` milliseconds
    /// (at least one interval). A pod's series ends in a stale marker at its successor's first scrape, or just stops.
    #[must_use]
    pub fn churn(&self, name: &str, slots: u64, lifetime: i64) -> Vec<GeneratedSeries> {
        let interval = self.interval.max(1);
        let mut all = Vec::new();
        for slot in 0..slots {
            let mut random = self.random(name, slot, 0);
            let mut time = self.start;
            let mut generation = 0;
            while time <= self.end {
                let scrapes = 1 + random.below(2 * (lifetime / interval).max(1).unsigned_abs()) as i64;
                let mut events: Vec<_> = (0..scrapes)
                    .map(|i| (time + i * interval, Event::Scrape))
                    .take_while(|(at, _)| *at <= self.end)
                    .collect();
                time += scrapes * interval;
                if time <= self.end && !random.one_in(4) {
                    events.push((time, Event::Fail));
                }
                let pod = format!("{name}-{slot}-{generation}-{:05x}", random.below(1 << 20));
                let labels = [(METRIC_NAME, name), ("slot", &slot.to_string()), ("pod", &pod)];
                all.push(GeneratedSeries::new(labels, &events, |_| random.below(1000) as f64));
                generation += 1;
            }
        }
        all
    }

    /// Classic histograms: `name_bucket{instance, le}`, `name_sum` and `name_count`, reset together.
    #[must_use]
    pub fn histograms(&self, name: &str, targets: u64) -> Vec<GeneratedSeries> {
        const BOUNDS: [(f64, &str); 7] = [
            (0.05, "0.05"),
            (0.1, "0.1"),
            (0.25, "0.25"),
            (0.5, "0.5"),
            (1.0, "1"),
            (2.5, "2.5"),
            (f64::INFINITY, "+Inf"),
        ];
        let mut all = Vec::new();
        for target in 0..targets {
            let events = self.events(target);
            let instance = instance(target);
            let instance = instance.as_str();
            // Column by column: all series of the histogram replay the same observations.
            let observe = |each: &mut dyn FnMut(f64) -> f64, labels: &[(&str, &str)]| {
                let mut random = self.random(name, target, 0);
                let mut value = 0.0;
                GeneratedSeries::new(labels.iter().copied(), &events, |event| {
                    if event == Event::Restart {
                        value = 0.0;
                    }
                    for _ in 0..random.below(12) {
                        // Skewed towards the small, now and then beyond the last finite bound.
                        value += each(random.fraction().powi(3) * 3.0);
                    }
                    value
                })
            };
            let metric = |suffix: &str| format!("{name}{suffix}");
            for (bound, le) in BOUNDS {
                let mut each = |seconds| f64::from(u8::from(seconds <= bound));
                all.push(observe(
                    &mut each,
                    &[(METRIC_NAME, &metric("_bucket")), ("instance", instance), ("le", le)],
                ));
            }
            all.push(observe(
                &mut |seconds| seconds,
                &[(METRIC_NAME, &metric("_sum")), ("instance", instance)],
            ));
            all.push(observe(&mut |_| 1.0, &[(METRIC_NAME, &metric("_count")), ("instance", instance)]));
        }
        all
    }

    /// One of each: `gen_requests_total`, `gen_temperature`, `gen_special`, `gen_pods`, `gen_latency_seconds`, with
    /// `targets` targets, sorted by labels.
    #[must_use]
    pub fn everything(&self, targets: u64) -> Vec<GeneratedSeries> {
        let mut all = self.counters("gen_requests_total", targets);
        all.extend(self.gauges("gen_temperature", targets));
        all.extend(self.special_gauges("gen_special", targets));
        all.extend(self.churn("gen_pods", targets, 40 * self.interval));
        all.extend(self.histograms("gen_latency_seconds", targets));
        all.sort_by(|a, b| a.labels.cmp(&b.labels));
        all
    }

    fn random(&self, name: &str, target: u64, index: u64) -> Random {
        let mut random = Random::new(self.seed);
        for byte in name.bytes().map(u64::from).chain([target, index]) {
            random = Random::new(random.next_u64() ^ byte);
        }
        random
    }
}

impl GeneratedSeries {
    /// A series with a sample per event; a failed scrape is a stale marker.
    fn new<'a>(
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        events: &[(Timestamp, Event)],
        mut value: impl FnMut(Event) -> f64,
    ) -> Self {
        let mut samples: Vec<Sample> = events
            .iter()
            .map(|(time, event)| {
                Sample::new(*time, if *event == Event::Fail { stale_nan() } else { value(*event) })
            })
            .collect();
        // Jitter at the very end of the scenario may put two scrapes on the same millisecond.
        samples.dedup_by_key(|sample| sample.timestamp);
        Self { labels: Labels::from_pairs(labels), samples }
    }
}

fn instance(target: u64) -> String {
    format!("host-{target}:9100")
}

/// All samples in the order of time, those of one time in the order of the series: `(index of the series, sample)`.
#[must_use]
pub fn in_time_order(series: &[GeneratedSeries]) -> Vec<(usize, Sample)> {
    let samples =
        series.iter().enumerate().flat_map(|(i, series)| series.samples.iter().map(move |s| (i, *s)));
    let mut all: Vec<_> = samples.collect();
    all.sort_by_key(|(i, sample)| (sample.timestamp, *i));
    all
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use chronolith_model::is_stale;

    use super::*;

    const SCENARIO: Scenario =
        Scenario { seed: 7, start: 1_700_000_000_000, end: 1_700_021_600_000, interval: 15_000, jitter: 40 };

    fn bits(series: &[GeneratedSeries]) -> Vec<(String, Vec<(i64, u64)>)> {
        series
            .iter()
            .map(|s| {
                (s.labels.to_string(), s.samples.iter().map(|s| (s.timestamp, s.value.to_bits())).collect())
            })
            .collect()
    }

    #[test]
    fn the_seed_decides() {
        assert_eq!(bits(&SCENARIO.everything(3)), bits(&SCENARIO.everything(3)));
        assert_ne!(bits(&SCENARIO.everything(3)), bits(&Scenario { seed: 8, ..SCENARIO }.everything(3)));
    }

    #[test]
    fn samples_are_in_order_and_inside_and_labels_unique() {
        for jitter in [0, 40, 14_999] {
            let scenario = Scenario { jitter, ..SCENARIO };
            let all = scenario.everything(4);
            let labels: HashSet<_> = all.iter().map(|s| &s.labels).collect();
            assert_eq!(labels.len(), all.len());
            for series in &all {
                assert!(
                    series.samples.windows(2).all(|pair| pair[0].timestamp < pair[1].timestamp),
                    "{}",
                    series.labels
                );
                assert!(
                    series.samples.iter().all(|s| (scenario.start..=scenario.end).contains(&s.timestamp))
                );
            }
        }
    }

    #[test]
    fn the_oddities_occur() {
        let all = SCENARIO.everything(4);
        let named =
            |name: &str| all.iter().filter(|s| s.labels.metric_name() == Some(name)).collect::<Vec<_>>();
        let pairs = |series: &[&GeneratedSeries], test: &dyn Fn(Sample, Sample) -> bool| {
            series.iter().flat_map(|s| s.samples.windows(2)).filter(|pair| test(pair[0], pair[1])).count()
        };
        let counters = named("gen_requests_total");
        assert!(pairs(&counters, &|a, b| b.value < a.value) > 10, "resets");
        assert!(
            pairs(&counters, &|a, b| b.timestamp - a.timestamp > LONG_GAP && !is_stale(a.value)) > 0,
            "gaps"
        );
        assert!(
            pairs(&counters, &|a, b| b.timestamp - a.timestamp > LONG_GAP && is_stale(a.value)) > 0,
            "stale gaps"
        );
        let special = named("gen_special");
        let has = |test: &dyn Fn(f64) -> bool| special.iter().flat_map(|s| &s.samples).any(|s| test(s.value));
        assert!(has(&|v| v.is_nan() && !is_stale(v)) && has(&is_stale) && has(&f64::is_infinite));
        assert!(named("gen_pods").len() > 4 * 10, "churn");
    }

    #[test]
    fn histograms_are_cumulative() {
        let all = SCENARIO.histograms("h", 1);
        let (buckets, rest) = all.split_at(7);
        for pair in buckets.windows(2) {
            let samples = pair[0].samples.iter().zip(&pair[1].samples);
            assert!(
                samples.clone().all(|(a, b)| is_stale(a.value) && is_stale(b.value) || a.value <= b.value)
            );
        }
        assert_eq!(bits(&buckets[6..])[0].1, bits(&rest[1..])[0].1, "+Inf bucket and count");
    }

    #[test]
    fn a_stream_is_in_time_order() {
        let all = SCENARIO.everything(2);
        let stream = in_time_order(&all);
        assert_eq!(stream.len(), all.iter().map(|s| s.samples.len()).sum::<usize>());
        assert!(stream.windows(2).all(|pair| pair[0].1.timestamp <= pair[1].1.timestamp));
    }
}
