//! A histogram by itself, as the log and the buffer of late ones have it: a chunk of one sample.

use std::sync::Arc;

use chronolith_chunk::histogram::{HistogramAppender, HistogramIter};
use chronolith_model::{CounterResetHint, Histogram, TimeRange, Timestamp};

use super::HISTOGRAM_CHUNK_BYTES_MAX;
use crate::{
    closed::{ChunkKind, ClosedChunk, histogram_at},
    late::LateValue,
};

/// What an allocation costs beyond its bytes, about, and the counters of an `Arc`.
const OVERHEAD_BYTES: usize = 24;

/// A histogram as a chunk of one sample, encoded or checked by this process.
#[derive(Clone, Debug)]
pub(crate) struct OneHistogram(Arc<[u8]>);

/// Writes a histogram into `out` as a chunk of one sample that is read with `hint`.
pub(crate) fn encode_one(out: &mut Vec<u8>, t: Timestamp, histogram: &Histogram, hint: CounterResetHint) {
    let _ = begin(out, t, histogram, hint);
}

/// Begins a chunk whose first sample is read with `hint`.
pub(super) fn begin(
    out: &mut Vec<u8>,
    t: Timestamp,
    histogram: &Histogram,
    hint: CounterResetHint,
) -> HistogramAppender {
    match hint {
        // A histogram goes on from itself.
        CounterResetHint::NotReset => HistogramAppender::start(out, t, histogram, Some(histogram)),
        CounterResetHint::Reset if histogram.hint() != hint => {
            let mut histogram = histogram.clone();
            histogram.set_hint(hint);
            HistogramAppender::start(out, t, &histogram, None)
        }
        _ => HistogramAppender::start(out, t, histogram, None),
    }
}

/// The histogram that is all of `chunk`; `None` for other bytes.
pub(crate) fn decode_one(chunk: &[u8]) -> Option<(Timestamp, Histogram)> {
    let mut samples = HistogramIter::new(chunk).ok().filter(|samples| samples.count() == 1)?;
    samples.next()?.ok()
}

impl OneHistogram {
    /// A copy of what [`encode_one`] has written.
    pub(crate) fn new(chunk: &[u8]) -> Self {
        Self(Arc::from(chunk))
    }

    /// What it is.
    pub(crate) fn histogram(&self) -> Histogram {
        decode_one(&self.0).expect("encoded or checked by this process").1
    }
}

impl LateValue for OneHistogram {
    type Value = Histogram;

    fn value(&self) -> Histogram {
        self.histogram()
    }

    fn heap_bytes(&self) -> usize {
        self.0.len() + OVERHEAD_BYTES
    }

    fn decode(chunk: &ClosedChunk) -> Vec<(Timestamp, Histogram)> {
        chunk.histograms(TimeRange::ALL).expect("encoded by this process and kept in memory")
    }

    fn at(chunk: &[u8], t: Timestamp) -> Option<Histogram> {
        histogram_at(chunk, t)
    }

    /// What is known about the counter is found out anew within each chunk; of the first sample it is what was sent.
    fn encode(samples: &[(Timestamp, Histogram)], into: &mut Vec<ClosedChunk>) {
        let mut bytes = Vec::new();
        let mut open: Option<(HistogramAppender, Timestamp)> = None;
        for (t, histogram) in samples {
            if let Some((appender, min)) = &mut open {
                let full = appender.is_large(&bytes) || bytes.len() > HISTOGRAM_CHUNK_BYTES_MAX / 2;
                if !full && appender.append(&mut bytes, *t, histogram).expect("pieces are small") {
                    continue;
                }
                into.push(closed(appender, *min, &bytes));
            }
            open = Some((HistogramAppender::start(&mut bytes, *t, histogram, None), *t));
        }
        if let Some((appender, min)) = &open {
            into.push(closed(appender, *min, &bytes));
        }
    }
}

/// The chunk that an appender has written, from `min` on.
pub(super) fn closed(appender: &HistogramAppender, min: Timestamp, bytes: &[u8]) -> ClosedChunk {
    ClosedChunk::new(ChunkKind::Histogram, min, appender.last_timestamp(), appender.count(), bytes)
}
