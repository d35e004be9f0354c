//! What nobody should ask, asked of Prometheus and of Chronolith: the same status, kind and text of error, promptly and
//! in bounded memory. Where they differ, a line of COMPAT.md says why, and each case names it.

mod expressions;
mod requests;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use chronolith_e2e::api::{Answer, Order};
use chronolith_e2e::http::{Client, Response, encode_form};
use chronolith_e2e::peers::{Peers, chronolith_bin, workspace_root};
use chronolith_e2e::remote_write::{WriteRequest, encode_labels};
use chronolith_e2e::servers::{Kind, Server, ServerSpec};
use serde_json::Value as Json;

use crate::scratch::now_ms;

/// Longest time Chronolith may take for an answer: a bound is what counts, on slow machines too.
const PATIENCE: Duration = Duration::from_secs(20);
/// What all cases together may leave behind.
const RSS_GROWTH_MAX: u64 = 200 << 20;
/// What the worst of them may hold meanwhile.
const PEAK_GROWTH_MAX: u64 = 512 << 20;
/// Most samples a query may hold, on both sides.
const SAMPLES_MAX: usize = 50_000;
const FEATURES: &str = "promql-experimental-functions";
const SHOWN_MAX: usize = 300;

const QUERY: &str = "/api/v1/query";
const RANGE: &str = "/api/v1/query_range";

/// When the samples are, in seconds: they end before `end`, which is a multiple of a minute.
#[derive(Debug, Clone, Copy)]
struct Times {
    end: i64,
}

/// A request, and what is said to it.
#[derive(Debug, Clone)]
struct Case {
    method: &'static str,
    target: String,
    form: String,
    said: Said,
}

/// Who says what.
#[derive(Debug, Clone)]
enum Said {
    /// Both the same.
    Same,
    /// Chronolith has `status`, as the line of COMPAT.md that begins with `line` says, and `text` in its answer.
    Own { line: &'static str, status: u16, text: &'static str },
    /// The same, and Prometheus is not asked: it would take minutes, or says now this, now that.
    Alone { line: &'static str, status: u16, text: &'static str },
}

impl Case {
    fn new(target: &str, form: &[(&str, &str)]) -> Self {
        Self::raw(target, encode_form(form))
    }

    /// A form that is encoded already.
    fn raw(target: &str, form: impl Into<String>) -> Self {
        Self { method: "POST", target: target.to_owned(), form: form.into(), said: Said::Same }
    }

    fn get(target: impl Into<String>) -> Self {
        Self { method: "GET", target: target.into(), form: String::new(), said: Said::Same }
    }

    /// An instant query at the end of the samples.
    fn instant(times: Times, query: impl AsRef<str>) -> Self {
        Self::new(QUERY, &[("query", query.as_ref()), ("time", &times.end.to_string())])
    }

    /// A range query of the last five minutes.
    fn range(times: Times, query: impl AsRef<str>) -> Self {
        let (start, end) = ((times.end - 300).to_string(), times.end.to_string());
        Self::new(RANGE, &[("query", query.as_ref()), ("start", &start), ("end", &end), ("step", "60")])
    }

    fn own(mut self, line: &'static str, status: u16, text: &'static str) -> Self {
        self.said = Said::Own { line, status, text };
        self
    }

    fn alone(mut self, line: &'static str, status: u16, text: &'static str) -> Self {
        self.said = Said::Alone { line, status, text };
        self
    }

    fn ask(&self, client: &mut Client) -> Result<Response> {
        let headers: &[(&str, &str)] = match self.method {
            "POST" => &[("Content-Type", "application/x-www-form-urlencoded")],
            _ => &[],
        };
        Ok(client.send(self.method, &self.target, headers, self.form.as_bytes())?)
    }

    fn title(&self) -> String {
        shortened(&format!("{} {} {}", self.method, self.target, self.form))
    }
}

fn shortened(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_MAX).collect();
    if shown.len() < text.len() {
        shown += &format!(" ... ({} bytes)", text.len());
    }
    shown
}

#[test]
fn bad_input_gets_the_answers_of_prometheus() {
    let Some(peers) = Peers::find("bad input") else { return };
    compare(&peers).unwrap_or_else(|e| panic!("{e:#}"));
}

fn compare(peers: &Peers) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut reference = ServerSpec::new(Kind::Prometheus, &peers.prometheus(), &dir.path().join("reference"));
    reference.extra_args = vec![
        format!("--enable-feature={FEATURES}").into(),
        format!("--query.max-samples={SAMPLES_MAX}").into(),
    ];
    let mut subject = ServerSpec::new(Kind::Chronolith, chronolith_bin(), &dir.path().join("subject"));
    let config = dir.path().join("chronolith.yml");
    std::fs::write(&config, format!("query: {{features: [{FEATURES}], sample_limit: {SAMPLES_MAX}}}\n"))?;
    subject.extra_args = vec!["--config".into(), config.into()];
    let (reference, subject) = (reference.start()?, subject.start()?);
    let times = Times { end: now_ms() / 60_000 * 60 };
    send(&[&reference, &subject], times)?;

    let cases = [expressions::cases(times), requests::cases(times)].concat();
    let compat = std::fs::read_to_string(workspace_root().join("COMPAT.md"))?;
    let (mut of_reference, mut of_subject) = (reference.client(), subject.client());
    // What is allocated once and kept is not theirs.
    ensure!(Case::range(times, "sum(rate(m[5m]))").ask(&mut of_subject)?.ok());
    let before = subject.process().stats()?;
    let mut faults = Vec::new();
    let mut slowest = (Duration::ZERO, String::new());
    let (all, mut ours) = (Instant::now(), Duration::ZERO);
    for case in &cases {
        let expected = match case.said {
            Said::Alone { .. } => None,
            _ => Some(case.ask(&mut of_reference)),
        };
        let begin = Instant::now();
        let got = case.ask(&mut of_subject);
        let took = begin.elapsed();
        ours += took;
        if took > slowest.0 {
            slowest = (took, case.title());
        }
        if took > PATIENCE {
            faults.push(format!("{}\n    took {took:?}", case.title()));
        }
        let fault = match (expected.transpose(), got) {
            (Ok(expected), Ok(got)) => difference(case, expected.as_ref(), &got, &compat),
            (expected, got) => {
                (of_reference, of_subject) = (reference.client(), subject.client());
                Some(format!("no answer: {:?} {:?}", expected.err(), got.err()))
            }
        };
        faults.extend(fault.map(|fault| format!("{}\n    {fault}", case.title())));
    }
    let after = subject.process().stats()?;
    let growth = |now: u64| now.saturating_sub(before.rss_bytes);
    println!(
        "{} cases, {} differences, {:?} in all, {ours:?} of them here; slowest {:?}: {}; resident {} MB before, {} MB \
         after, {} MB at most",
        cases.len(),
        faults.len(),
        all.elapsed(),
        slowest.0,
        slowest.1,
        before.rss_bytes >> 20,
        after.rss_bytes >> 20,
        after.hwm_bytes >> 20,
    );
    let log = subject.process().log_text();
    ensure!(!log.contains("panicked"), "{}", shortened(&log));
    ensure!(faults.is_empty(), "{} differences:\n{}", faults.len(), faults.join("\n"));
    ensure!(growth(after.rss_bytes) <= RSS_GROWTH_MAX, "{} MB stay", growth(after.rss_bytes) >> 20);
    ensure!(growth(after.hwm_bytes) <= PEAK_GROWTH_MAX, "{} MB at the peak", growth(after.hwm_bytes) >> 20);
    Ok(())
}

/// Ten minutes of a few series: `m{g,i}` of three groups, `twin` beside it with the same labels, `one{g}` with a series per
/// group, `x_bucket`.
fn send(servers: &[&Server], times: Times) -> Result<()> {
    let mut request = WriteRequest::new();
    let mut add = |labels: &[(&str, &str)], value: f64| {
        for at in 0..40 {
            let t = (times.end - 600 + at * 15) * 1_000;
            request.push_sample(&encode_labels(labels.iter().copied()), t, value + at as f64);
        }
    };
    for (value, (g, i)) in
        [("a", "1"), ("a", "2"), ("b", "3"), ("b", "4"), ("c", "5")].into_iter().enumerate()
    {
        for name in ["m", "twin"] {
            add(&[("__name__", name), ("g", g), ("i", i)], value as f64);
        }
    }
    for g in ["a", "b", "c"] {
        add(&[("__name__", "one"), ("g", g)], 1.0);
    }
    for le in ["+Inf", "0.5", "abc"] {
        add(&[("__name__", "x_bucket"), ("le", le)], 1.0);
    }
    let body = request.take_body();
    for server in servers {
        let response = server.write(&mut server.client(), &body)?;
        ensure!(response.ok(), "{}: {} {}", server.process().name(), response.status, response.text());
    }
    Ok(())
}

fn difference(case: &Case, expected: Option<&Response>, got: &Response, compat: &str) -> Option<String> {
    let (expected, got) = (expected.map(Told::of), Told::of(got));
    let (Said::Own { line, status, text } | Said::Alone { line, status, text }) = case.said else {
        return expected?.difference(&got);
    };
    if !is_listed(compat, line) {
        return Some(format!("COMPAT.md has no line {line:?}"));
    }
    if got.status != status || !got.text().contains(text) {
        return Some(format!("{} is not {status} {text:?} ({line:?} of COMPAT.md)", got.brief()));
    }
    let same = expected.is_some_and(|expected| expected.difference(&got).is_none());
    same.then(|| format!("no difference, though {line:?} of COMPAT.md says so: {}", got.brief()))
}

fn is_listed(compat: &str, line: &str) -> bool {
    compat.lines().any(|row| row.strip_prefix("| ").is_some_and(|row| row.starts_with(line)))
}

/// The annotations, without what Prometheus 3.5.3 says otherwise than its successors.
fn annotations(answer: &Answer) -> Vec<String> {
    let all = answer.annotations().iter();
    let all = all.filter(|text| !text.contains("sort is ineffective"));
    all.map(|text| text.replace(" for metric name \"\"", "")).collect()
}

/// The error about two series that match one, with the two in order, as the successors of Prometheus 3.5.3 have them.
fn with_sorted_pair(error: &str) -> Option<String> {
    let (head, rest) = error.split_once(": [{")?;
    let (pair, tail) = rest.split_once("}];many-to-many")?;
    let (one, other) = pair.split_once("}, {")?;
    let (first, second) = if one < other { (one, other) } else { (other, one) };
    Some(format!("{head}: [{{{first}}}, {{{second}}}];many-to-many{tail}"))
}

/// What an answer says, as far as it is compared.
struct Told {
    status: u16,
    body: Json,
    answer: Option<Answer>,
}

impl Told {
    fn of(response: &Response) -> Self {
        let mut body =
            serde_json::from_slice(&response.body).unwrap_or_else(|_| Json::String(response.text()));
        if let Some(Json::String(error)) = body.get_mut("error")
            && let Some(sorted) = with_sorted_pair(error)
        {
            *error = sorted;
        }
        // Series come in the order of storage there.
        if let Some(list) = body.get_mut("data").and_then(Json::as_array_mut) {
            list.sort_by_cached_key(Json::to_string);
        }
        Self { status: response.status, body, answer: Answer::parse(response).ok() }
    }

    fn kind(&self) -> &str {
        self.body["errorType"].as_str().unwrap_or_default()
    }

    /// The text of the error, or the whole of an answer that is none of the API's.
    fn text(&self) -> &str {
        self.body["error"].as_str().or(self.body.as_str()).unwrap_or_default()
    }

    fn brief(&self) -> String {
        shortened(&format!("{} {}", self.status, self.body))
    }

    fn difference(&self, other: &Self) -> Option<String> {
        let brief = || Some(format!("{} against {}", self.brief(), other.brief()));
        if (self.status, self.kind(), self.text()) != (other.status, other.kind(), other.text()) {
            return brief();
        }
        match (&self.answer, &other.answer) {
            // Which of several series comes first is not what this is about.
            (Some(a), Some(b)) => match a.difference(b, Order::Free) {
                Some(difference) => Some(difference.0),
                None => {
                    let (a, b) = (annotations(a), annotations(b));
                    (a != b).then(|| format!("{a:?} against {b:?}"))
                }
            },
            _ if self.body != other.body => brief(),
            _ => None,
        }
    }
}
