//! The table, and the same as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::load::Load;
use crate::measure::Measurement;
use crate::queries::{BenchQuery, QueryResult};

const NAME_WIDTH: usize = 38;
const CELL_WIDTH: usize = 38;

/// The table for a terminal. The first measurement is the one the others are compared with.
#[must_use]
pub fn table(load: &Load, runs: &[Measurement], set: &[BenchQuery]) -> String {
    let mut out = String::new();
    let spec = &load.spec;
    push(
        &mut out,
        &format!(
            "{} series x {} samples = {} samples, {} connections, {} requests, {:.1} bytes per sample on the wire",
            spec.series,
            spec.steps,
            spec.samples(),
            spec.connections,
            load.bodies.iter().map(Vec::len).sum::<usize>(),
            load.bytes as f64 / spec.samples() as f64,
        ),
    );
    row(&mut out, "", runs.iter().map(|m| m.kind.name().to_owned()));
    let series = spec.series as f64;
    row(&mut out, "samples acked", runs.iter().map(|m| m.sent.acked_samples.to_string()));
    row(
        &mut out,
        "requests refused / retried",
        each(runs, |m| format!("{} / {}", m.sent.refused, m.sent.retries)),
    );
    row(&mut out, "wall seconds of the load", each(runs, |m| format!("{:.2}", m.sent.wall.as_secs_f64())));
    row(
        &mut out,
        "server CPU seconds (of these: stop)",
        each(runs, |m| format!("{:.2} ({:.2})", m.ingest_cpu_seconds, m.stop_cpu_seconds)),
    );
    row(
        &mut out,
        "samples per server CPU second",
        each(runs, |m| format!("{:.0} k", m.samples_per_cpu_second() / 1e3)),
    );
    row(
        &mut out,
        "ack p50 / p99 / max ms",
        each(runs, |m| {
            let ms = |q| m.sent.latency(q).as_secs_f64() * 1e3;
            format!("{:.1} / {:.1} / {:.1}", ms(0.5), ms(0.99), ms(1.0))
        }),
    );
    row(&mut out, "RSS per series, KB", each(runs, |m| kb(m.settled.rss_bytes, series)));
    row(&mut out, "RssAnon per series, KB", each(runs, |m| kb(m.settled.rss_anon_bytes, series)));
    row(&mut out, "VmHWM per series, KB", each(runs, |m| kb(m.settled.hwm_bytes, series)));
    let after = |m: &Measurement| m.after_queries.map_or("-".to_owned(), |at| kb(at.rss_bytes, series));
    row(&mut out, "RSS after the queries, KB", each(runs, after));
    let restart = |m: &Measurement| m.restart_seconds.map_or("-".to_owned(), |s| format!("{s:.2}"));
    row(&mut out, "start behind a graceful stop, s", each(runs, restart));
    row(
        &mut out,
        "bytes on disk per sample",
        each(runs, |m| format!("{:.2}", m.disk_bytes as f64 / spec.samples() as f64)),
    );
    row(
        &mut out,
        "log syncs, mean ms",
        each(runs, |m| match m.fsync {
            Some((count, sum)) => format!("{count:.0}, {:.2}", sum / count.max(1.0) * 1e3),
            None => "-".to_owned(),
        }),
    );
    row(
        &mut out,
        "device fdatasync p50 / p99 ms",
        each(runs, |m| {
            format!("{:.2} / {:.2}", m.device.p50.as_secs_f64() * 1e3, m.device.p99.as_secs_f64() * 1e3)
        }),
    );
    if runs.iter().any(|m| !m.queries.is_empty()) {
        query_rows(&mut out, runs, set);
    }
    for m in runs {
        for refusal in &m.sent.refusals {
            push(&mut out, &format!("{} refused: {refusal}", m.kind.name()));
        }
    }
    out
}

fn query_rows(out: &mut String, runs: &[Measurement], set: &[BenchQuery]) {
    push(out, "");
    let caches = |m: &Measurement| m.queries.values().any(|r| r.cached.is_some());
    let cells = |m: &Measurement| format!("{}{}", m.kind.name(), if caches(m) { ", cached" } else { "" });
    row(out, "query: cold / median / CPU ms (series)", each(runs, cells));
    let mut differing = Vec::new();
    for query in set {
        row(
            out,
            query.name,
            each(runs, |m| match m.queries.get(query.name) {
                None => "-".to_owned(),
                Some(r) => match &r.series {
                    Ok(n) => {
                        let ms = |d: Duration| format!("{:.2}", d.as_secs_f64() * 1e3);
                        let cached = r.cached.map_or(String::new(), |cached| format!(", {}", ms(cached)));
                        format!("{} / {} / {}{cached} ({n})", ms(r.cold), ms(r.median), ms(r.cpu))
                    }
                    Err(_) => "error".to_owned(),
                },
            }),
        );
        let counts: Vec<_> =
            runs.iter().filter_map(|m| m.queries.get(query.name)).map(|r| &r.series).collect();
        if counts.iter().any(|c| *c != counts[0]) {
            differing.push((query.name, format!("{counts:?}")));
        }
    }
    if let Some((first, others)) = runs.split_first() {
        ratio_rows(out, first, others);
    }
    for m in runs {
        window_rows(out, m);
        if let Some((name, heaviest)) = m.queries.iter().max_by_key(|(_, r)| r.peak_bytes) {
            let mb = heaviest.peak_bytes as f64 / 1024.0 / 1024.0;
            push(out, &format!("most memory of {}: {mb:.0} MB at {name}", m.kind.name()));
        }
    }
    for (name, counts) in differing {
        push(out, &format!("answers differ in size: {name}: {counts}"));
    }
}

/// What one server took for a query.
type Took = fn(&QueryResult) -> Option<Duration>;

/// Latencies of the first against those of each other, and against the better of them at each query.
fn ratio_rows(out: &mut String, first: &Measurement, others: &[Measurement]) {
    let ways: [(&str, Took, Took); 4] = [
        ("cold", |r| Some(r.cold), |r| Some(r.cold)),
        ("warm", |r| Some(r.median), |r| Some(r.median)),
        ("CPU time, warm", |r| Some(r.cpu), |r| Some(r.cpu)),
        ("warm, result caches on", |r| r.cached.or(Some(r.median)), |r| r.cached.or(Some(r.median))),
    ];
    for (way, ours, theirs) in ways {
        for other in others {
            let name = format!("{} / {}, {way}", first.kind.name(), other.kind.name());
            ratio_row(out, &name, first, &[other], (ours, theirs));
        }
        let all: Vec<&Measurement> = others.iter().collect();
        if others.len() > 1 {
            ratio_row(
                out,
                &format!("{} / the better, {way}", first.kind.name()),
                first,
                &all,
                (ours, theirs),
            );
        }
    }
}

fn ratio_row(out: &mut String, what: &str, first: &Measurement, others: &[&Measurement], took: (Took, Took)) {
    let ratios: Vec<(&str, f64)> = first
        .queries
        .iter()
        .filter(|(_, r)| r.series.is_ok())
        .filter_map(|(name, r)| {
            let of = |other: &&Measurement| {
                other.queries.get(name).filter(|r| r.series.is_ok()).and_then(|r| took.1(r))
            };
            let best = others.iter().filter_map(of).min()?;
            Some((*name, took.0(r)?.as_secs_f64() / best.as_secs_f64().max(1e-9)))
        })
        .collect();
    let Some((name, worst)) = ratios.iter().max_by(|a, b| a.1.total_cmp(&b.1)) else { return };
    let slower = ratios.iter().filter(|(_, ratio)| *ratio > 1.0).count();
    let mean = geometric_mean(&ratios.iter().map(|(_, ratio)| *ratio).collect::<Vec<_>>());
    push(out, &format!("{what}: geometric mean {mean:.2}, {slower} above 1, worst {worst:.2} ({name})"));
}

/// What long windows cost against short ones: queries whose names differ in nothing else.
fn window_rows(out: &mut String, m: &Measurement) {
    let pairs: Vec<String> = m
        .queries
        .iter()
        .filter_map(|(name, short)| {
            let long = m.queries.get(name.replace("_w1m_", "_w30m_").as_str())?;
            let ratio = long.median.as_secs_f64() / short.median.as_secs_f64().max(1e-9);
            name.contains("_w1m_").then(|| format!("{} {ratio:.2}", name.trim_start_matches("r_w1m_")))
        })
        .collect();
    if !pairs.is_empty() {
        let name = m.kind.name();
        push(out, &format!("windows of 30 minutes / 1 minute, {name}: {}", pairs.join(", ")));
    }
}

/// Everything as one JSON document.
#[must_use]
pub fn json(load: &Load, runs: &[Measurement]) -> Value {
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    json!({
        "series": load.spec.series,
        "steps": load.spec.steps,
        "connections": load.spec.connections,
        "wire_bytes": load.bytes,
        "servers": runs.iter().map(|m| json!({
            "name": m.kind.name(),
            "samples_acked": m.sent.acked_samples,
            "requests_refused": m.sent.refused,
            "requests_retried": m.sent.retries,
            "wall_seconds": m.sent.wall.as_secs_f64(),
            "cpu_seconds": m.ingest_cpu_seconds,
            "stop_cpu_seconds": m.stop_cpu_seconds,
            "samples_per_cpu_second": m.samples_per_cpu_second(),
            "ack_p50_ms": ms(m.sent.latency(0.5)),
            "ack_p99_ms": ms(m.sent.latency(0.99)),
            "ack_max_ms": ms(m.sent.latency(1.0)),
            "rss_bytes": m.settled.rss_bytes,
            "rss_anon_bytes": m.settled.rss_anon_bytes,
            "hwm_bytes": m.settled.hwm_bytes,
            "restart_seconds": m.restart_seconds,
            "rss_after_queries_bytes": m.after_queries.map(|at| at.rss_bytes),
            "disk_bytes": m.disk_bytes,
            "fsync_count": m.fsync.map(|f| f.0),
            "fsync_seconds": m.fsync.map(|f| f.1),
            "device_fdatasync_p50_ms": ms(m.device.p50),
            "device_fdatasync_p99_ms": ms(m.device.p99),
            "queries": m.queries.iter().map(|(name, r)| json!({
                "name": name,
                "cold_ms": ms(r.cold),
                "median_ms": ms(r.median),
                "cpu_ms": ms(r.cpu),
                "cached_ms": r.cached.map(ms),
                "peak_bytes": r.peak_bytes,
                "series": r.series.as_ref().ok(),
                "bytes": r.bytes,
            })).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
    })
}

fn geometric_mean(values: &[f64]) -> f64 {
    let logs: f64 = values.iter().map(|v| v.max(1e-9).ln()).sum();
    (logs / values.len().max(1) as f64).exp()
}

fn kb(bytes: u64, series: f64) -> String {
    format!("{:.2}", bytes as f64 / 1024.0 / series)
}

fn each<'a>(
    runs: &'a [Measurement],
    cell: impl Fn(&Measurement) -> String + 'a,
) -> impl Iterator<Item = String> + 'a {
    runs.iter().map(cell)
}

fn row(out: &mut String, name: &str, cells: impl Iterator<Item = String>) {
    let mut line = format!("{name:<NAME_WIDTH$}");
    for cell in cells {
        write!(line, "{cell:>CELL_WIDTH$}").expect("writing to a String cannot fail");
    }
    push(out, &line);
}

fn push(out: &mut String, line: &str) {
    out.push_str(line.trim_end());
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn geometric_mean_of_reciprocals_is_one() {
        assert!((geometric_mean(&[4.0, 0.25, 1.0]) - 1.0).abs() < 1e-12);
    }
}
