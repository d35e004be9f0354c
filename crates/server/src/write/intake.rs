//! What the protocols beside remote write have in common: a place among the writes at work, memory for the body and what
//! becomes of it, and storing a batch.

use std::io::Read as _;

use axum::{
    body::{Body, Bytes},
    http::{header, request::Parts},
};
use chronolith_model::{
    Labels, METRIC_NAME, TenantId,
    labels::{LABELS_BYTES_MAX, LABELS_MAX},
};
use chronolith_remote::remote_write::DecodeLimits;
use chronolith_storage::{
    AppendOutcome, ExemplarBatch, LabelFault, LabelSource, RejectReason, SeriesEntry, StorageError,
    WriteBatch,
};
use flate2::read::MultiGzDecoder;
use tokio::{runtime::Handle, sync::OwnedSemaphorePermit};

use super::{WriteError, refused, shown, turn, turn_for_bytes};
use crate::{
    metrics::IntakeMetrics,
    routes::read_body,
    state::{AppState, Backend, WRITE_MEMORY_UNIT},
};

/// How much of a compressed body is decompressed at a time, at least.
const INFLATE_BYTES: usize = 64 << 10;
/// How many bytes of labels a refusal shows.
const SHOWN_BYTES_MAX: usize = 1024;

/// A request whose turn has come: its body, and the memory it has taken. Both are held until its samples are durable, also
/// when the sender has gone away meanwhile.
pub(super) struct Incoming {
    state: AppState,
    body: Bytes,
    gzip: bool,
    _turn: OwnedSemaphorePermit,
    memory: OwnedSemaphorePermit,
}

impl Incoming {
    /// Waits for a place and reads the body.
    pub(super) async fn receive(state: &AppState, parts: &Parts, body: Body) -> Result<Self, WriteError> {
        let encoding = shown(parts.headers.get(header::CONTENT_ENCODING));
        let gzip = match encoding.as_str() {
            "" | "identity" => false,
            "gzip" => true,
            _ => {
                return Err(WriteError::UnsupportedMedia(format!(
                    "unsupported compression: {encoding}. Only \"gzip\" or no compression supported"
                )));
            }
        };
        let limits = state.limits();
        let declared = parts.headers.get(header::CONTENT_LENGTH);
        let declared = declared.and_then(|value| value.to_str().ok()?.parse().ok());
        let bytes_max = limits.write_body_max_bytes;
        let turn = turn(state, &state.gates().writes, 1).await?;
        // A body without a declared length may become as long as is allowed.
        let memory = turn_for_bytes(state, declared.unwrap_or(bytes_max).min(bytes_max)).await?;
        let body = read_body(body, bytes_max, limits).await?;
        Ok(Self { state: state.clone(), body, gzip, _turn: turn, memory })
    }

    /// Bytes of the body as it was sent.
    pub(super) fn sent_bytes(&self) -> usize {
        self.body.len()
    }

    /// Most bytes of memory that one request may take.
    pub(super) fn bytes_max(&self) -> usize {
        self.state.limits().write_memory_max_bytes / 2
    }

    /// Takes `bytes` more, as far as one request may: as for remote write, it gets on with half of all there is. Returns
    /// what it got. Blocks.
    pub(super) fn take(&mut self, bytes: usize) -> Result<usize, WriteError> {
        let held = self.memory.num_permits().saturating_mul(WRITE_MEMORY_UNIT);
        let bytes = bytes.min(self.bytes_max().saturating_sub(held));
        if bytes > 0 {
            let more = Handle::current().block_on(turn_for_bytes(&self.state, bytes))?;
            self.memory.merge(more);
        }
        Ok(bytes)
    }

    /// Gives `bytes` of it back.
    pub(super) fn give_back(&mut self, bytes: usize) {
        drop(self.memory.split((bytes / WRITE_MEMORY_UNIT).min(self.memory.num_permits())));
    }

    /// The body, decompressed; memory for it is taken as it grows. Blocks.
    pub(super) fn content(&mut self) -> Result<Bytes, WriteError> {
        if !self.gzip {
            return Ok(self.body.clone());
        }
        let body = std::mem::take(&mut self.body);
        let limit = self.state.limits().write_decoded_max_bytes;
        let mut content = Vec::new();
        let mut decoder = MultiGzDecoder::new(&body[..]);
        loop {
            // Doubled, so that growing costs no more than twice the bytes; one more than the limit shows that it is passed.
            let step = content.len().max(INFLATE_BYTES).min(limit + 1 - content.len());
            self.take(step)?;
            content.reserve_exact(step);
            let before = content.len();
            let read = (&mut decoder).take(step as u64).read_to_end(&mut content);
            read.map_err(|error| WriteError::Compressed(format!("gzip: {error}")))?;
            if content.len() > limit {
                let text = format!("gzip: decompressed body is longer than the limit of {limit} bytes");
                return Err(WriteError::Compressed(text));
            }
            if content.len() - before < step {
                return Ok(Bytes::from(content));
            }
        }
    }
}

/// Appends `batch`, waits until it is durable, counts and logs what was refused. Blocks.
pub(super) fn store(
    state: &AppState,
    backend: &Backend,
    batch: &WriteBatch<'_>,
    metrics: &IntakeMetrics,
    peer: &str,
) -> Result<AppendOutcome, StorageError> {
    let mut outcome = AppendOutcome::default();
    let limits = &state.limits().decode;
    // Histograms are for those alone who store them.
    let stores = backend.appender.stores().histograms;
    let kept: Vec<usize> = batch
        .series
        .iter()
        .enumerate()
        .filter(|(_, entry)| stores || entry.histograms.is_empty())
        .map(|(index, _)| index)
        .collect();
    let labels = Checked { inner: batch.labels, kept: &kept, limits };
    if !kept.is_empty() {
        let series: Vec<SeriesEntry> =
            kept.iter().filter_map(|index| batch.series.get(*index).cloned()).collect();
        let histograms = if stores { batch.histograms } else { &[] };
        let batch = WriteBatch { series: &series, samples: batch.samples, histograms, labels: &labels };
        let appended = backend.appender.append(&TenantId::default(), &batch)?;
        // Also when nothing was stored: what was found to be there already may still be on its way to the disk.
        appended.ticket.wait()?;
        outcome = appended.outcome;
    }
    for rejection in &mut outcome.rejections {
        if rejection.labels.is_none() {
            rejection.labels = labels.labels(rejection.series).ok();
        }
    }
    if kept.len() < batch.series.len() {
        for (index, entry) in batch.series.iter().enumerate().filter(|(_, e)| !e.histograms.is_empty()) {
            let known = batch.labels.labels(index).ok();
            outcome.reject(RejectReason::HistogramsUnsupported, index, known.as_ref(), entry.len() as u64);
        }
    }
    metrics.stored.add(outcome.stored);
    metrics.duplicate.add(outcome.duplicates);
    metrics.rejected.add(outcome.rejected);
    refused::note(state, &outcome, peer);
    Ok(outcome)
}

/// Hands exemplars on; nobody is refused a request for them.
pub(super) fn store_exemplars(backend: &Backend, batch: &ExemplarBatch<'_>, metrics: &IntakeMetrics) {
    if !batch.series.is_empty() {
        let taken = backend.appender.append_exemplars(&TenantId::default(), batch);
        metrics.exemplars_ignored.add(taken.dropped + taken.out_of_order);
    }
}

/// Labels within the limits on those of remote write.
struct Checked<'a> {
    inner: &'a dyn LabelSource,
    /// Which entries of the request the batch has.
    kept: &'a [usize],
    limits: &'a DecodeLimits,
}

impl LabelSource for Checked<'_> {
    fn labels(&self, series: usize) -> Result<Labels, RejectReason> {
        let labels = self.inner.labels(self.kept.get(series).copied().unwrap_or(usize::MAX))?;
        let limits = self.limits;
        let invalid = |fault, what: &str, behind: &str| {
            let text = labels.to_string();
            let cut = text.floor_char_boundary(SHOWN_BYTES_MAX);
            let dots = if cut < text.len() { "..." } else { "" };
            let text = format!("{what}{}{dots}{behind}", &text[..cut]);
            Err(RejectReason::InvalidLabels { fault, text })
        };
        let labels_max = limits.labels_per_series_max.min(LABELS_MAX);
        if labels.len() > labels_max {
            let behind = format!(": {} labels, the limit is {labels_max}", labels.len());
            return invalid(LabelFault::TooMany, "too many labels for series, labels ", &behind);
        }
        if labels.size_bytes() > LABELS_BYTES_MAX {
            let behind = format!(": {} bytes, the limit is {LABELS_BYTES_MAX}", labels.size_bytes());
            return invalid(LabelFault::TooLong, "labels too long for series, labels ", &behind);
        }
        for (name, value) in labels.iter() {
            if name.len() > limits.label_name_bytes_max {
                let behind = format!(": {} bytes, the limit is {}", name.len(), limits.label_name_bytes_max);
                return invalid(LabelFault::NameTooLong, "label name too long for series, labels ", &behind);
            }
            if value.len() > limits.label_value_bytes_max {
                let (bytes, most) = (value.len(), limits.label_value_bytes_max);
                let behind = format!(": value of {name:?} has {bytes} bytes, the limit is {most}");
                return invalid(
                    LabelFault::ValueTooLong,
                    "label value too long for series, labels ",
                    &behind,
                );
            }
        }
        match labels.get(METRIC_NAME) {
            Some(_) => Ok(labels),
            None => invalid(LabelFault::NoMetricName, "invalid metric name or labels, got ", ""),
        }
    }
}
