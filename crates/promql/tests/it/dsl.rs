//! A small language for tests: series as text, results as text.

use std::time::Duration;

use chronolith_model::{Labels, Sample, TenantId, float};
use chronolith_promql::{Engine, EngineOptions, Query, QueryError, QueryResult, Value};
use chronolith_storage::{MemoryStorage, conformance};
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
            let samples = series.values.iter().enumerate().filter_map(|(i, value)| match value {
                SeriesValue::Float(v) => Some(Sample::new(start + step * i as i64, *v)),
                SeriesValue::Missing => None,
                SeriesValue::Histogram => panic!("{line}: storage holds floats only"),
            });
            self.write(series.labels, samples.collect());
        }
        self
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

/// `{labels} value`, joined by `; `; of a matrix `{labels} value@time value@time`.
pub(crate) fn show(result: &QueryResult) -> String {
    let points = |points: &[(i64, f64)]| {
        points.iter().map(|(t, v)| format!("{}@{t}", float::general(*v))).collect::<Vec<_>>().join(" ")
    };
    match &result.value {
        Value::Scalar { value, .. } => float::general(*value),
        Value::String { value, .. } => format!("{value:?}"),
        Value::Vector(samples) => samples
            .iter()
            .map(|sample| format!("{} {}", name(&sample.labels), float::general(sample.value)))
            .collect::<Vec<_>>()
            .join("; "),
        Value::Matrix(series) => series
            .iter()
            .map(|series| format!("{} {}", name(&series.labels), points(&series.points)))
            .collect::<Vec<_>>()
            .join("; "),
    }
}

/// Labels as PromQL writes them, the name in front.
fn name(labels: &Labels) -> String {
    let rest = labels.without("__name__");
    let name = labels.metric_name().unwrap_or_default();
    if rest.is_empty() && !name.is_empty() { name.to_owned() } else { format!("{name}{rest}") }
}

pub(crate) const MINUTE: Duration = Duration::from_secs(60);
