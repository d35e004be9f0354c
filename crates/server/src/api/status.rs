//! `status/*` and `/version`.

use chronolith_model::{TimeRange, Timestamp};
use chronolith_storage::CardinalityEntry;

use super::{ApiResult, in_turn, querier, string_object, success};
use crate::{
    error::ApiError,
    json::{Commas, JsonWriter},
    params::parse_integer,
    routes::ApiRequest,
    state::AppState,
};

/// How long the lists of `status/tsdb` are if nobody asks, and at most.
const TSDB_LIMIT_DEFAULT: usize = 10;
const TSDB_LIMIT_MAX: usize = 10_000;

fn build_fields(state: &AppState, json: &mut JsonWriter) {
    let info = state.info().build();
    string_object(
        json,
        [
            ("version", info.version.as_str()),
            ("revision", &info.revision),
            ("branch", &info.branch),
            ("buildUser", &info.build_user),
            ("buildDate", &info.build_date),
            ("goVersion", &info.compiler),
            ("chronolithVersion", &info.chronolith_version),
        ],
    );
}

pub(crate) fn version(state: &AppState) -> String {
    let mut json = JsonWriter::default();
    build_fields(state, &mut json);
    json.raw("\n");
    String::from_utf8(json.finish()).unwrap_or_default()
}

pub(crate) fn build(state: &AppState) -> Vec<u8> {
    success(|json| build_fields(state, json))
}

pub(crate) fn walreplay(state: &AppState) -> Vec<u8> {
    let (min, max, current) = state.info().wal_replay();
    success(|json| {
        json.raw("{");
        json.integers([("min", min), ("max", max), ("current", current)]);
        json.raw("}");
    })
}

/// What runs now; not an endpoint of Prometheus.
pub(super) fn active_queries(state: &AppState) -> Vec<u8> {
    success(|json| {
        json.raw("{\"max\":");
        json.integer(state.engine().options().concurrency_max);
        json.raw(",\"queries\":");
        state.active().write(json);
        json.raw("}");
    })
}

pub(super) fn config(state: &AppState) -> Vec<u8> {
    let yaml = state.info().config_yaml();
    success(|json| string_object(json, [("yaml", yaml.as_str())]))
}

pub(super) fn flags(state: &AppState) -> Vec<u8> {
    let mut flags = state.info().flags();
    flags.sort();
    success(|json| string_object(json, flags.iter().map(|(name, value)| (name.as_str(), value.as_str()))))
}

pub(super) fn runtime(state: &AppState) -> Vec<u8> {
    let info = state.info().runtime();
    success(|json| {
        json.raw("{\"startTime\":\"");
        json.raw(&rfc3339(info.start_time_ms));
        json.raw("\",\"CWD\":");
        json.string_html_escaped(&info.working_directory);
        json.raw(",\"hostname\":");
        json.string_html_escaped(&info.hostname);
        json.raw(",\"serverTime\":\"");
        json.raw(&rfc3339(state.info().now_ms()));
        json.raw("\",\"reloadConfigSuccess\":");
        json.boolean(info.config_ok);
        json.raw(",\"lastConfigTime\":\"");
        json.raw(&rfc3339(info.config_time_ms.div_euclid(1000) * 1000));
        json.raw("\",");
        let fields = [
            ("corruptionCount", info.corruption_count.into()),
            ("goroutineCount", info.thread_count.into()),
            ("GOMAXPROCS", info.cores.into()),
            ("GOMEMLIMIT", info.memory_max_bytes.into()),
        ];
        json.integers::<i128>(fields);
        json.raw(",\"GOGC\":\"\",\"GODEBUG\":\"\",\"storageRetention\":");
        json.string_html_escaped(&info.storage_retention);
        json.raw("}");
    })
}

fn rfc3339(ms: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

pub(super) async fn tsdb(request: ApiRequest) -> ApiResult {
    let text = request.params.get("limit");
    let limit = if text.is_empty() { Ok(TSDB_LIMIT_DEFAULT as i64) } else { parse_integer(text) };
    let limit = match limit.ok().and_then(|limit| usize::try_from(limit).ok()) {
        Some(limit) if limit > 0 => limit,
        _ => return Err(ApiError::bad_data("limit must be a positive number")),
    };
    if limit > TSDB_LIMIT_MAX {
        return Err(ApiError::bad_data(format!("limit must not exceed {TSDB_LIMIT_MAX}")));
    }
    let stats =
        in_turn(request, move |request, _| Ok(querier(request, TimeRange::ALL)?.stats(limit))).await?;
    // What Prometheus says of an empty head.
    let range = stats.range.unwrap_or(TimeRange::new(i64::MAX, i64::MIN));
    let json = success(|json| {
        json.raw("{\"headStats\":{");
        let fields = [
            ("numSeries", stats.series.into()),
            ("numLabelPairs", stats.label_pairs.into()),
            ("chunkCount", stats.chunks.into()),
            ("minTime", range.min.into()),
            ("maxTime", range.max.into()),
        ];
        json.integers::<i128>(fields);
        json.raw("}");
        for (name, entries) in [
            ("seriesCountByMetricName", &stats.series_by_metric),
            ("labelValueCountByLabelName", &stats.values_by_label),
            ("memoryInBytesByLabelName", &stats.bytes_by_label),
            ("seriesCountByLabelValuePair", &stats.series_by_pair),
        ] {
            json.raw(",");
            json.key(name);
            cardinalities(json, entries);
        }
        json.raw("}");
    });
    Ok(Some(json.into()))
}

fn cardinalities(json: &mut JsonWriter, entries: &[CardinalityEntry]) {
    let mut commas = Commas::default();
    json.raw("[");
    for entry in entries {
        commas.next(json);
        json.raw("{\"name\":");
        json.string_html_escaped(&entry.name);
        json.raw(",\"value\":");
        json.integer(entry.value);
        json.raw("}");
    }
    json.raw("]");
}
