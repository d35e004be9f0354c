//! The query set and its timing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use chronolith_e2e::http::{Client, Response};
use chronolith_e2e::servers::{Kind, Server};

/// One query of the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BenchQuery {
    /// Its name in the table.
    pub name: &'static str,
    /// Whether it is a range query (over the hour, 15 s step) or an instant query at the end.
    pub range: bool,
    /// The expression.
    pub expr: &'static str,
}

/// The times the queries are asked about, in ms.
#[derive(Debug, Clone, Copy)]
pub struct QueryWindow {
    /// Start of range queries.
    pub start_ms: i64,
    /// End of range queries, time of instant queries.
    pub end_ms: i64,
    /// Step of range queries.
    pub step_ms: i64,
}

/// What a query took and gave.
#[derive(Debug, Clone)]
pub struct QueryResult {
    /// Latency of the first time it was asked of a server that had just started.
    pub cold: Duration,
    /// Median latency over the repetitions, result caches left out.
    pub median: Duration,
    /// Mean CPU time of the server for one of these repetitions.
    pub cpu: Duration,
    /// The median latency with the result cache, where the server has one, filled by the first repetition.
    pub cached: Option<Duration>,
    /// Most bytes resident during the repetitions.
    pub peak_bytes: u64,
    /// Number of series in the answer, or why there is none.
    pub series: Result<usize, String>,
    /// Size of the answer.
    pub bytes: usize,
}

const SET: &str = include_str!("../queries.txt");

/// The committed query set.
///
/// # Panics
/// A line of the set is malformed; a test keeps it from that.
#[must_use]
pub fn query_set() -> Vec<BenchQuery> {
    SET.lines()
        .filter(|l| !l.trim().is_empty() && !l.starts_with('#'))
        .map(|line| {
            let mut parts = line.splitn(3, ' ');
            let (name, kind, expr) = (parts.next(), parts.next(), parts.next());
            let (Some(name), Some(kind @ ("instant" | "range")), Some(expr)) = (name, kind, expr) else {
                panic!("malformed line in queries.txt: {line}");
            };
            BenchQuery { name, range: kind == "range", expr: expr.trim() }
        })
        .collect()
}

/// Asks every query of `set` of a server that has just started once, and then each of them `repetitions` times.
///
/// # Errors
/// The connection breaks.
pub fn time_queries(
    server: &Server,
    set: &[BenchQuery],
    window: QueryWindow,
    repetitions: usize,
) -> Result<BTreeMap<&'static str, QueryResult>> {
    let kind = server.spec().kind;
    let has_cache = kind != Kind::Prometheus;
    let mut client = server.client();
    let mut colds = Vec::with_capacity(set.len());
    for query in set {
        colds.push(ask(&mut client, query, (window, false))?.0);
    }
    let mut results = BTreeMap::new();
    for (query, cold) in set.iter().zip(colds) {
        server.process().reset_hwm()?;
        let before = server.process().cpu_of_threads()?;
        let (median, last) = median_of(&mut client, query, (window, false), repetitions)?;
        let cpu = server.process().cpu_of_threads()?.saturating_sub(before) / repetitions.max(1) as u32;
        let peak_bytes = server.process().stats()?.hwm_bytes;
        let cached = if has_cache {
            ask(&mut client, query, (window, true))?;
            Some(median_of(&mut client, query, (window, true), repetitions)?.0)
        } else {
            None
        };
        let series = if last.ok() {
            Ok(count_series(&last.body))
        } else {
            Err(format!("{} {}", last.status, last.text().chars().take(200).collect::<String>()))
        };
        let bytes = last.body.len();
        results.insert(query.name, QueryResult { cold, median, cpu, cached, peak_bytes, series, bytes });
    }
    Ok(results)
}

/// Asks `query` `repetitions` times; the median, and the last answer.
fn median_of(
    client: &mut Client,
    query: &BenchQuery,
    how: (QueryWindow, bool),
    repetitions: usize,
) -> Result<(Duration, Response)> {
    let mut latencies = Vec::with_capacity(repetitions);
    let mut last = None;
    for _ in 0..repetitions.max(1) {
        let (latency, response) = ask(client, query, how)?;
        latencies.push(latency);
        last = Some(response);
    }
    latencies.sort_unstable();
    let Some(last) = last else { bail!("no repetition") };
    Ok((latencies[latencies.len() / 2], last))
}

/// Asks `query` once, with the server's result cache or without it.
fn ask(
    client: &mut Client,
    query: &BenchQuery,
    (window, cache): (QueryWindow, bool),
) -> Result<(Duration, Response)> {
    let seconds = |ms: i64| format!("{}.{:03}", ms / 1000, ms % 1000);
    let (start, end) = (seconds(window.start_ms), seconds(window.end_ms));
    let step = seconds(window.step_ms);
    let mut form = vec![("query", query.expr)];
    let path = if query.range {
        form.extend([("start", start.as_str()), ("end", end.as_str()), ("step", step.as_str())]);
        "/api/v1/query_range"
    } else {
        form.push(("time", end.as_str()));
        "/api/v1/query"
    };
    if !cache {
        // Chronolith and VictoriaMetrics have result caches; Prometheus has none.
        form.push(("nocache", "1"));
    }
    let sent = Instant::now();
    let response = client.post_form(path, &form).with_context(|| format!("query {}", query.name))?;
    Ok((sent.elapsed(), response))
}

/// Counts result elements without parsing the whole answer: every one has exactly one `metric` member, and a quote
/// inside a label value would be escaped.
fn count_series(body: &[u8]) -> usize {
    const MEMBER: &[u8] = b"\"metric\":";
    body.windows(MEMBER.len()).filter(|w| *w == MEMBER).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_is_well_formed_and_names_are_unique() {
        let set = query_set();
        assert!(set.len() >= 25, "{} queries", set.len());
        let names: std::collections::BTreeSet<_> = set.iter().map(|q| q.name).collect();
        assert_eq!(names.len(), set.len());
        assert!(set.iter().any(|q| q.range) && set.iter().any(|q| !q.range));
    }

    #[test]
    fn result_elements_are_counted() {
        let body = br#"{"data":{"result":[{"metric":{"a":"\"metric\":"},"value":[1,"2"]},{"metric":{}}]}}"#;
        assert_eq!(count_series(body), 2);
    }
}
