//! Data points to samples.

use std::collections::HashSet;

use chronolith_model::{
    Exemplar, Histogram, HistogramSample, Labels, METRIC_TYPE, METRIC_UNIT, MetricMetadata, MetricType,
    Sample, Timestamp, exemplar::LABEL_CHARS_MAX, float, stale_nan,
};
use chronolith_storage::{ExemplarEntry, KeyHasher, SeriesEntry};

use super::{
    OtlpError, OtlpOptions, OtlpSamples, REFUSALS_KEPT_MAX, SAMPLES_MAX,
    message::{
        CUMULATIVE, ExponentialPoint, HistogramPoint, KeyValue, Metric, NO_RECORDED_VALUE, NumberPoint,
        PointExemplar, Request, ResourceMetrics, ScopeMetrics, SummaryPoint,
    },
    names::{Kind, LabelSet, metric_name, suffixed, unit_name},
    native::native,
};

const SERVICE_NAME: &str = "service.name";
const SERVICE_NAMESPACE: &str = "service.namespace";
const SERVICE_INSTANCE: &str = "service.instance.id";
const TARGET_INFO: &str = "target_info";
/// Labels of an exemplar that name the trace.
const TRACE_ID: &str = "trace_id";
const SPAN_ID: &str = "span_id";

/// The samples of `request`.
pub(super) fn translate(
    request: &Request,
    hasher: &KeyHasher,
    options: &OtlpOptions,
) -> Result<OtlpSamples, OtlpError> {
    let mut translator = Translator {
        hasher,
        options,
        out: OtlpSamples::default(),
        described: HashSet::new(),
        typed: None,
        seen: None,
        bytes: 0,
    };
    for resource in &request.resource_metrics {
        translator.resource(resource)?;
    }
    Ok(translator.out)
}

struct Translator<'a> {
    hasher: &'a KeyHasher,
    options: &'a OtlpOptions,
    out: OtlpSamples,
    /// Metric families whose metadata is there.
    described: HashSet<String>,
    /// Type and unit of the metric at hand, if its series get them as labels.
    typed: Option<(MetricType, String)>,
    /// Oldest and newest timestamp of the samples of the resource so far.
    seen: Option<(Timestamp, Timestamp)>,
    /// Memory of what is in `out`: attributes of a resource may be labels of all its points.
    bytes: usize,
}

/// Memory of a sample with its entry, in vectors that have room for as many again; its labels left out.
const SAMPLE_BYTES: usize = 2 * (size_of::<SeriesEntry>() + size_of::<Labels>() + size_of::<Sample>());

/// Memory of an exemplar, with labels as long as they may be.
const EXEMPLAR_BYTES: usize = 2 * size_of::<Exemplar>() + 4 * LABEL_CHARS_MAX;

/// What the series of a resource and scope have in common.
struct Common {
    /// Of promoted attributes and the scope.
    labels: LabelSet,
    job: Option<String>,
    instance: Option<String>,
}

/// When a point was, and since when it counts.
#[derive(Clone, Copy)]
struct When {
    timestamp: Timestamp,
    start: Timestamp,
}

impl When {
    fn new(time_nanoseconds: u64, start_nanoseconds: u64) -> Self {
        let milliseconds = |nanoseconds: u64| i64::try_from(nanoseconds / 1_000_000).unwrap_or(i64::MAX);
        Self { timestamp: milliseconds(time_nanoseconds), start: milliseconds(start_nanoseconds) }
    }
}

impl Translator<'_> {
    fn resource(&mut self, resource: &ResourceMetrics) -> Result<(), OtlpError> {
        self.seen = None;
        let attributes = &resource.resource.attributes;
        let job = job(attributes);
        let instance = value_of(attributes, SERVICE_INSTANCE);
        for scope in &resource.scope_metrics {
            let common = self.common(attributes, scope, job.clone(), instance.clone());
            for metric in &scope.metrics {
                self.metric(metric, &common)?;
            }
        }
        self.target_info(attributes, job, instance)
    }

    fn common(
        &self,
        attributes: &[KeyValue],
        scope: &ScopeMetrics,
        job: Option<String>,
        instance: Option<String>,
    ) -> Common {
        let options = self.options;
        let mut labels = LabelSet::default();
        let promoted = |key: &str| {
            let named = |list: &[String]| list.iter().any(|name| name == key);
            if options.promote_all { !named(&options.ignored) } else { named(&options.promoted) }
        };
        for attribute in sorted(attributes).into_iter().filter(|attribute| promoted(&attribute.key)) {
            labels.add(options.names, &attribute.key, &attribute.value.text());
        }
        if options.promote_scope {
            let scope_labels = [
                ("otel_scope_name", &scope.scope.name),
                ("otel_scope_version", &scope.scope.version),
                ("otel_scope_schema_url", &scope.schema_url),
            ];
            for (name, value) in scope_labels {
                labels.set(name, value.as_str());
            }
            for attribute in sorted(&scope.scope.attributes) {
                let key = format!("otel_scope_{}", attribute.key);
                labels.add(options.names, &key, &attribute.value.text());
            }
        }
        Common { labels, job, instance }
    }

    fn metric(&mut self, metric: &Metric, common: &Common) -> Result<(), OtlpError> {
        let names = self.options.names;
        let name = |kind| metric_name(names, &metric.name, &metric.unit, kind);
        if let Some(gauge) = &metric.gauge {
            let name = name(Kind::Gauge);
            self.describe(&name, MetricType::Gauge, metric);
            for point in &gauge.data_points {
                self.number(&name, point, common)?;
            }
        }
        if let Some(sum) = &metric.sum
            && self.cumulative(metric, sum.aggregation_temporality, sum.data_points.len())
        {
            let name = name(if sum.is_monotonic { Kind::Counter } else { Kind::Other });
            let kind = if sum.is_monotonic { MetricType::Counter } else { MetricType::Gauge };
            self.describe(&name, kind, metric);
            for point in &sum.data_points {
                self.number(&name, point, common)?;
            }
        }
        if let Some(histogram) = &metric.histogram
            && self.cumulative(metric, histogram.aggregation_temporality, histogram.data_points.len())
        {
            let name = name(Kind::Other);
            self.describe(&name, MetricType::Histogram, metric);
            for point in &histogram.data_points {
                self.histogram(&name, point, common)?;
            }
        }
        if let Some(histogram) = &metric.exponential_histogram
            && self.cumulative(metric, histogram.aggregation_temporality, histogram.data_points.len())
        {
            let name = name(Kind::Other);
            self.describe(&name, MetricType::Histogram, metric);
            for point in &histogram.data_points {
                self.exponential(&name, point, common)?;
            }
        }
        if let Some(summary) = &metric.summary {
            let name = name(Kind::Other);
            self.describe(&name, MetricType::Summary, metric);
            for point in &summary.data_points {
                self.summary(&name, point, common)?;
            }
        }
        Ok(())
    }

    /// Whether points count since their start. Others are refused: a series of differences is no counter.
    fn cumulative(&mut self, metric: &Metric, temporality: i32, points: usize) -> bool {
        if temporality == CUMULATIVE {
            return true;
        }
        let reason = format!("invalid temporality and type combination for metric \"{}\"", metric.name);
        self.refuse(points as u64, reason);
        false
    }

    fn refuse(&mut self, points: u64, reason: String) {
        self.out.refused += points;
        if points > 0 && self.out.refusals.len() < REFUSALS_KEPT_MAX {
            self.out.refusals.push(reason);
        }
    }

    fn describe(&mut self, name: &str, kind: MetricType, metric: &Metric) {
        let typed = self.options.type_and_unit_labels;
        self.typed = typed.then(|| (kind, unit_name(self.options.names, &metric.unit)));
        if self.described.insert(name.to_owned()) {
            self.out.metadata.push(MetricMetadata {
                metric: name.to_owned(),
                kind,
                unit: metric.unit.clone(),
                help: metric.description.clone(),
            });
        }
    }

    /// The labels of a point, without a name.
    fn point_labels(&self, attributes: &[KeyValue], common: &Common) -> LabelSet {
        let mut labels = common.labels.clone();
        for attribute in sorted(attributes) {
            labels.add(self.options.names, &attribute.key, &attribute.value.text());
        }
        if let Some(job) = &common.job {
            labels.set("job", job.as_str());
        }
        if let Some(instance) = &common.instance {
            labels.set("instance", instance.as_str());
        }
        if let Some((kind, unit)) = &self.typed {
            labels.set(METRIC_TYPE, kind.as_str());
            if !unit.is_empty() {
                labels.set(METRIC_UNIT, unit.as_str());
            }
        }
        labels
    }

    fn number(&mut self, name: &str, point: &NumberPoint, common: &Common) -> Result<(), OtlpError> {
        let labels = self.point_labels(&point.attributes, common);
        let when = When::new(point.time_unix_nano, point.start_time_unix_nano);
        let value = match (point.as_int, point.as_double) {
            _ if point.flags & NO_RECORDED_VALUE != 0 => stale_nan(),
            (Some(whole), _) => whole as f64,
            (None, value) => value.unwrap_or(0.0),
        };
        let labels = named(&labels, name, None);
        self.exemplars(&labels, &point.exemplars)?;
        self.float(labels, when, value)
    }

    fn histogram(&mut self, name: &str, point: &HistogramPoint, common: &Common) -> Result<(), OtlpError> {
        let labels = self.point_labels(&point.attributes, common);
        let when = When::new(point.time_unix_nano, point.start_time_unix_nano);
        let gone = point.flags & NO_RECORDED_VALUE != 0;
        let shown = |value: f64| if gone { stale_nan() } else { value };
        if let Some(sum) = point.sum {
            self.float(named(&labels, &suffixed(name, "_sum"), None), when, shown(sum))?;
        }
        let count = shown(point.count as f64);
        self.float(named(&labels, &suffixed(name, "_count"), None), when, count)?;
        let bucket = suffixed(name, "_bucket");
        let mut below = 0_u64;
        let mut lower = f64::NEG_INFINITY;
        for (bound, in_bucket) in point.explicit_bounds.iter().zip(&point.bucket_counts) {
            below = below.saturating_add(*in_bucket);
            let labels = named(&labels, &bucket, Some(("le", float::fixed(*bound))));
            self.exemplars_of(&labels, &point.exemplars, lower, *bound)?;
            self.float(labels, when, shown(below as f64))?;
            lower = *bound;
        }
        let labels = named(&labels, &bucket, Some(("le", "+Inf".to_owned())));
        self.exemplars_of(&labels, &point.exemplars, lower, f64::INFINITY)?;
        self.float(labels, when, count)
    }

    fn exponential(
        &mut self,
        name: &str,
        point: &ExponentialPoint,
        common: &Common,
    ) -> Result<(), OtlpError> {
        let labels = named(&self.point_labels(&point.attributes, common), name, None);
        let when = When::new(point.time_unix_nano, point.start_time_unix_nano);
        match native(point) {
            Ok(histogram) => {
                self.exemplars(&labels, &point.exemplars)?;
                self.native(labels, when, histogram)
            }
            Err(reason) => {
                self.refuse(1, format!("{labels}: {reason}"));
                Ok(())
            }
        }
    }

    fn summary(&mut self, name: &str, point: &SummaryPoint, common: &Common) -> Result<(), OtlpError> {
        let labels = self.point_labels(&point.attributes, common);
        let when = When::new(point.time_unix_nano, point.start_time_unix_nano);
        let gone = point.flags & NO_RECORDED_VALUE != 0;
        let shown = |value: f64| if gone { stale_nan() } else { value };
        self.float(named(&labels, &suffixed(name, "_sum"), None), when, shown(point.sum))?;
        self.float(named(&labels, &suffixed(name, "_count"), None), when, shown(point.count as f64))?;
        for quantile in &point.quantile_values {
            let label = ("quantile", float::fixed(quantile.quantile));
            self.float(named(&labels, name, Some(label)), when, shown(quantile.value))?;
        }
        Ok(())
    }

    /// `target_info`: what is known of the resource, from the oldest to the newest of its samples.
    fn target_info(
        &mut self,
        attributes: &[KeyValue],
        job: Option<String>,
        instance: Option<String>,
    ) -> Result<(), OtlpError> {
        let Some((oldest, newest)) = self.seen.take() else { return Ok(()) };
        if job.is_none() && instance.is_none() {
            return Ok(());
        }
        let identifies = |key: &str| [SERVICE_NAME, SERVICE_NAMESPACE, SERVICE_INSTANCE].contains(&key);
        let mut labels = LabelSet::default();
        for attribute in sorted(attributes) {
            if self.options.keep_identifying || !identifies(&attribute.key) {
                labels.add(self.options.names, &attribute.key, &attribute.value.text());
            }
        }
        // Nothing is told by a series that has only what all others have too.
        if labels.0.is_empty() {
            return Ok(());
        }
        for (name, value) in [("job", job), ("instance", instance)] {
            if let Some(value) = value {
                labels.set(name, value);
            }
        }
        let labels = named(&labels, TARGET_INFO, None);
        let every = self.options.target_info_every.max(1);
        let mut timestamp = oldest;
        while timestamp < newest {
            self.float(labels.clone(), When { timestamp, start: 0 }, 1.0)?;
            timestamp = timestamp.saturating_add(every);
        }
        self.float(labels, When { timestamp: newest, start: 0 }, 1.0)
    }

    /// That there is room for one sample more, with `labels` and `bytes` of its own.
    fn room(&mut self, labels: &Labels, bytes: usize) -> Result<(), OtlpError> {
        if self.out.samples.len() + self.out.histograms.len() >= SAMPLES_MAX {
            return Err(OtlpError::TooMany { what: "samples", limit: SAMPLES_MAX });
        }
        self.charge(SAMPLE_BYTES + labels.size_bytes() + bytes)
    }

    fn charge(&mut self, bytes: usize) -> Result<(), OtlpError> {
        self.bytes = self.bytes.saturating_add(bytes);
        let limit = self.options.memory_bytes_max;
        if self.bytes > limit {
            return Err(OtlpError::TooMany { what: "bytes of labels and samples", limit });
        }
        Ok(())
    }

    fn float(&mut self, labels: Labels, when: When, value: f64) -> Result<(), OtlpError> {
        self.room(&labels, 0)?;
        let at = index(self.out.samples.len());
        self.out.samples.push(Sample::new(when.timestamp, value));
        self.entry(labels, at..at + 1, 0..0, when);
        Ok(())
    }

    fn native(&mut self, labels: Labels, when: When, histogram: Histogram) -> Result<(), OtlpError> {
        self.room(&labels, 2 * size_of::<HistogramSample>() + histogram.heap_bytes())?;
        let at = index(self.out.histograms.len());
        self.out.histograms.push(HistogramSample { timestamp: when.timestamp, histogram });
        self.entry(labels, 0..0, at..at + 1, when);
        Ok(())
    }

    fn entry(
        &mut self,
        labels: Labels,
        samples: std::ops::Range<u32>,
        histograms: std::ops::Range<u32>,
        when: When,
    ) {
        let key = self.hasher.key(labels.to_string().as_bytes());
        self.out.series.push(SeriesEntry { key, samples, histograms, start_timestamp: when.start });
        self.out.labels.push(labels);
        let at = when.timestamp;
        self.seen = Some(self.seen.map_or((at, at), |(oldest, newest)| (oldest.min(at), newest.max(at))));
    }

    /// Those whose value is in `(lower, upper]`.
    fn exemplars_of(
        &mut self,
        labels: &Labels,
        all: &[PointExemplar],
        lower: f64,
        upper: f64,
    ) -> Result<(), OtlpError> {
        let inside = |exemplar: &&PointExemplar| {
            let value = value(exemplar);
            value > lower && value <= upper
        };
        let inside: Vec<&PointExemplar> = all.iter().filter(inside).collect();
        self.store_exemplars(labels, &inside)
    }

    fn exemplars(&mut self, labels: &Labels, all: &[PointExemplar]) -> Result<(), OtlpError> {
        self.store_exemplars(labels, &all.iter().collect::<Vec<_>>())
    }

    fn store_exemplars(&mut self, labels: &Labels, exemplars: &[&PointExemplar]) -> Result<(), OtlpError> {
        if exemplars.is_empty() {
            return Ok(());
        }
        self.charge(labels.size_bytes() + size_of::<ExemplarEntry>())?;
        self.charge(exemplars.len().saturating_mul(EXEMPLAR_BYTES))?;
        let first = index(self.out.exemplars.len());
        let mut converted: Vec<Exemplar> =
            exemplars.iter().map(|exemplar| convert(exemplar, self.options)).collect();
        converted.sort_by_key(|exemplar| exemplar.timestamp);
        self.out.exemplars.extend(converted);
        let exemplars = first..index(self.out.exemplars.len());
        let key = self.hasher.key(labels.to_string().as_bytes());
        self.out.exemplar_series.push(ExemplarEntry { key, exemplars });
        self.out.exemplar_labels.push(labels.clone());
        Ok(())
    }
}

fn index(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn value(exemplar: &PointExemplar) -> f64 {
    exemplar.as_int.map_or_else(|| exemplar.as_double.unwrap_or(0.0), |whole| whole as f64)
}

/// An exemplar with the ids of its trace, and its attributes where there is room for all of them.
fn convert(exemplar: &PointExemplar, options: &OtlpOptions) -> Exemplar {
    let mut labels = LabelSet::default();
    for (name, id) in [(TRACE_ID, &exemplar.trace_id), (SPAN_ID, &exemplar.span_id)] {
        if !id.is_empty() {
            labels.set(name, id.to_ascii_lowercase());
        }
    }
    let mut with_attributes = labels.clone();
    for attribute in sorted(&exemplar.filtered_attributes) {
        with_attributes.add(options.names, &attribute.key, &attribute.value.text());
    }
    let mut converted = Exemplar {
        labels: Labels::from_pairs(with_attributes.0),
        value: value(exemplar),
        timestamp: When::new(exemplar.time_unix_nano, 0).timestamp,
    };
    if converted.label_chars() > LABEL_CHARS_MAX {
        converted.labels = Labels::from_pairs(labels.0);
    }
    converted
}

/// `labels` with the metric name and perhaps one label more.
fn named(labels: &LabelSet, name: &str, extra: Option<(&str, String)>) -> Labels {
    let mut all = labels.clone();
    all.set(chronolith_model::METRIC_NAME, name);
    if let Some((name, value)) = extra {
        all.set(name, value);
    }
    Labels::from_pairs(all.0.into_iter().filter(|(_, value)| !value.is_empty()))
}

/// Attributes by their keys, so that values put together do not depend on the sender's order.
fn sorted(attributes: &[KeyValue]) -> Vec<&KeyValue> {
    let mut sorted: Vec<&KeyValue> = attributes.iter().collect();
    sorted.sort_by(|a, b| a.key.cmp(&b.key));
    sorted
}

fn value_of(attributes: &[KeyValue], key: &str) -> Option<String> {
    attributes.iter().find(|attribute| attribute.key == key).map(|attribute| attribute.value.text())
}

/// `service.namespace/service.name`
fn job(attributes: &[KeyValue]) -> Option<String> {
    let name = value_of(attributes, SERVICE_NAME)?;
    Some(match value_of(attributes, SERVICE_NAMESPACE) {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name,
    })
}
