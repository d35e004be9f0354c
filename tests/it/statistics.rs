//! `stats=all` beside Prometheus: how many samples a query has looked at, by step too.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use chronolith_e2e::api::Answer;
use chronolith_e2e::http::Client;
use chronolith_e2e::peers::Peers;
use serde_json::Value as Json;

use crate::pair::{Pair, ask};
use crate::stream;

/// Asked as instant and as range queries. `@T` stands for a time inside the data.
const QUERIES: &[&str] = &[
    "s_ramp",
    "s_requests_total",
    "s_requests_total{nosuch=\"x\"}",
    "s_stale",
    "s_gappy",
    "s_churn_total offset 10m",
    "s_temperature offset -10m",
    "s_temperature @ T",
    "s_temperature @ end()",
    "s_temperature @ start() offset 5m",
    "rate(s_requests_total[5m])",
    "rate(s_requests_total[5m] offset 7m)",
    "rate(s_requests_total[5m] @ T)",
    "increase(s_irregular[3m])",
    "irate(s_requests_total[2m])",
    "sum_over_time(s_gappy[20m])",
    "quantile_over_time(0.9, s_temperature[10m])",
    "quantile_over_time(scalar(s_ramp) / 1000, s_temperature[10m])",
    "last_over_time(s_stale[15m])",
    "count_over_time(s_ended[1h])",
    "absent_over_time(s_stale[1m])",
    "absent(nosuch)",
    "deriv(s_irregular[5m])",
    "predict_linear(s_ramp[5m], 60)",
    "timestamp(s_irregular)",
    "timestamp(timestamp(s_irregular))",
    "sum(s_requests_total)",
    "sum by (code) (rate(s_requests_total[5m]))",
    "topk(2, s_requests_total)",
    "quantile(0.5, s_temperature)",
    "count_values(\"v\", s_info)",
    "limitk(2, s_requests_total)",
    "s_usage_bytes / s_limit_bytes",
    "s_usage_bytes / on (instance, device) group_left s_limit_bytes",
    "s_usage_bytes * on (instance) group_left (version) s_info",
    "s_twin_a and s_twin_b",
    "s_twin_a or s_twin_b",
    "s_requests_total + s_requests_total",
    "rate(s_requests_total[5m]) / rate(s_requests_total[5m])",
    "s_ramp > 10",
    "1 + 2",
    "vector(time())",
    "scalar(s_ramp) + 1",
    "label_replace(s_twin_a, \"x\", \"$1\", \"instance\", \"(.*)\")",
    "sort_desc(s_temperature)",
    "clamp(s_temperature, scalar(s_ramp), 100)",
    "max_over_time(s_ramp[10m:1m])",
    "max_over_time(rate(s_requests_total[2m])[10m:30s])",
    "sum_over_time(s_temperature[10m:1m] offset 5m)",
    "sum_over_time(s_temperature[10m:1m] @ T)",
    "avg_over_time(max_over_time(s_ramp[5m:1m])[10m:2m])",
    "sum_over_time((s_ramp + s_ramp)[10m:])",
    "sum(max_over_time(s_native_seconds[10m:1m]))",
    "s_native_seconds",
    "s_native_custom",
    "s_native_or_float",
    "s_native_gauge @ T",
    "rate(s_native_seconds[5m])",
    "sum_over_time(s_native_seconds[30m])",
    "avg_over_time(s_native_gauge[5m])",
    "count_over_time(s_native_or_float[30m])",
    "sum(rate(s_native_seconds[5m]))",
    "histogram_quantile(0.9, rate(s_native_seconds[5m]))",
    "sum(histogram_count(s_native_seconds))",
    "sum(histogram_avg(rate(s_native_custom[5m])))",
    "rate(s_native_custom[5m])",
    "avg_over_time(s_native_custom[20m])",
    "sum_over_time(s_native_custom[10m:1m])",
    "histogram_quantile(0.9, s_native_custom)",
    "histogram_quantile(0.9, sum by (le) (rate(s_latency_seconds_bucket[5m])))",
    "sum_over_time(s_native_seconds[10m:1m])",
    "last_over_time(s_native_or_float[30m:2m])",
    "changes(s_native_seconds[5m])",
    "timestamp(s_native_seconds)",
];

/// What histograms of a series whose buckets become more count for, of what they do in Prometheus, at least.
const GROWING_SHARE_MIN: f64 = 0.9;

#[test]
fn samples_are_counted_as_prometheus_counts_them() {
    let Some(peers) = Peers::find("statistics") else { return };
    compare(&peers).unwrap_or_else(|e| panic!("{e:#}"));
}

fn compare(peers: &Peers) -> Result<()> {
    let pair = Pair::start(peers, "promql-per-step-stats,promql-experimental-functions")?;
    let now_ms = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    let start_ms = (now_ms - 60_000) / 60_000 * 60_000 - stream::LENGTH_MS;
    let mut floats = stream::generate(start_ms);
    let histograms = stream::generate_histograms(start_ms, &mut floats);
    pair.write(&stream::encode(&floats, &histograms))?;
    let start = start_ms / 1000;
    let middle = start + stream::LENGTH_MS / 2000;
    let times: &[&[(&str, String)]] = &[
        &[("time", middle.to_string())],
        &[("time", (middle - 7).to_string())],
        // On samples, beside them, and over the beginning of all data.
        &[("start", middle.to_string()), ("end", (middle + 600).to_string()), ("step", "30".into())],
        &[("start", format!("{}.5", middle - 3600)), ("end", middle.to_string()), ("step", "97".into())],
        &[("start", (start - 60).to_string()), ("end", (start + 300).to_string()), ("step", "15".into())],
    ];
    let mut clients = pair.clients();
    let (mut counted, mut differences) = (0, Vec::new());
    for query in QUERIES {
        let query = query.replace("@ T", &format!("@ {}", middle - 600));
        for times in times {
            let path = if times.len() == 1 { "/api/v1/query" } else { "/api/v1/query_range" };
            let mut form = vec![("query", query.as_str()), ("stats", "all")];
            form.extend(times.iter().map(|(name, value)| (*name, value.as_str())));
            let [expected, got] = clients.each_mut().map(|client| samples(client, path, &form));
            let (expected, got) = (expected?, got?);
            counted += usize::from(expected["totalQueryableSamples"].as_u64() > Some(0));
            for field in ["totalQueryableSamples", "totalQueryableSamplesPerStep"] {
                if !agree(&query, &expected[field], &got[field]) {
                    let times: Vec<&str> = times.iter().map(|(_, value)| value.as_str()).collect();
                    let (expected, got) = (&expected[field], &got[field]);
                    differences.push(format!("{query} at {times:?}: {field} {expected} against {got}"));
                }
            }
            ensure!(got.is_null() || got["peakSamples"].is_u64(), "{query}: no peakSamples in {got}");
        }
    }
    println!("{} queries, {counted} with samples", QUERIES.len() * times.len());
    ensure!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
    ensure!(counted * 5 >= QUERIES.len() * times.len() * 4, "only {counted} with samples");
    Ok(())
}

/// Whether `got` samples, or samples by step, are as many as they should be. Prometheus' chunks give all their histograms the
/// buckets that one of them has, so that those of a growing series count for more there.
fn agree(query: &str, expected: &Json, got: &Json) -> bool {
    let growing = ["s_native_seconds", "s_native_gauge"].iter().any(|name| query.contains(name));
    match (expected, got) {
        (Json::Number(expected), Json::Number(got)) if growing => {
            let (expected, got) = (expected.as_f64().unwrap_or(0.0), got.as_f64().unwrap_or(f64::NAN));
            got <= expected && got >= GROWING_SHARE_MIN * expected
        }
        (Json::Array(expected), Json::Array(got)) if growing => {
            let steps = expected.iter().zip(got);
            expected.len() == got.len()
                && steps.into_iter().all(|(expected, got)| {
                    let count = |step: &Json| step[1].as_u64();
                    expected[0] == got[0] && count(got) <= count(expected)
                })
        }
        (expected, got) => expected == got,
    }
}

/// `data.stats.samples` of an answer; null where that is an error.
fn samples(client: &mut Client, path: &str, form: &[(&str, &str)]) -> Result<Json> {
    let (answer, response) = ask(client, path, form)?;
    if matches!(answer, Answer::Error { .. }) {
        return Ok(Json::Null);
    }
    let mut answer: Json = serde_json::from_slice(&response.body)?;
    let stats = answer.pointer_mut("/data/stats/samples").map(Json::take);
    stats.with_context(|| format!("no statistics in the answer to {form:?}: {}", response.text()))
}
