//! What is told of refused samples: to the sender, and in the log.

use std::fmt::Write as _;

use chronolith_model::Timestamp;
use chronolith_storage::{AppendOutcome, RejectReason, Rejection, WriteBatch};

use crate::{
    notices::{Notices, cut},
    state::AppState,
};

/// The oldest and the newest timestamp that a request has of each series in [`AppendOutcome::rejections`].
pub(super) type Spans = Vec<Option<(Timestamp, Timestamp)>>;

/// See [`Spans`].
pub(super) fn spans(outcome: &AppendOutcome, batch: &WriteBatch<'_>) -> Spans {
    let span = |rejection: &Rejection| {
        let entry = batch.series.get(rejection.series)?;
        let samples = batch.samples_of(entry).iter().map(|sample| sample.timestamp);
        let times = samples.chain(batch.histograms_of(entry).iter().map(|sample| sample.timestamp));
        times.fold(None, |span: Option<(Timestamp, Timestamp)>, t| {
            Some(span.map_or((t, t), |(min, max)| (min.min(t), max.max(t))))
        })
    };
    outcome.rejections.iter().map(span).collect()
}

/// Counts the kinds of refusal of a request, and logs one of each kind, no more often than once a minute.
pub(super) fn note(state: &AppState, outcome: &AppendOutcome, spans: &Spans, peer: &str) {
    for (index, rejection) in outcome.rejections.iter().enumerate() {
        let label = rejection.reason.label();
        let earlier = outcome.rejections.iter().take(index);
        if earlier.clone().all(|earlier| earlier.reason.label() != label) {
            state.metrics().partial_writes.with(label).increment();
        }
        let kind = kind(rejection);
        if earlier.clone().any(|earlier| self::kind(earlier) == kind) {
            continue;
        }
        log(state.notices(), rejection, &kind, spans.get(index).copied().flatten(), peer);
    }
}

fn log(
    notices: &Notices,
    rejection: &Rejection,
    kind: &str,
    span: Option<(Timestamp, Timestamp)>,
    peer: &str,
) {
    let Some(requests) = notices.due(kind) else { return };
    let reason = rejection.reason.to_string();
    let series = rejection.labels.as_ref().map(ToString::to_string);
    let series = cut(&series.unwrap_or_else(|| named(&reason).to_owned()));
    let reason = cut(&format!("{reason}{}", detail(&rejection.reason, span)));
    let label = rejection.reason.label();
    tracing::warn!(
        kind = label,
        series,
        reason,
        peer,
        requests,
        "samples refused; more of this kind within a minute are not logged"
    );
}

/// What is logged apart from each other. Reasons about labels say what is wrong before they show the labels.
fn kind(rejection: &Rejection) -> String {
    let label = rejection.reason.label();
    match &rejection.reason {
        RejectReason::InvalidLabels(text) => {
            let what = text.split(|c: char| c == '{' || c.is_ascii_digit()).next().unwrap_or_default();
            format!("{label} {}", short(what))
        }
        _ => label.to_owned(),
    }
}

/// No label makes a kind of its own.
fn short(text: &str) -> &str {
    let end = (0..=24.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

/// The labels that a reason shows.
fn named(reason: &str) -> &str {
    let from = reason.find('{');
    let to = reason.rfind('}');
    from.zip(to).and_then(|(from, to)| reason.get(from..=to)).unwrap_or_default()
}

/// The first reasons, one a line, each with its series, and once for all samples of a series.
pub(super) fn reasons(outcome: &AppendOutcome, spans: &Spans) -> String {
    let same =
        |a: &Rejection, b: &Rejection| a.series == b.series && a.reason == b.reason && a.labels == b.labels;
    let mut text = String::new();
    for (index, rejection) in outcome.rejections.iter().enumerate() {
        if outcome.rejections.iter().take(index).any(|earlier| same(earlier, rejection)) {
            continue;
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&rejection.reason.to_string());
        // What is wrong with labels names them already.
        if let (Some(labels), false) =
            (&rejection.labels, matches!(rejection.reason, RejectReason::InvalidLabels(_)))
        {
            let _ = write!(text, " for series {labels}");
        }
        text.push_str(&detail(&rejection.reason, spans.get(index).copied().flatten()));
        let times = outcome.rejections.iter().filter(|other| same(other, rejection)).count();
        if times > 1 {
            let _ = write!(text, ", {times} times");
        }
    }
    let named = outcome.rejections.len() as u64;
    if outcome.rejected > named {
        let _ = write!(text, "\n{} samples refused, the first reasons are above", outcome.rejected);
    }
    text
}

/// When, and beyond which bound, for refusals because of their time.
fn detail(reason: &RejectReason, span: Option<(Timestamp, Timestamp)>) -> String {
    let Some((oldest, newest)) = span else { return String::new() };
    // Of a series, the oldest sample is refused first for being too old, the newest for being too new.
    let (t, bound) = match reason {
        RejectReason::OutOfOrder => (oldest, "older than the newest sample of the series"),
        RejectReason::TooOld => {
            (oldest, "more than storage.out_of_order_window behind the newest sample of the series")
        }
        RejectReason::OutOfBounds => (oldest, "older than storage.retention"),
        RejectReason::TooFarInFuture => (newest, "more than 10 minutes ahead of the clock of this server"),
        _ => return String::new(),
    };
    match jiff::Timestamp::from_millisecond(t) {
        Ok(time) => format!(" at {t} ({time}): {bound}"),
        Err(_) => format!(" at {t}: {bound}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about_labels(text: &str) -> Rejection {
        Rejection { reason: RejectReason::InvalidLabels(text.to_owned()), series: 0, labels: None }
    }

    #[test]
    fn faults_of_labels_are_told_apart_and_labels_are_not() {
        let twice = "invalid labels for series, labels {a=\"1\", a=\"2\"}, duplicated label a";
        let twice_too = "invalid labels for series, labels {b=\"1\", b=\"}\"}, duplicated label b";
        let long = "label name too long for series, labels {a=\"1\"}: 2000 bytes, the limit is 1024";
        let value =
            "label value too long for series, labels {a=\"1\"}: value of a has 20 bytes, the limit is 10";
        let many = "too many labels for series, labels {a=\"1\"}: 300 labels, the limit is 256";
        let kinds: Vec<_> = [twice, long, value, many].map(|text| kind(&about_labels(text))).to_vec();
        for (index, one) in kinds.iter().enumerate() {
            assert!(!kinds[index + 1..].contains(one), "{one}");
        }
        assert_eq!(kind(&about_labels(twice)), kind(&about_labels(twice_too)));
        assert_eq!(named(long), "{a=\"1\"}");
    }

    #[test]
    fn lines_of_a_series_are_one() {
        let mut outcome = AppendOutcome::default();
        for series in [3, 3, 5, 3] {
            outcome.reject(RejectReason::TooOld, series, None, 1);
        }
        let spans = vec![Some((0, 9)); 4];
        let bound = "more than storage.out_of_order_window behind the newest sample of the series";
        assert_eq!(
            reasons(&outcome, &spans),
            format!(
                "too old sample at 0 (1970-01-01T00:00:00Z): {bound}, 3 times\n\
                     too old sample at 0 (1970-01-01T00:00:00Z): {bound}"
            )
        );
    }
}
