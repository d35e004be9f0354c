//! `type-and-unit-labels` beside Prometheus: labels that every operator takes for a part of the metric's name.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use chronolith_e2e::api::{Answer, Order};
use chronolith_e2e::peers::Peers;
use chronolith_e2e::remote_write::labels;

use crate::pair::{Pair, ask};
use crate::stream::{Histograms, STEP_MS, Stream, encode};

const SAMPLES: i64 = 80;

const QUERIES: &[&str] = &[
    "{job=\"t\"}",
    "t_requests_total",
    "t_requests_total{__type__=\"counter\"}",
    "{__type__=\"gauge\"}",
    "{__unit__=\"bytes\"}",
    "{__type__=\"\",job=\"t\"}",
    "{__type__=~\"counter|gauge\",__unit__!=\"\"}",
    "-t_requests_total",
    "+t_requests_total",
    "t_requests_total * 2",
    "t_requests_total > 3",
    "t_requests_total > bool 3",
    "t_size > t_level",
    "t_size + t_level",
    "t_size - on (i) t_level",
    "t_size * on (i) group_left (__unit__) t_level",
    "t_size / ignoring (j) t_level",
    "t_size and t_level",
    "t_size and on (__type__) t_level",
    "t_size or t_level",
    "t_size unless t_level",
    "t_size unless on (__unit__) t_level",
    "abs(t_size)",
    "round(t_size, 5)",
    "clamp_max(t_size, 5)",
    "timestamp(t_size)",
    "label_replace(t_size, \"x\", \"$1\", \"__unit__\", \"(.*)\")",
    "label_replace(t_size, \"__type__\", \"mine\", \"i\", \".*\")",
    "label_replace(rate(t_requests_total[2m]), \"x\", \"$1\", \"__type__\", \"(.*)\")",
    "label_join(t_size, \"x\", \"-\", \"__type__\", \"__unit__\")",
    "sum(t_size)",
    "sum by (__type__) ({job=\"t\"})",
    "sum by (__name__, __unit__) ({job=\"t\"})",
    "sum without (i) ({job=\"t\"})",
    "count without (__type__) ({job=\"t\"})",
    "max by (i) (t_mixed)",
    "topk(2, {job=\"t\"})",
    "bottomk by (__type__) (1, {job=\"t\"})",
    "quantile by (__unit__) (0.5, {job=\"t\"})",
    "count_values(\"v\", t_mixed)",
    "group by (__type__, __name__) ({job=\"t\"})",
    "rate(t_requests_total[2m])",
    "rate(t_level[2m])",
    "rate(t_bare_total[2m])",
    "rate(t_mixed[2m])",
    "increase(t_size[2m])",
    "increase(t_requests_total[2m]) > 1",
    "irate(t_level[2m])",
    "delta(t_level[2m])",
    "sum(rate({job=\"t\",__type__!=\"histogram\"}[2m]))",
    "sum by (i) (rate(t_level[2m]))",
    "rate(t_level[3m:30s])",
    "rate((t_level * 1)[3m:30s])",
    "max_over_time(rate(t_level[1m])[5m:30s])",
    "sum_over_time(t_level[2m])",
    "last_over_time(t_level[2m])",
    "present_over_time(t_level[2m])",
    "absent(nosuch{__type__=\"gauge\"})",
    "absent_over_time(nosuch{__type__=\"gauge\"}[2m])",
    "histogram_quantile(0.9, t_wait_bucket)",
    "histogram_quantile(0.9, sum by (le) (rate(t_wait_bucket{__type__=\"counter\"}[2m])))",
    "t_mixed * on (i, __type__) t_mixed",
    "t_mixed == t_mixed",
    "-t_mixed",
    "t_twice + 1",
];

#[test]
fn types_and_units_are_dropped_kept_and_noted_as_prometheus_does() {
    let Some(peers) = Peers::find("type and unit labels") else { return };
    compare(&peers).unwrap_or_else(|e| panic!("{e:#}"));
}

fn compare(peers: &Peers) -> Result<()> {
    for features in ["type-and-unit-labels", "type-and-unit-labels,promql-delayed-name-removal"] {
        let pair = Pair::start(peers, features)?;
        let now_ms = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
        let start_ms = (now_ms / 60_000 - 1) * 60_000 - SAMPLES * STEP_MS;
        pair.write(&encode(&series(start_ms), &Histograms::new()))?;
        let at = |sample: i64| ((start_ms + sample * STEP_MS) / 1000).to_string();
        let (mut with_data, mut differences) = (0, Vec::new());
        let mut clients = pair.clients();
        for query in QUERIES {
            let instant = vec![("query", *query), ("time", "")];
            let range = vec![("query", *query), ("start", ""), ("end", ""), ("step", "30")];
            for (path, form) in [("/api/v1/query", instant), ("/api/v1/query_range", range)] {
                let times = [at(60), at(20)];
                let fill = |(name, value): (&'static str, &'static str)| match name {
                    "time" | "end" => (name, times[0].clone()),
                    "start" => (name, times[1].clone()),
                    _ => (name, value.to_owned()),
                };
                let form: Vec<_> = form.into_iter().map(fill).collect();
                let form: Vec<_> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
                let [expected, got] = clients.each_mut().map(|client| ask(client, path, &form));
                let (expected, got) = (expected?.0, got?.0);
                with_data += usize::from(expected.has_data());
                if let Some(difference) = expected.difference(&got, Order::Free) {
                    differences.push(format!("{features}: {path} {query}: {difference}"));
                } else if notes(&expected) != notes(&got) {
                    let notes = (notes(&expected), notes(&got));
                    differences.push(format!("{features}: {path} {query}: {notes:?}"));
                }
            }
        }
        println!("{features}: {} queries, {with_data} with data", 2 * QUERIES.len());
        ensure!(differences.is_empty(), "{}", differences.join("\n"));
        ensure!(with_data * 5 >= QUERIES.len() * 8, "only {with_data} have data");
    }
    Ok(())
}

/// Annotations; in 3.5.3 the type of a histogram is not known to be that of counters.
fn notes(answer: &Answer) -> Vec<String> {
    answer
        .annotations()
        .iter()
        .map(|note| note.replace("\"counter\" or \"histogram\"", "\"counter\""))
        .collect()
}

fn series(start_ms: i64) -> Stream {
    let mut all = Stream::new();
    let mut add = |name: &str, kind: &str, unit: &str, more: &[(&str, &str)], slope: f64| {
        let known = [("__name__", name), ("__type__", kind), ("__unit__", unit), ("job", "t")];
        let pairs: Vec<_> =
            known.into_iter().chain(more.iter().copied()).filter(|(_, v)| !v.is_empty()).collect();
        let samples = (0..SAMPLES).map(|i| (start_ms + i * STEP_MS, slope * i as f64));
        all.insert(labels(&pairs), samples.collect());
    };
    add("t_requests_total", "counter", "", &[("i", "1")], 1.0);
    add("t_requests_total", "counter", "requests", &[("i", "2")], 2.0);
    add("t_size", "gauge", "bytes", &[("i", "1")], 3.0);
    add("t_size", "gauge", "bytes", &[("i", "2")], 4.0);
    add("t_level", "gauge", "ratio", &[("i", "1")], 2.0);
    add("t_level", "gauge", "ratio", &[("i", "2")], -1.0);
    add("t_bare_total", "", "", &[("i", "1")], 1.0);
    add("t_mixed", "counter", "", &[("i", "1")], 1.0);
    add("t_mixed", "gauge", "", &[("i", "2")], 2.0);
    add("t_mixed", "unknown", "s", &[("i", "3")], 3.0);
    // The same but for the type: one too many where that goes.
    add("t_twice", "counter", "", &[("i", "1")], 1.0);
    add("t_twice", "gauge", "", &[("i", "1")], 1.0);
    for (le, slope) in [("0.1", 1.0), ("1", 3.0), ("+Inf", 4.0)] {
        add("t_wait_bucket", "counter", "seconds", &[("le", le)], slope);
    }
    all
}
