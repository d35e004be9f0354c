//! What a server that scrapes and evaluates rules would show: valid answers, all of them empty.

use chronolith_promql::QueryError;

use super::{ApiResult, in_turn, success};
use crate::{error::ApiError, params::parse_integer, routes::ApiRequest};

pub(super) fn targets(request: &ApiRequest) -> ApiResult {
    let state = request.params.get("state").to_ascii_lowercase();
    // Counts of dropped targets come with the dropped targets.
    let counts = if matches!(state.as_str(), "" | "any" | "dropped") { "{}" } else { "null" };
    Ok(Some(
        success(|json| {
            json.raw("{\"activeTargets\":[],\"droppedTargets\":[],\"droppedTargetCounts\":");
            json.raw(counts);
            json.raw("}");
        })
        .into(),
    ))
}

pub(super) async fn targets_metadata(request: ApiRequest) -> ApiResult {
    let limit = request.params.get("limit");
    if !limit.is_empty() && parse_integer(limit).is_err() {
        return Err(ApiError::bad_data("limit must be a number"));
    }
    let body = in_turn(request, |request, _| {
        let selector = request.params.get("match_target");
        if !selector.is_empty() {
            request.state.engine().selectors().add(selector).map_err(|error| match error {
                QueryError::Parse(_) | QueryError::BadData(_) => ApiError::parameter("match_target", error),
                error => error.into(),
            })?;
        }
        Ok(success(|json| json.raw("[]")).into())
    });
    body.await.map(Some)
}

pub(super) fn rules(request: &ApiRequest) -> ApiResult {
    let kind = request.params.get("type");
    if !matches!(kind.to_lowercase().as_str(), "" | "alert" | "record") {
        return Err(ApiError::parameter("type", format!("not supported value {kind:?}")));
    }
    Ok(Some(success(|json| json.raw("{\"groups\":[]}")).into()))
}
