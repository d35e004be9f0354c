//! `metadata`.

use chronolith_model::{MetricMetadata, TimeRange};

use super::{Answer, ApiResult, in_turn, querier, success_with};
use crate::{error::ApiError, json::Commas, params::parse_integer, routes::ApiRequest};

/// What an entry takes besides its texts.
const ENTRY_BYTES: usize = 96;

pub(super) async fn metadata(request: ApiRequest) -> ApiResult {
    let number = |name: &str| -> Result<Option<usize>, ApiError> {
        let text = request.params.get(name);
        if text.is_empty() {
            return Ok(None);
        }
        let value =
            parse_integer(text).map_err(|_| ApiError::bad_data(format!("{name} must be a number")))?;
        // Below 0 there is no limit, as in Prometheus.
        Ok(usize::try_from(value).ok())
    };
    let limit = number("limit")?.unwrap_or(usize::MAX);
    let per_metric = number("limit_per_metric")?.filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let metric = Some(request.params.get("metric").to_owned()).filter(|metric| !metric.is_empty());
    let body = in_turn(request, move |request, runtime| {
        let querier = querier(request, TimeRange::ALL)?;
        let entries = runtime.block_on(querier.metadata(metric.as_deref()))?;
        // Storage bounds how many there are. They are there once more as JSON.
        let texts =
            |entry: &MetricMetadata| entry.metric.len() + entry.unit.len() + entry.help.len() + ENTRY_BYTES;
        let bytes = entries.iter().map(texts).sum();
        let memory = request.state.engine().selectors().memory();
        memory.charge(2 * bytes)?;
        let json = written(&entries, limit, per_metric, bytes);
        drop(entries);
        Answer::new(json, memory)
    });
    body.await.map(Some)
}

/// The answer of about `bytes`: `limit` metrics at most, and of each `per_metric` entries.
fn written(entries: &[MetricMetadata], limit: usize, per_metric: usize, bytes: usize) -> Vec<u8> {
    success_with(&[], &[], bytes, |json| {
        json.raw("{");
        let mut commas = Commas::default();
        for family in entries.chunk_by(|a, b| a.metric == b.metric).take(limit) {
            let Some(first) = family.first() else { continue };
            commas.next(json);
            json.string_html_escaped(&first.metric);
            json.raw(":[");
            let mut commas = Commas::default();
            for entry in family.iter().take(per_metric) {
                commas.next(json);
                json.raw("{\"type\":\"");
                json.raw(entry.kind.as_str());
                json.raw("\",\"unit\":");
                json.string_html_escaped(&entry.unit);
                json.raw(",\"help\":");
                json.string_html_escaped(&entry.help);
                json.raw("}");
            }
            json.raw("]");
        }
        json.raw("}");
    })
}
