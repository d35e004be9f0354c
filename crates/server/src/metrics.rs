//! Own counters: a small registry of atomics, without locks on any path that counts.

mod intake;

use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicU64, Ordering},
};

use chronolith_model::MetricType;
use chronolith_remote::exposition::{ExpositionWriter, HistogramSnapshot};
use chronolith_storage::RejectReason;
use tokio::sync::Semaphore;

use crate::{
    query_log::QueryLog,
    routes::Endpoint,
    state::{ANSWER_MEMORY_UNIT, AppState},
};

pub use intake::IntakeMetrics;

/// Counts up.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `by`.
    pub fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// The count.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A level.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Adds `by`, which may be negative.
    pub fn add(&self, by: i64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    /// Sets the level.
    pub fn set(&self, level: i64) {
        self.0.store(level, Ordering::Relaxed);
    }

    /// The level.
    #[must_use]
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts one for as long as the guard lives.
    #[must_use]
    pub fn hold(&self) -> GaugeGuard<'_> {
        self.add(1);
        GaugeGuard(self)
    }
}

/// See [`Gauge::hold`].
#[derive(Debug)]
pub struct GaugeGuard<'a>(&'a Gauge);

impl Drop for GaugeGuard<'_> {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}

/// The most buckets of a [`Histogram`], `+Inf` included.
pub const BUCKETS_MAX: usize = 16;

/// Observations in fixed buckets.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    counts: [AtomicU64; BUCKETS_MAX],
    /// Bits of a float.
    sum: AtomicU64,
}

impl Histogram {
    /// A histogram with these upper bounds, ascending, `+Inf` left out.
    ///
    /// # Panics
    /// When there are [`BUCKETS_MAX`] bounds or more.
    #[must_use]
    pub fn new(bounds: &'static [f64]) -> Self {
        assert!(bounds.len() < BUCKETS_MAX, "bounds are constants of this crate's users, chosen to fit");
        Self { bounds, counts: std::array::from_fn(|_| AtomicU64::new(0)), sum: AtomicU64::new(0) }
    }

    /// Counts `value`.
    pub fn observe(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let add = |bits| Some((f64::from_bits(bits) + value).to_bits());
        let _ = self.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Observations so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Writes the sample lines; the family is the caller's.
    pub fn write(&self, name: &str, labels: &[(&str, &str)], out: &mut ExpositionWriter<'_>) {
        let counts: Vec<u64> = self
            .counts
            .iter()
            .take(self.bounds.len() + 1)
            .map(|count| count.load(Ordering::Relaxed))
            .collect();
        let sum = f64::from_bits(self.sum.load(Ordering::Relaxed));
        out.histogram(name, labels, &HistogramSnapshot { bounds: self.bounds, counts: &counts, sum });
    }
}

/// A counter per value of one label. The values are fixed; what is none of them counts as `other`.
#[derive(Debug)]
pub struct CounterVec<const N: usize> {
    values: [&'static str; N],
    counters: [Counter; N],
    other: Counter,
}

impl<const N: usize> CounterVec<N> {
    /// Counters for these label values.
    #[must_use]
    pub fn new(values: [&'static str; N]) -> Self {
        Self { values, counters: std::array::from_fn(|_| Counter::default()), other: Counter::default() }
    }

    /// The counter of `value`.
    #[must_use]
    pub fn with(&self, value: &str) -> &Counter {
        let index = self.values.iter().position(|known| *known == value);
        index.map_or(&self.other, |index| &self.counters[index])
    }

    /// Writes a family.
    pub fn write(&self, name: &str, help: &str, label: &str, out: &mut ExpositionWriter<'_>) {
        out.family(name, MetricType::Counter, help);
        for (value, counter) in self.values.iter().zip(&self.counters) {
            out.sample(name, &[(label, value)], counter.get() as f64);
        }
        if self.other.get() > 0 {
            out.sample(name, &[(label, "other")], self.other.get() as f64);
        }
    }
}

/// Seconds. Those of Prometheus' `http_request_duration_seconds`, and finer ones for remote write.
const DURATION_BOUNDS: [f64; 13] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 1.0, 3.0, 8.0, 20.0];

/// The statuses that are counted apart.
const CODES: [&str; 14] =
    ["200", "204", "301", "308", "400", "403", "404", "405", "408", "413", "415", "422", "500", "503"];

/// What the door counts.
#[derive(Debug, Default)]
pub struct ConnectionMetrics {
    /// Connections that have a place.
    pub open: Gauge,
    /// Connections that were given a place.
    pub accepted: Counter,
    /// Connections that waited for a request and were closed so that others had a place.
    pub closed_idle: Counter,
    /// Connections that found no place.
    pub refused: Counter,
    /// Connections that the operating system could not hand over, for want of file descriptors for example.
    pub failed: Counter,
}

impl ConnectionMetrics {
    fn write(&self, out: &mut ExpositionWriter<'_>) {
        let open = self.open.get() as f64;
        out.gauge("chronolith_http_connections_open", "Open connections, refused ones not counted.", open);
        for (name, help, counter) in [
            ("chronolith_http_connections_accepted_total", "Connections that were let in.", &self.accepted),
            (
                "chronolith_http_connections_closed_idle_total",
                "Connections closed while they waited for a request, since http.connection_limit was reached.",
                &self.closed_idle,
            ),
            (
                "chronolith_http_connections_refused_total",
                "Connections answered 503, or closed, since all others were answering requests.",
                &self.refused,
            ),
            (
                "chronolith_http_connections_failed_total",
                "Connections that could not be accepted, for want of file descriptors for example.",
                &self.failed,
            ),
        ] {
            out.counter(name, help, counter.get());
        }
    }
}

/// What the HTTP side counts.
#[derive(Debug)]
pub struct HttpMetrics {
    /// Connections. Shared with the accept loop.
    pub connections: Arc<ConnectionMetrics>,
    requests: [CounterVec<14>; Endpoint::COUNT],
    durations: [Histogram; Endpoint::COUNT],
    /// Requests whose client went away before the answer.
    pub disconnects: Counter,
    /// Remote writes being handled.
    pub writes_in_flight: Gauge,
    /// Remote writes that were turned away for want of a place or memory.
    pub writes_overloaded: Counter,
    /// Remote writes that could not be made durable.
    pub writes_unavailable: Counter,
    /// Compressed bytes of remote writes.
    pub write_bytes: Counter,
    /// Samples stored by remote write.
    pub samples_stored: Counter,
    /// Samples of remote write that were there already.
    pub samples_duplicate: Counter,
    /// Float samples of remote write refused; storage counts them by reason.
    pub samples_rejected: Counter,
    /// Histogram samples of remote write that were invalid, or are not stored at all.
    pub histograms_rejected: Counter,
    /// Remote writes that were taken in part, by each reason among their first refusals.
    pub partial_writes: CounterVec<{ RejectReason::LABELS.len() }>,
    /// Exemplars of remote write that were not stored.
    pub exemplars_ignored: Counter,
    /// Metadata entries of remote write kept.
    pub metadata_stored: Counter,
    /// Metadata entries of remote write left out: nameless, not text, or above the limit.
    pub metadata_ignored: Counter,
    /// What came in as OTLP.
    pub otlp: IntakeMetrics,
    /// What came in as Influx line protocol.
    pub influx: IntakeMetrics,
    /// Queries being evaluated or waiting.
    pub queries_in_flight: Gauge,
    /// Answers that were turned into 503 because too many large ones were being sent.
    pub answers_overloaded: Counter,
}

impl Default for HttpMetrics {
    fn default() -> Self {
        Self {
            connections: Arc::default(),
            requests: std::array::from_fn(|_| CounterVec::new(CODES)),
            durations: std::array::from_fn(|_| Histogram::new(&DURATION_BOUNDS)),
            disconnects: Counter::default(),
            writes_in_flight: Gauge::default(),
            writes_overloaded: Counter::default(),
            writes_unavailable: Counter::default(),
            write_bytes: Counter::default(),
            samples_stored: Counter::default(),
            samples_duplicate: Counter::default(),
            samples_rejected: Counter::default(),
            histograms_rejected: Counter::default(),
            partial_writes: CounterVec::new(RejectReason::LABELS),
            exemplars_ignored: Counter::default(),
            metadata_stored: Counter::default(),
            metadata_ignored: Counter::default(),
            otlp: IntakeMetrics::default(),
            influx: IntakeMetrics::default(),
            queries_in_flight: Gauge::default(),
            answers_overloaded: Counter::default(),
        }
    }
}

impl HttpMetrics {
    pub(crate) fn request(&self, endpoint: Endpoint, status: u16, seconds: f64) {
        let index = endpoint as usize;
        if let (Some(requests), Some(durations)) = (self.requests.get(index), self.durations.get(index)) {
            requests.with(itoa::Buffer::new().format(status)).increment();
            durations.observe(seconds);
        }
    }

    fn write(&self, out: &mut ExpositionWriter<'_>) {
        let name = "chronolith_http_requests_total";
        out.family(name, MetricType::Counter, "HTTP requests by route and status.");
        for (endpoint, requests) in Endpoint::ALL.iter().zip(&self.requests) {
            for (code, counter) in requests.values.iter().zip(&requests.counters) {
                if counter.get() > 0 {
                    out.sample(name, &[("handler", endpoint.path()), ("code", code)], counter.get() as f64);
                }
            }
            if requests.other.get() > 0 {
                let labels = [("handler", endpoint.path()), ("code", "other")];
                out.sample(name, &labels, requests.other.get() as f64);
            }
        }
        let name = "chronolith_http_request_duration_seconds";
        out.family(name, MetricType::Histogram, "Time from the head of a request to its answer.");
        for (endpoint, durations) in Endpoint::ALL.iter().zip(&self.durations) {
            if durations.count() > 0 {
                durations.write(name, &[("handler", endpoint.path())], out);
            }
        }
        let name = "chronolith_http_client_disconnects_total";
        out.counter(name, "Requests whose client went away before the answer.", self.disconnects.get());
        self.connections.write(out);
        self.write_remote_write(out);
        self.otlp.write("otlp", "OTLP", out);
        self.influx.write("influx", "Influx line protocol", out);
        let name = "chronolith_http_queries_in_flight";
        out.gauge(name, "Queries running or waiting for their turn.", self.queries_in_flight.get() as f64);
        let name = "chronolith_http_answers_overloaded_total";
        let help = "Answers replaced by 503 because too many large ones were being sent.";
        out.counter(name, help, self.answers_overloaded.get());
    }

    fn write_remote_write(&self, out: &mut ExpositionWriter<'_>) {
        let in_flight = self.writes_in_flight.get() as f64;
        out.gauge("chronolith_remote_write_in_flight", "Remote writes being handled.", in_flight);
        for (name, help, counter) in [
            (
                "chronolith_remote_write_overloaded_total",
                "Remote writes answered 503 because too many were in flight.",
                &self.writes_overloaded,
            ),
            (
                "chronolith_remote_write_unavailable_total",
                "Remote writes answered 503 because storage could not take or keep them.",
                &self.writes_unavailable,
            ),
            ("chronolith_remote_write_bytes_total", "Compressed bytes of remote writes.", &self.write_bytes),
            (
                "chronolith_remote_write_samples_total",
                "Samples stored by remote write.",
                &self.samples_stored,
            ),
            (
                "chronolith_remote_write_samples_duplicate_total",
                "Samples of remote write that were there already, with the same value.",
                &self.samples_duplicate,
            ),
            (
                "chronolith_remote_write_samples_rejected_total",
                "Float samples of remote write that were refused.",
                &self.samples_rejected,
            ),
            (
                "chronolith_remote_write_histograms_rejected_total",
                "Native histogram samples of remote write that were invalid, or are not stored.",
                &self.histograms_rejected,
            ),
            (
                "chronolith_remote_write_exemplars_ignored_total",
                "Exemplars of remote write that were not stored.",
                &self.exemplars_ignored,
            ),
            (
                "chronolith_remote_write_metadata_total",
                "Metadata entries kept of remote write.",
                &self.metadata_stored,
            ),
            (
                "chronolith_remote_write_metadata_ignored_total",
                "Metadata entries of remote write without name, not UTF-8, or above the limit.",
                &self.metadata_ignored,
            ),
        ] {
            out.counter(name, help, counter.get());
        }
        let help = "Remote writes with refused samples, by each reason among the first refusals.";
        self.partial_writes.write("chronolith_remote_write_partial_total", help, "reason", out);
    }
}

/// The text of `/metrics`.
pub(crate) fn exposition(state: &AppState) -> String {
    let mut text = String::with_capacity(16 * 1024);
    let mut out = ExpositionWriter::new(&mut text);
    let ready = f64::from(u8::from(state.is_ready()));
    out.gauge("chronolith_ready", "1 when requests are answered, 0 while starting and stopping.", ready);
    state.metrics().write(&mut out);
    let (limits, gates) = (state.limits(), state.gates());
    let taken = |max: usize, gate: &Semaphore| max.max(1).saturating_sub(gate.available_permits());
    let running = taken(limits.label_queries_in_flight_max, &gates.label_queries);
    let help = "Queries for labels, series and metadata, and requests that only parse, at work.";
    out.gauge("chronolith_http_label_queries_running", help, running as f64);
    let units = taken(limits.answer_memory_max_bytes / ANSWER_MEMORY_UNIT, &gates.answer_memory);
    let help = "Bytes of large answers that are being sent.";
    out.gauge("chronolith_http_answer_bytes", help, (units * ANSWER_MEMORY_UNIT) as f64);
    let log = state.query_log();
    let help = "1 where queries are logged.";
    out.gauge("chronolith_query_log_enabled", help, f64::from(u8::from(log.is_some())));
    let help = "Queries that are missing in the query log: the disk refused them, or was too slow.";
    out.counter("chronolith_query_log_failures_total", help, log.map_or(0, QueryLog::failures));
    let results = state.engine().result_cache();
    let help = "Memory of results of range queries that are kept.";
    out.gauge("chronolith_result_cache_bytes", help, results.bytes as f64);
    out.gauge("chronolith_result_cache_results", "How many there are.", results.results as f64);
    out.counter("chronolith_result_cache_hits_total", "Range queries that have used one.", results.hits);
    let memory = &state.engine().options().memory;
    let help = "Memory that head, bodies, answers and queries may take together.";
    out.gauge("chronolith_memory_limit_bytes", help, memory.max() as f64);
    let help =
        "Memory they have reserved: the head its whole limit, HTTP its limits, queries what they hold.";
    out.gauge("chronolith_memory_reserved_bytes", help, memory.used() as f64);
    let help = "Requests for memory that was not left; the queries concerned got 503.";
    out.counter("chronolith_memory_refused_total", help, memory.refused());
    state.info().write_metrics(&mut out);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_inside_its_bucket() {
        let histogram = Histogram::new(&[1.0, 2.0]);
        for value in [0.5, 1.0, 1.5, 2.0, 3.0, f64::INFINITY] {
            histogram.observe(value);
        }
        let mut text = String::new();
        histogram.write("h", &[], &mut ExpositionWriter::new(&mut text));
        assert_eq!(
            text,
            "h_bucket{le=\"1\"} 2\nh_bucket{le=\"2\"} 4\nh_bucket{le=\"+Inf\"} 6\nh_sum +Inf\nh_count 6\n"
        );
    }

    #[test]
    fn unknown_label_values_share_one_counter() {
        let counters = CounterVec::new(["a", "b"]);
        counters.with("a").increment();
        counters.with("never heard of").add(2);
        counters.with("another").increment();
        let mut text = String::new();
        counters.write("c_total", "Help.", "l", &mut ExpositionWriter::new(&mut text));
        assert!(text.ends_with("c_total{l=\"a\"} 1\nc_total{l=\"b\"} 0\nc_total{l=\"other\"} 3\n"), "{text}");
    }

    #[test]
    fn a_gauge_counts_what_is_held() {
        let gauge = Gauge::default();
        let first = gauge.hold();
        let second = gauge.hold();
        drop(first);
        assert_eq!(gauge.get(), 1);
        drop(second);
        assert_eq!(gauge.get(), 0);
    }
}
