//! What is told of refused samples: to the sender, and in the log.

use std::fmt::Write as _;

use chronolith_storage::{AppendOutcome, RejectReason, Rejection, SampleAt, SampleKind};

use crate::{
    notices::{Notices, cut},
    state::AppState,
};

/// Counts the kinds of refusal of a request, and logs one of each kind, no more often than once a minute.
pub(super) fn note(state: &AppState, outcome: &AppendOutcome, peer: &str) {
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
        log(state.notices(), rejection, &kind, peer);
    }
}

fn log(notices: &Notices, rejection: &Rejection, kind: &str, peer: &str) {
    let Some(requests) = notices.due(kind) else { return };
    let reason = rejection.reason.to_string();
    let series = rejection.labels.as_ref().map(ToString::to_string);
    let series = cut(&series.unwrap_or_else(|| named(&reason).to_owned()));
    let reason = cut(&format!("{reason}{}", detail(rejection)));
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

/// What is logged apart from each other. No label makes a kind of its own.
fn kind(rejection: &Rejection) -> String {
    let label = rejection.reason.label();
    match &rejection.reason {
        RejectReason::InvalidLabels { fault, .. } => format!("{label} {}", fault.label()),
        _ => label.to_owned(),
    }
}

/// The labels that a reason shows.
fn named(reason: &str) -> &str {
    let from = reason.find('{');
    let to = reason.rfind('}');
    from.zip(to).and_then(|(from, to)| reason.get(from..=to)).unwrap_or_default()
}

/// The first reasons, one a line, each with its series, and once for all samples of a series.
pub(super) fn reasons(outcome: &AppendOutcome) -> String {
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
            (&rejection.labels, matches!(rejection.reason, RejectReason::InvalidLabels { .. }))
        {
            let _ = write!(text, " for series {labels}");
        }
        text.push_str(&detail(rejection));
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

/// Which sample, and beyond which bound, for refusals because of its time.
fn detail(rejection: &Rejection) -> String {
    let bound = match rejection.reason {
        RejectReason::OutOfOrder => "older than the newest sample of the series",
        RejectReason::TooOld => {
            "more than storage.out_of_order_window behind the newest sample of the series"
        }
        RejectReason::OutOfBounds => "older than storage.retention",
        RejectReason::TooFarInFuture => "more than 10 minutes ahead of the clock of this server",
        _ => return String::new(),
    };
    let Some(SampleAt { timestamp, kind }) = rejection.sample else { return String::new() };
    let kind = match kind {
        SampleKind::Float => "",
        SampleKind::Histogram => ", a histogram",
    };
    match jiff::Timestamp::from_millisecond(timestamp) {
        Ok(time) => format!("{kind} at {timestamp} ({time}): {bound}"),
        Err(_) => format!("{kind} at {timestamp}: {bound}"),
    }
}

#[cfg(test)]
mod tests {
    use chronolith_storage::LabelFault;

    use super::*;

    #[test]
    fn faults_of_labels_are_told_apart_and_labels_are_not() {
        let about = |fault, text: &str| Rejection {
            reason: RejectReason::InvalidLabels { fault, text: text.to_owned() },
            series: 0,
            labels: None,
            sample: None,
        };
        // Two faults whose texts begin alike, and one fault of two series.
        let nameless = about(LabelFault::NoMetricName, "invalid metric name or labels, got {a=\"1\"}");
        let no_text =
            about(LabelFault::NotText, "invalid metric name or labels, got {a=\"1\"}: not valid UTF-8");
        let long =
            about(LabelFault::NameTooLong, "label name too long for series, labels {a=\"1\"}: 2000 bytes");
        let long_too =
            about(LabelFault::NameTooLong, "label name too long for series, labels {b=\"}\"}: 3000 bytes");
        assert_ne!(kind(&nameless), kind(&no_text));
        assert_ne!(kind(&no_text), kind(&long));
        assert_eq!(kind(&long), kind(&long_too));
        assert_eq!(named(&long.reason.to_string()), "{a=\"1\"}");
    }

    #[test]
    fn lines_of_a_series_are_one_and_name_what_was_refused_first() {
        let mut outcome = AppendOutcome::default();
        for (series, timestamp) in [(3, 5_000), (3, 6_000), (5, 0), (3, 7_000)] {
            outcome.reject_sample(RejectReason::TooOld, series, None, SampleAt::float(timestamp));
        }
        outcome.reject_sample(RejectReason::OutOfOrder, 6, None, SampleAt::histogram(9_000));
        let bound = "more than storage.out_of_order_window behind the newest sample of the series";
        assert_eq!(
            reasons(&outcome),
            format!(
                "too old sample at 5000 (1970-01-01T00:00:05Z): {bound}, 3 times\n\
                 too old sample at 0 (1970-01-01T00:00:00Z): {bound}\n\
                 out of order sample, a histogram at 9000 (1970-01-01T00:00:09Z): older than the newest sample of \
                 the series"
            )
        );
    }
}
