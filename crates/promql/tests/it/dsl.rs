//! A small language for tests: series as text, results as text.

use std::time::Duration;

use chronolith_model::{FloatHistogram, HistogramSample, Labels, Sample, TenantId, float};
use chronolith_promql::{
    Engine, EngineOptions, Query, QueryError, QueryResult, RangeSeries, SampleValue, Value,
};
use chronolith_storage::{
    Appender, LabelSource, MemoryStorage, RejectReason, SeriesEntry, WriteBatch, conformance,
};
use chronolith_syntax::ParseOptions;
use chronolith_testkit::promqltest::series::{SeriesValue, parse_series};

/// Storage and an engine over it.
pub(crate) struct World {
    pub(crate) storage: MemoryStorage,
    pub(crate) engine: Engine,
}

pub(crate) fn options() -> EngineOptions {
    EngineOptions { threads: 2, parse: ParseOptions::all(), ..EngineOptions::default() }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(options())
    }

    pub(crate) fn with(options: EngineOptions) -> Self {
        Self { storage: MemoryStorage::new(), engine: Engine::new(options) }
    }

    /// Loads series, one per line, samples `step` milliseconds apart from `start` on.
    pub(crate) fn load(self, start: i64, step: i64, lines: &str) -> Self {
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let series = parse_series(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            for (i, value) in series.values.into_iter().enumerate() {
                let t = start + step * i as i64;
                match value {
                    SeriesValue::Float(v) => self.write(series.labels.clone(), vec![Sample::new(t, v)]),
                    SeriesValue::Missing => {}
                    SeriesValue::Histogram(value) => {
                        self.write_histogram(&series.labels, t, FloatHistogram::clone(&value.histogram));
                    }
                }
            }
        }
        self
    }

    pub(crate) fn write_histogram(&self, labels: &Labels, timestamp: i64, histogram: FloatHistogram) {
        let key = self.storage.key_hasher().key(labels.to_string().as_bytes());
        let entry = SeriesEntry { histograms: 0..1, ..SeriesEntry::of_samples(key, 0..0) };
        let histogram = HistogramSample { timestamp, histogram: histogram.into() };
        let labels = One(labels.clone());
        let batch = WriteBatch {
            series: &[entry],
            samples: &[],
            histograms: std::slice::from_ref(&histogram),
            labels: &labels,
        };
        let appended = self.storage.append(&TenantId::default(), &batch).expect("memory takes all");
        assert_eq!(appended.outcome.rejected, 0, "{:?}", appended.outcome);
    }

    pub(crate) fn write(&self, labels: Labels, samples: Vec<Sample>) {
        let outcome = conformance::write(&self.storage, &TenantId::default(), &[(labels, samples)]);
        assert_eq!(outcome.rejected, 0, "{outcome:?}");
    }

    pub(crate) fn run(&self, query: &Query) -> Result<QueryResult, QueryError> {
        conformance::block_on(self.engine.run(&self.storage, query))
    }

    /// The result of an instant query at `t` milliseconds, or its error, as text.
    pub(crate) fn at(&self, t: i64, text: &str) -> String {
        self.run(&Query::instant(text, t))
            .map_or_else(|error| format!("error: {error}"), |result| show(&result))
    }

    /// The result of a range query, or its error, as text.
    pub(crate) fn range(&self, (start, end, step): (i64, i64, i64), text: &str) -> String {
        let result = self.run(&Query::range(text, start, end, step));
        result.map_or_else(|error| format!("error: {error}"), |result| show(&result))
    }

    #[track_caller]
    pub(crate) fn check(&self, t: i64, cases: &[(&str, &str)]) {
        for (text, expected) in cases {
            assert_eq!(self.at(t, text), *expected, "{text} at {t}");
        }
    }
}

/// The labels of one series.
struct One(Labels);

impl LabelSource for One {
    fn labels(&self, _: usize) -> Result<Labels, RejectReason> {
        Ok(self.0.clone())
    }
}

/// `{labels} value`, joined by `; `; of a matrix `{labels} value@time value@time`.
pub(crate) fn show(result: &QueryResult) -> String {
    let points = |series: &RangeSeries| {
        let floats = series.points.iter().map(|(t, v)| (*t, float::general(*v)));
        let histograms = series.histograms.iter().map(|(t, histogram)| (*t, histogram.to_literal()));
        let mut points: Vec<(i64, String)> = floats.chain(histograms).collect();
        points.sort_by_key(|(t, _)| *t);
        points.into_iter().map(|(t, value)| format!("{value}@{t}")).collect::<Vec<_>>().join(" ")
    };
    match &result.value {
        Value::Scalar { value, .. } => float::general(*value),
        Value::String { value, .. } => format!("{value:?}"),
        Value::Vector(samples) => samples
            .iter()
            .map(|sample| format!("{} {}", name(&sample.labels), value(&sample.value)))
            .collect::<Vec<_>>()
            .join("; "),
        Value::Matrix(series) => series
            .iter()
            .map(|series| format!("{} {}", name(&series.labels), points(series)))
            .collect::<Vec<_>>()
            .join("; "),
    }
}

fn value(value: &SampleValue) -> String {
    match value {
        SampleValue::Float(value) => float::general(*value),
        SampleValue::Histogram(histogram) => histogram.to_literal(),
    }
}

/// Labels as PromQL writes them, the name in front.
fn name(labels: &Labels) -> String {
    let rest = labels.without("__name__");
    let name = labels.metric_name().unwrap_or_default();
    if rest.is_empty() && !name.is_empty() { name.to_owned() } else { format!("{name}{rest}") }
}

pub(crate) const MINUTE: Duration = Duration::from_secs(60);
