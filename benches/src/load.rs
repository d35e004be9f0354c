//! Remote-write requests made from the recorded hour, encoded before the clock starts.
//!
//! The recording is multiplied by renaming `instance`; each copy starts at another place of the recording and is
//! scraped at another phase of the interval. Samples go out as Prometheus sends them: every sample in a `TimeSeries`
//! of its own with its full labels, all series at one step before any series at the next.

use std::path::Path;

use anyhow::{Result, ensure};
use chronolith_e2e::remote_write::{WriteRequest, encode_labels};
use chronolith_testkit::data::{RECORDING_FILE, RecordedSeries, Recording, Replay};

/// Time between two samples of a series in ms.
pub const STEP_MS: i64 = 15_000;
/// Samples in a request, as Prometheus' default.
pub const SAMPLES_PER_REQUEST: usize = 2_000;

/// The size and the place in time of a load.
#[derive(Debug, Clone)]
pub struct LoadSpec {
    /// Number of series.
    pub series: usize,
    /// Samples per series.
    pub steps: usize,
    /// Connections; each series stays on one, so its order is kept.
    pub connections: usize,
    /// Time of the last step in ms.
    pub end_ms: i64,
}

/// Requests ready to send: one list per connection, in order.
#[derive(Debug)]
pub struct Load {
    /// What was asked for.
    pub spec: LoadSpec,
    /// Compressed bodies by connection.
    pub bodies: Vec<Vec<Body>>,
    /// Compressed bytes of all bodies.
    pub bytes: usize,
}

/// A compressed request body.
#[derive(Debug)]
pub struct Body {
    /// The snappy block.
    pub bytes: Vec<u8>,
    /// How many samples are in it.
    pub samples: usize,
}

/// A generated series: a recorded one seen by one copy.
struct Source<'a> {
    labels: Vec<u8>,
    recorded: &'a RecordedSeries,
    offset: usize,
    phase_ms: i64,
}

impl LoadSpec {
    /// Samples of the whole load.
    #[must_use]
    pub fn samples(&self) -> usize {
        self.series * self.steps
    }

    /// Time of the first step in ms.
    #[must_use]
    pub fn start_ms(&self) -> i64 {
        self.end_ms - (self.steps as i64 - 1) * STEP_MS
    }
}

impl Load {
    /// Reads the recording in `data` and encodes all requests, one thread per connection.
    ///
    /// # Errors
    /// The recording cannot be read, or is too short for the number of steps.
    pub fn generate(spec: &LoadSpec, data: &Path) -> Result<Self> {
        let mut recorded = Vec::new();
        for series in Recording::open(&data.join(RECORDING_FILE), Replay::default())? {
            let series = series?;
            if series.samples.len() >= spec.steps {
                recorded.push(series);
            }
        }
        ensure!(!recorded.is_empty(), "no recorded series has {} samples", spec.steps);
        if spec.series < recorded.len() {
            // A small load takes its series from everywhere in the recording, not only from its first programs.
            let all = recorded.len();
            let mut at = 0;
            recorded.retain(|_| {
                at += 1;
                at * spec.series / all != (at - 1) * spec.series / all
            });
        }
        let sources: Vec<Source<'_>> = (0..spec.series).map(|i| source(&recorded, i, spec)).collect();
        let bodies: Vec<Vec<Body>> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..spec.connections)
                .map(|c| {
                    let sources = &sources;
                    scope.spawn(move || encode_connection(sources, c, spec))
                })
                .collect();
            workers.into_iter().map(|w| w.join().expect("an encoding thread does not panic")).collect()
        });
        let bytes = bodies.iter().flatten().map(|b| b.bytes.len()).sum();
        Ok(Self { spec: spec.clone(), bodies, bytes })
    }
}

fn source<'a>(recorded: &'a [RecordedSeries], index: usize, spec: &LoadSpec) -> Source<'a> {
    let series = &recorded[index % recorded.len()];
    let copy = index / recorded.len();
    let instance = series.labels.get("instance").unwrap_or_default();
    let port = instance.rsplit(':').next().unwrap_or("9100");
    let renamed = format!("10.1.{}.{}:{port}", copy / 250, copy % 250);
    let labels = encode_labels(
        series.labels.iter().map(|(n, v)| (n, if n == "instance" { renamed.as_str() } else { v })),
    );
    // Room behind the offset for all steps, so that no copy wraps around and shows resets that never were.
    let room = series.samples.len() - spec.steps + 1;
    let target = port.bytes().fold(copy as i64, |h, b| h.wrapping_mul(31).wrapping_add(i64::from(b)));
    Source { labels, recorded: series, offset: (copy * 137) % room, phase_ms: target.rem_euclid(STEP_MS) }
}

fn encode_connection(sources: &[Source<'_>], connection: usize, spec: &LoadSpec) -> Vec<Body> {
    let mut bodies = Vec::new();
    let mut request = WriteRequest::new();
    let mut flush = |request: &mut WriteRequest| {
        let samples = request.sample_count();
        bodies.push(Body { bytes: request.take_body(), samples });
    };
    for step in 0..spec.steps {
        let nominal = spec.start_ms() + step as i64 * STEP_MS - STEP_MS;
        for source in sources.iter().skip(connection).step_by(spec.connections) {
            let at = source.offset + step;
            let time = nominal + source.phase_ms + jitter_ms(source.recorded, at);
            request.push_sample(&source.labels, time, source.recorded.samples[at].value);
            if request.sample_count() == SAMPLES_PER_REQUEST {
                flush(&mut request);
            }
        }
    }
    if request.sample_count() > 0 {
        flush(&mut request);
    }
    bodies
}

/// How far the recorded scrape was from its place in the one-second raster: the jitter that stretching must keep.
fn jitter_ms(series: &RecordedSeries, at: usize) -> i64 {
    (series.samples[at].timestamp - series.samples[0].timestamp + 500).rem_euclid(1000) - 500
}
