//! `metadata`.

use chronolith_model::TimeRange;

use super::{ApiResult, in_turn, querier, success_with};
use crate::{error::ApiError, json::Commas, params::parse_integer, routes::ApiRequest};

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
    let entries = in_turn(request, move |request, runtime| {
        let querier = querier(request, TimeRange::ALL)?;
        Ok(runtime.block_on(querier.metadata(metric.as_deref()))?)
    });
    let entries = entries.await?;
    Ok(Some(success_with(&[], &[], entries.len() * 128, |json| {
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
    })))
}
