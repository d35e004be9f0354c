//! Random expressions over the generated series, asked of Prometheus and of Chronolith.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use chronolith_e2e::api::{Answer, Data, Order, Point, Sampled};
use chronolith_e2e::expressions::{Expressions, Vocabulary};
use chronolith_e2e::http::Client;
use chronolith_e2e::peers::{Peers, chronolith_bin};
use chronolith_e2e::rng::Rng;
use chronolith_e2e::servers::{Kind, Server, ServerSpec};

use crate::stream;

/// How many queries are asked, and the seed of the first: `CHRONOLITH_QUERIES`, `CHRONOLITH_QUERY_SEED`.
const QUERIES: u64 = 2_400;
const LOOKBACK_MS: i64 = 300_000;
const DATA_SHARE_MIN: f64 = 0.8;
/// So often Prometheus is asked again where it differs ...
const TIMES_AGAIN: usize = 5;
/// ... which may help in so many of all queries.
const UNSTEADY_SHARE_MAX: f64 = 0.005;
const DIFFERENCES_SHOWN_MAX: usize = 30;
const FEATURES: &str = "promql-experimental-functions";

const WORDS: Vocabulary = Vocabulary {
    floats: &[
        "s_requests_total",
        "s_requests_total",
        "s_latency_seconds_bucket",
        "s_latency_seconds_count",
        "s_temperature",
        "s_unixtime",
        "s_ramp",
        "s_irregular",
        "s_gappy",
        "s_stale",
        "s_ended",
        "s_special",
        "s_special{v=~\"tiny|mixed|negzero\"}",
        "s_nan_sometimes_total",
        "s_usage_bytes",
        "s_info",
        "s_twin_a",
        "s_churn_total",
        "s_odd",
        "s_native_or_float",
        "s_limit_bytes",
        "s_latency_seconds_sum",
        "s_requests_total",
        "{__name__=~\"s_.*_total\",job=~\"api|churn\"}",
        "{job=~\"api|churn\"}",
        "{__name__=~\"s_twin_.*\"}",
    ],
    distinct: &["s_temperature", "s_usage_bytes", "s_irregular", "s_latency_seconds_sum"],
    ramp: "s_ramp",
    histograms: &[
        "s_native_seconds",
        "s_native_seconds",
        "s_native_custom",
        "s_native_or_float",
        "{__name__=~\"s_native_(seconds|or_float)\"}",
        "{__name__=~\"s_native_(seconds|custom|or_float)\"}",
    ],
    gauges: &["s_native_gauge", "s_native_gauge{room=\"1\"}"],
    buckets: &[
        "s_latency_seconds_bucket",
        "rate(s_latency_seconds_bucket[5m])",
        "sum by (le) (rate(s_latency_seconds_bucket[5m]))",
        "sum by (le, path) (s_latency_seconds_bucket)",
        "increase(s_latency_seconds_bucket{path=\"/x\"}[3m])",
        "s_latency_seconds_bucket{le!=\"+Inf\"}",
        "s_nonmonotonic_bucket",
        "rate(s_badle_bucket[5m])",
        "{__name__=~\"s_(latency_seconds|badle)_bucket\"}",
    ],
    matchers: &[
        "instance!=\"b\"",
        "instance=~\"a|b|\"",
        "instance!~\"c.*\"",
        "code!=\"500\"",
        "method=~\".*\"",
        "path!=\"/y\"",
        "le!=\"0.5\"",
        "nosuch=\"\"",
    ],
    labels: &["instance", "job", "code", "method", "le", "path", "room", "nosuch", "__name__", "version"],
    pairs: &[
        ("s_usage_bytes", "s_limit_bytes"),
        ("s_usage_bytes", "s_info"),
        ("s_twin_a", "s_twin_b"),
        ("s_temperature", "s_temperature offset 10m"),
        ("s_latency_seconds_bucket", "s_latency_seconds_bucket"),
        ("s_latency_seconds_sum", "s_latency_seconds_count"),
        ("s_requests_total{code=\"500\"}", "s_requests_total{code=\"200\"}"),
        ("s_requests_total", "s_info"),
        ("s_stale", "s_irregular"),
        ("s_special", "s_ramp"),
        ("s_churn_total", "s_ramp"),
    ],
};

#[test]
fn random_expressions_give_the_answers_of_prometheus() {
    let Some(peers) = Peers::find("generated queries") else { return };
    compare(&peers).unwrap_or_else(|e| panic!("{e:#}"));
}

struct Ask {
    path: &'static str,
    form: Vec<(&'static str, String)>,
    order: Order,
}

fn compare(peers: &Peers) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut reference = ServerSpec::new(Kind::Prometheus, &peers.prometheus(), &dir.path().join("reference"));
    reference.extra_args = vec![format!("--enable-feature=native-histograms,{FEATURES}").into()];
    let mut subject = ServerSpec::new(Kind::Chronolith, chronolith_bin(), &dir.path().join("subject"));
    let config = dir.path().join("chronolith.yml");
    std::fs::write(&config, format!("query: {{features: [{FEATURES}]}}\n"))?;
    subject.extra_args = vec!["--config".into(), config.into()];
    let (reference, subject) = (reference.start()?, subject.start()?);
    let start_ms = send(&[&reference, &subject])?;

    let number = |name: &str| std::env::var(name).ok().map(|v| v.parse::<u64>()).transpose();
    let first = number("CHRONOLITH_QUERY_SEED")?.unwrap_or(1);
    let count = number("CHRONOLITH_QUERIES")?.unwrap_or(QUERIES);
    let (mut of_reference, mut of_subject) = (reference.client(), subject.client());
    let mut tally = Tally::default();
    for seed in first..first + count {
        let ask = ask(seed, start_ms);
        let expected = ask.answer(&mut of_reference)?;
        let got = ask.answer(&mut of_subject).unwrap_or_else(|e| {
            of_subject = subject.client();
            Answer::Error { status: 0, error_type: "no answer".to_owned(), message: format!("{e:#}") }
        });
        tally.add(seed, ask, &expected, got);
    }
    tally.ask_again(&mut of_reference)?;
    tally.conclude()
}

/// Writes all generated series to the servers; returns when they start.
fn send(servers: &[&Server]) -> Result<i64> {
    let now_ms = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    let start_ms = (now_ms - 60_000) / 60_000 * 60_000 - stream::LENGTH_MS;
    let mut floats = stream::generate(start_ms);
    let histograms = stream::generate_histograms(start_ms, &mut floats);
    let bodies = stream::encode(&floats, &histograms);
    for server in servers {
        let mut client = server.client();
        for (i, body) in bodies.iter().enumerate() {
            let response = server.write(&mut client, body)?;
            let name = server.process().name();
            ensure!(response.ok(), "{name} refused request {i}: {} {}", response.status, response.text());
        }
    }
    Ok(start_ms)
}

fn ask(seed: u64, start_ms: i64) -> Ask {
    let mut rng = Rng::new(seed.wrapping_mul(0x9E37_79B9));
    let end_ms = start_ms + stream::LENGTH_MS;
    let mut source = Expressions::new(seed, WORDS, (start_ms, end_ms));
    let instant = rng.below(2) == 0;
    let depth = [1, 2, 2, 3, 3][rng.below(5) as usize];
    let text = source.expression(depth, instant);
    let seconds = |ms: i64| format!("{}.{:03}", ms.div_euclid(1_000), ms.rem_euclid(1_000));
    let within = |rng: &mut Rng| {
        if rng.below(25) == 0 {
            // The first and last samples, and the last time from which these are seen.
            let edge = [0, stream::LENGTH_MS, stream::LENGTH_MS + LOOKBACK_MS][rng.below(3) as usize];
            return start_ms + edge + [0, -1, 1][rng.below(3) as usize];
        }
        // Mostly where most series have begun and histories are long enough.
        let first = if rng.below(10) == 0 { 0 } else { stream::LENGTH_MS / 4 };
        let since = first + rng.below((stream::LENGTH_MS - first) as u64) as i64;
        let on_step = since / stream::STEP_MS * stream::STEP_MS;
        // At samples and the edges of windows, a millisecond beside them, and anywhere.
        start_ms + [on_step, on_step + 1, on_step - 1, since][rng.below(4) as usize]
    };
    // What the language leaves open has the order of Go's maps and heaps there, and of a head that forgot series.
    let open = ["histogram_", "count_values", "topk", "bottomk", "sort", "limit", "=~", ":"];
    let order = if open.iter().any(|name| text.contains(name)) { Order::Free } else { Order::Exact };
    if instant {
        let form = vec![("query", text), ("time", seconds(within(&mut rng)))];
        return Ask { path: "/api/v1/query", form, order };
    }
    let from = within(&mut rng);
    let length = [0, 600_000, 1_800_000, 1_234_567][rng.below(4) as usize];
    let step = ["30", "15", "60", "17.5", "300", "7.001", "3600"][rng.below(7) as usize];
    let form = vec![
        ("query", text),
        ("start", seconds(from)),
        ("end", seconds(from + length)),
        ("step", step.to_owned()),
    ];
    Ask { path: "/api/v1/query_range", form, order }
}

impl Ask {
    fn answer(&self, client: &mut Client) -> Result<Answer> {
        let form: Vec<(&str, &str)> = self.form.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let response = client.post_form(self.path, &form).with_context(|| self.line())?;
        Answer::parse(&response).with_context(|| self.line())
    }

    fn line(&self) -> String {
        let mut line = String::new();
        for (name, value) in self.form.iter().skip(1) {
            line += &format!("{name}={value} ");
        }
        line + &self.form[0].1
    }
}

#[derive(Default)]
struct Tally {
    asked: usize,
    with_data: usize,
    /// How many of the answers of Prometheus have data.
    expected_data: usize,
    errors: usize,
    differences: Vec<Differing>,
    /// Differences that are gone when Prometheus is asked again.
    unsteady: usize,
}

struct Differing {
    seed: u64,
    ask: Ask,
    got: Answer,
    text: String,
}

/// What differs, if anything does.
fn difference(ask: &Ask, expected: &Answer, got: &Answer) -> Option<String> {
    if is_newer(&ask.line(), expected, got) {
        return None;
    }
    let notes = (annotations(expected), annotations(got));
    let of_notes =
        || (notes.0 != notes.1).then(|| format!("annotations {:?} against {:?}", notes.0, notes.1));
    expected.difference(got, ask.order).map(|difference| difference.0).or_else(of_notes)
}

impl Tally {
    fn add(&mut self, seed: u64, ask: Ask, expected: &Answer, got: Answer) {
        self.asked += 1;
        self.with_data += usize::from(expected.has_data() && got.has_data());
        self.expected_data += usize::from(expected.has_data());
        self.errors += usize::from(matches!(expected, Answer::Error { .. }));
        if let Some(text) = difference(&ask, expected, &got) {
            self.differences.push(Differing { seed, ask, got, text });
        }
    }

    /// Prometheus gives some answers by the order of a map, and takes histograms for others while it uses their memory again: ours are to
    /// be what it says another time.
    fn ask_again(&mut self, reference: &mut Client) -> Result<()> {
        for differing in std::mem::take(&mut self.differences) {
            let mut differs = true;
            for _ in 0..TIMES_AGAIN {
                let expected = differing.ask.answer(reference)?;
                differs = difference(&differing.ask, &expected, &differing.got).is_some();
                if !differs {
                    break;
                }
            }
            if differs {
                self.differences.push(differing);
            } else {
                println!("Prometheus has two answers: seed {}: {}", differing.seed, differing.ask.line());
                self.unsteady += 1;
            }
        }
        Ok(())
    }

    fn conclude(self) -> Result<()> {
        println!(
            "{} queries, {} with data, {} on both sides, {} errors, {} with two answers of Prometheus, {} differences",
            self.asked,
            self.expected_data,
            self.with_data,
            self.errors,
            self.unsteady,
            self.differences.len()
        );
        let line = |of: &Differing| format!("seed {}: {}\n    {}", of.seed, of.ask.line(), of.text);
        let shown: Vec<String> = self.differences.iter().take(DIFFERENCES_SHOWN_MAX).map(line).collect();
        ensure!(shown.is_empty(), "{} differences:\n{}", self.differences.len(), shown.join("\n"));
        let unsteady = self.unsteady as f64 / self.asked.max(1) as f64;
        ensure!(unsteady <= UNSTEADY_SHARE_MAX, "{} queries have two answers of Prometheus", self.unsteady);
        let share = self.with_data as f64 / self.asked.max(1) as f64;
        ensure!(share >= DATA_SHARE_MIN, "only {:.0} % of the queries return data", share * 100.0);
        Ok(())
    }
}

/// Whether `got` is what only the successors of Prometheus 3.5.3 say to `query`: that a comparison that does not hold matches
/// more than once, one series of those that a negation or a change of labels makes equal at different times, that a rank is NaN
/// though there is nothing to rank, and no result where the counter resets of two histograms contradict each other. Or what it should be, while
/// the buckets of Prometheus do not add up to its count, its average of infinite histograms is NaN, or a power is that of a
/// subnormal number.
fn is_newer(query: &str, expected: &Answer, got: &Answer) -> bool {
    match (expected, got) {
        (Answer::Error { message, .. }, Answer::Success { .. }) => {
            let merged = ["-(", "label_replace(", "label_join("].iter().any(|part| query.contains(part));
            merged && message == "vector cannot contain metrics with the same labelset"
        }
        (Answer::Success { .. }, Answer::Error { message, .. }) => {
            message.starts_with("multiple matches for labels") || message == "Parameter value is NaN"
        }
        (expected, got) if !adds_up(expected) && adds_up(got) => true,
        (Answer::Success { .. }, Answer::Success { .. })
            if (query.contains("avg") && query.contains(" / 0)")) || query.contains("5e-324 ^") =>
        {
            true
        }
        (_, got) => ["addition", "subtraction"].iter().any(|operation| {
            let text = format!("conflicting counter resets during histogram {operation}");
            got.annotations().iter().any(|note| note.contains(&text))
        }),
    }
}

/// Whether the buckets of each histogram have as many observations as it says.
fn adds_up(answer: &Answer) -> bool {
    let fits = |(_, value): &Point| match value {
        Sampled::Histogram { count, buckets, .. } => {
            let sum: f64 = buckets.iter().map(|[.., observations]| observations).sum();
            !count.is_finite() || !sum.is_finite() || (sum - count).abs() <= 1e-6 * count.abs()
        }
        Sampled::Float(_) => true,
    };
    match answer {
        Answer::Success { data: Data::Vector(series), .. } => series.iter().all(|(_, point)| fits(point)),
        Answer::Success { data: Data::Matrix(series), .. } => {
            series.iter().all(|(_, all)| all.iter().all(fits))
        }
        _ => true,
    }
}

/// The annotations, without what Prometheus 3.5.3 says otherwise than its successors: empty metric names, that sorting has no effect
/// on a range, that counter resets contradict each other. Of more than ten it shows any ten.
fn annotations(answer: &Answer) -> Vec<String> {
    let mut all = crate::differential::annotations(answer);
    if let Some(omitted) = all.iter().find(|text| text.contains("annotations omitted")) {
        return vec![omitted.clone()];
    }
    let newer = ["sort is ineffective", "conflicting counter resets"];
    all.retain(|text| !newer.iter().any(|what| text.contains(what)));
    all.iter_mut().for_each(|text| *text = text.replace(" for metric name \"\"", ""));
    all.sort();
    all.dedup();
    all
}
