//! Chronolith beside Prometheus: the same scrapes, the same stream, the same questions.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use chronolith_e2e::api::{Answer, Data, Order};
use chronolith_e2e::http::encode_form;
use chronolith_e2e::peers::{Peers, chronolith_bin};
use chronolith_e2e::process::{Process, free_port};
use chronolith_e2e::servers::{Kind, Server, ServerSpec};
use serde_json::Value as Json;

use crate::questions::{Instants, questions};
use crate::stream;
use crate::target::Target;

/// How long the targets are scraped.
const SCRAPE_TIME: Duration = Duration::from_secs(64);
/// How far `W` lies before the end of the scrapes.
const SCRAPE_MARGIN_MS: i64 = 4_000;
const FLUSH_TIMEOUT: Duration = Duration::from_secs(60);
/// Share of the queries that must return data on both sides.
const DATA_SHARE_MIN: f64 = 0.8;
const DIFFERENCES_SHOWN_MAX: usize = 40;

#[test]
fn answers_equal_prometheus_for_scraped_and_generated_series() {
    let Some(peers) = Peers::find("differential") else { return };
    compare_with_prometheus(&peers, Kind::Chronolith, chronolith_bin()).unwrap_or_else(|e| panic!("{e:#}"));
}

/// Shows that the comparison itself is fair: Prometheus differs nowhere from Prometheus.
#[test]
#[ignore = "checks the harness, not Chronolith; run it after changing the harness or the queries"]
fn prometheus_equals_itself() {
    let Some(peers) = Peers::find("differential self-check") else { return };
    compare_with_prometheus(&peers, Kind::Prometheus, &peers.prometheus())
        .unwrap_or_else(|e| panic!("{e:#}"));
}

/// The programs of the test: `reference` scrapes and forwards to `subject`.
struct Scene {
    dir: tempfile::TempDir,
    reference: Server,
    subject: Server,
    node: Process,
    node_addr: SocketAddr,
}

fn compare_with_prometheus(peers: &Peers, kind: Kind, program: &Path) -> Result<()> {
    let scene = Scene::start(peers, kind, program)?;
    let stream_start_ms = scene.send_stream()?;
    let scrape_ms = scene.scrape()?;
    scene.wait_flushed()?;
    let instants = Instants { stream_start_ms, scrape_ms };
    let mut report = Report::default();
    scene.compare_queries(instants, &mut report)?;
    scene.compare_label_endpoints(instants, &mut report)?;
    drop(scene.node);
    report.conclude()
}

impl Scene {
    fn start(peers: &Peers, kind: Kind, program: &Path) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let reference =
            ServerSpec::new(Kind::Prometheus, &peers.prometheus(), &dir.path().join("reference")).start()?;
        let subject = ServerSpec::new(kind, program, &dir.path().join("subject")).start()?;
        let node_addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut command = Command::new(peers.node_exporter());
        command.arg(format!("--web.listen-address={node_addr}"));
        let node = Process::spawn("node_exporter", command, &dir.path().join("node.log"))?;
        Ok(Self { dir, reference, subject, node, node_addr })
    }

    /// Writes the generated stream to both servers; returns its start.
    ///
    /// This comes before any scrape: a Prometheus that has seen a sample of now refuses older ones.
    fn send_stream(&self) -> Result<i64> {
        let now_ms = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
        let end_ms = (now_ms - 60_000) / 60_000 * 60_000;
        let start_ms = end_ms - stream::LENGTH_MS;
        let bodies = stream::encode(&stream::generate(start_ms), &stream::Histograms::new());
        for server in [&self.reference, &self.subject] {
            let mut client = server.client();
            for (i, body) in bodies.iter().enumerate() {
                let response = server.write(&mut client, body)?;
                ensure!(
                    response.ok(),
                    "{} refused request {i} of the stream: {} {}",
                    server.process().name(),
                    response.status,
                    response.text()
                );
            }
        }
        Ok(start_ms)
    }

    /// Lets Prometheus scrape and forward for [`SCRAPE_TIME`] while targets restart, disappear and churn; returns the
    /// time of an actual scrape near the end.
    fn scrape(&self) -> Result<i64> {
        let any = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let steady = Target::start(any, 1)?;
        let any = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let restarting = Target::start(any, 2)?;
        let any = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let leaving = Target::start(any, 3)?;
        let restart_addr = restarting.addr();
        self.write_targets(&[steady.addr(), restart_addr, leaving.addr()])?;
        self.configure(true)?;

        let begin = Instant::now();
        let sleep_until = |seconds: u64| {
            std::thread::sleep(Duration::from_secs(seconds).saturating_sub(begin.elapsed()));
        };
        sleep_until(30);
        drop(restarting);
        sleep_until(36);
        let restarted = Target::start(restart_addr, 4)?;
        sleep_until(42);
        self.write_targets(&[steady.addr(), restart_addr])?;
        drop(leaving);
        sleep_until(SCRAPE_TIME.as_secs());
        let now_ms = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
        let scrape_ms = self.last_scrape(now_ms - SCRAPE_MARGIN_MS, steady.addr())?;
        // Nothing may change any more while the two are compared.
        self.configure(false)?;
        drop(restarted);
        Ok(scrape_ms)
    }

    fn write_targets(&self, addrs: &[SocketAddr]) -> Result<()> {
        let targets: Vec<String> = addrs.iter().map(ToString::to_string).collect();
        let path = self.dir.path().join("targets.json");
        let staged = self.dir.path().join("targets.json.new");
        fs::write(&staged, serde_json::json!([{ "targets": targets }]).to_string())?;
        fs::rename(&staged, &path)?;
        Ok(())
    }

    /// Writes the configuration of the reference and has it loaded.
    fn configure(&self, scrape: bool) -> Result<()> {
        let mut text = String::from("global: {scrape_interval: 1s, scrape_timeout: 900ms}\n");
        text += &format!(
            "remote_write: [{{url: 'http://{}/api/v1/write', queue_config: {{batch_send_deadline: 500ms}}}}]\n",
            self.subject.addr()
        );
        if scrape {
            text += "scrape_configs:\n";
            let fixed = [
                ("node", self.node_addr),
                ("prometheus", self.reference.addr()),
                ("subject", self.subject.addr()),
            ];
            for (job, addr) in fixed {
                text += &format!("- {{job_name: {job}, static_configs: [{{targets: ['{addr}']}}]}}\n");
            }
            let file = self.dir.path().join("targets.json");
            text += &format!(
                "- {{job_name: generated, file_sd_configs: [{{files: ['{}'], refresh_interval: 1s}}]}}\n",
                file.display()
            );
        }
        fs::write(self.reference.spec().config_file(), text)?;
        let response = self.reference.client().send("POST", "/-/reload", &[], &[])?;
        ensure!(response.ok(), "reload: {} {}", response.status, response.text());
        Ok(())
    }

    fn last_scrape(&self, before_ms: i64, target: SocketAddr) -> Result<i64> {
        let expr = format!("timestamp(gen_level{{instance=\"{target}\"}})");
        match ask_at(&self.reference, &expr, before_ms)? {
            Answer::Success { data: Data::Vector(v), .. } if v.len() == 1 => {
                let seconds = v[0].1.1.as_float().context("a histogram as a time")?;
                Ok((seconds * 1000.0).round() as i64)
            }
            other => bail!("no scrape of {target} before {before_ms}: {}", other.brief()),
        }
    }

    /// Waits until the subject has what the reference has, and checks that nothing was refused on the way.
    fn wait_flushed(&self) -> Result<()> {
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        // Twice in a row: the same number of series with the same latest samples on both sides.
        let mut equal = 0;
        while equal < 2 {
            std::thread::sleep(Duration::from_secs(1));
            let now_ms = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
            equal += 1;
            for expr in [
                "count({job=~\".+\"})".to_owned(),
                format!("sum(timestamp({{job=~\".+\"}}) - {})", now_ms / 1000),
            ] {
                let (expected, got) =
                    (ask_at(&self.reference, &expr, now_ms)?, ask_at(&self.subject, &expr, now_ms)?);
                if let Some(d) = expected.difference(&got, Order::Exact) {
                    equal = 0;
                    ensure!(Instant::now() < deadline, "not flushed after {FLUSH_TIMEOUT:?}: {expr}: {d}");
                }
            }
        }
        let metrics = self.reference.client().get("/metrics")?.text();
        for name in [
            "prometheus_remote_storage_samples_failed_total",
            "prometheus_remote_storage_samples_dropped_total",
        ] {
            let lost: f64 = metrics
                .lines()
                .filter(|l| l.starts_with(name))
                .filter_map(|l| l.rsplit_once(' '))
                .filter_map(|(_, v)| v.parse::<f64>().ok())
                .sum();
            ensure!(
                lost == 0.0,
                "{name} is {lost}; the log ends:\n{}",
                self.reference.process().log_tail(10)
            );
        }
        Ok(())
    }

    fn compare_queries(&self, instants: Instants, report: &mut Report) -> Result<()> {
        let (mut reference, mut subject) = (self.reference.client(), self.subject.client());
        for question in questions(instants)? {
            let expected = question.ask(&mut reference)?;
            let got = match question.ask(&mut subject) {
                Ok(got) => got,
                Err(e) => {
                    report.differ(&question.line, &format!("{e:#}"));
                    subject = self.subject.client();
                    continue;
                }
            };
            report.queries += 1;
            report.with_data += usize::from(expected.has_data() && got.has_data());
            if let Some(d) = expected.difference(&got, question.order) {
                report.differ(&question.line, &d.0);
            } else if annotations(&expected) != annotations(&got) {
                let text =
                    format!("annotations {:?} against {:?}", expected.annotations(), got.annotations());
                report.differ(&question.line, &text);
            }
        }
        Ok(())
    }

    fn compare_label_endpoints(&self, instants: Instants, report: &mut Report) -> Result<()> {
        let start = (instants.stream_start_ms / 1000).to_string();
        let end = (instants.scrape_ms / 1000 + 60).to_string();
        let range = [("start", start.as_str()), ("end", end.as_str())];
        let cases: &[(&str, &[&str])] = &[
            ("labels", &[]),
            ("labels", &["s_requests_total"]),
            ("labels", &["s_odd", "{job=\"node\",__name__=~\"node_cpu.*\"}"]),
            ("labels", &["nosuchmetric"]),
            ("labels", &["{"]),
            ("label/__name__/values", &[]),
            ("label/job/values", &[]),
            ("label/instance/values", &["s_requests_total"]),
            ("label/le/values", &[]),
            ("label/gen/values", &["s_churn_total{gen=~\"g1.*\"}"]),
            ("label/value/values", &["s_odd"]),
            ("label/nosuch/values", &[]),
            ("label/id/values", &["gen_churn"]),
            ("label/instance/values", &["up{job=\"generated\"}"]),
            ("series", &["s_requests_total{code=\"500\"}"]),
            ("series", &["s_odd", "s_info"]),
            ("series", &["{__name__=~\"s_.*\"}"]),
            ("series", &["{job=~\".+\"}"]),
            ("series", &["nosuchmetric"]),
            ("series", &["{}"]),
            ("series", &[]),
        ];
        let (mut reference, mut subject) = (self.reference.client(), self.subject.client());
        for (path, selectors) in cases {
            let mut form = range.to_vec();
            form.extend(selectors.iter().map(|s| ("match[]", *s)));
            let target = format!("/api/v1/{path}?{}", encode_form(&form));
            let (expected, got) = (reference.get(&target)?, subject.get(&target)?);
            let what = format!("{path} {selectors:?}");
            report.endpoints += 1;
            if expected.status != got.status {
                report.differ(&what, &format!("status {} against {}", expected.status, got.status));
                continue;
            }
            let parse = |body: &[u8]| serde_json::from_slice::<Json>(body);
            let (expected, got) = (parse(&expected.body)?, parse(&got.body).context(what.clone())?);
            if expected["errorType"] != got["errorType"] {
                report.differ(&what, &format!("{} against {}", expected["errorType"], got["errorType"]));
            }
            if let Some(d) = list_difference(&expected["data"], &got["data"]) {
                report.differ(&what, &d);
            }
        }
        Ok(())
    }
}

/// The annotations without what Prometheus 3.5.3 says otherwise than its successors: where and by how much buckets were forced
/// to be monotonic, and of which metric what is wrong with buckets is.
pub(crate) fn annotations(answer: &Answer) -> Vec<String> {
    let shorten = |text: &String| {
        let of_buckets = ["for monotonicity", "bucket label"].iter().any(|what| text.contains(what));
        let behind =
            text.find(", from buckets ").or_else(|| text.find(" for metric name \"").filter(|_| of_buckets));
        match (behind, text.rfind(" (")) {
            (Some(from), Some(place)) if from < place => format!("{}{}", &text[..from], &text[place..]),
            _ => text.clone(),
        }
    };
    answer.annotations().iter().map(shorten).collect()
}

fn list_difference(expected: &Json, got: &Json) -> Option<String> {
    if expected == got {
        return None;
    }
    let (Some(e), Some(g)) = (expected.as_array(), got.as_array()) else {
        return Some(format!("{expected} against {got}"));
    };
    let missing: Vec<_> = e.iter().filter(|x| !g.contains(x)).take(3).collect();
    let extra: Vec<_> = g.iter().filter(|x| !e.contains(x)).take(3).collect();
    if missing.is_empty() && extra.is_empty() {
        let at = e.iter().zip(g).position(|(x, y)| x != y);
        return Some(format!("the same {} elements in another order, from {at:?} on", e.len()));
    }
    Some(format!("{} elements against {}, missing {missing:?}, extra {extra:?}", e.len(), g.len()))
}

fn ask_at(server: &Server, expr: &str, at_ms: i64) -> Result<Answer> {
    let time = format!("{}.{:03}", at_ms / 1000, at_ms % 1000);
    let response = server.client().post_form("/api/v1/query", &[("query", expr), ("time", &time)])?;
    Answer::parse(&response)
}

#[derive(Default)]
struct Report {
    queries: usize,
    with_data: usize,
    endpoints: usize,
    differences: BTreeMap<String, String>,
}

impl Report {
    fn differ(&mut self, what: &str, how: &str) {
        self.differences.insert(what.to_owned(), how.to_owned());
    }

    fn conclude(self) -> Result<()> {
        println!(
            "{} queries, {} with data on both sides, {} label endpoints, {} differences",
            self.queries,
            self.with_data,
            self.endpoints,
            self.differences.len()
        );
        let mut text = String::new();
        for (what, how) in self.differences.iter().take(DIFFERENCES_SHOWN_MAX) {
            text += &format!("{what}\n    {}\n", how.chars().take(600).collect::<String>());
        }
        ensure!(self.differences.is_empty(), "{} differences:\n{text}", self.differences.len());
        let share = self.with_data as f64 / self.queries.max(1) as f64;
        ensure!(share >= DATA_SHARE_MIN, "only {:.0} % of the queries return data", share * 100.0);
        Ok(())
    }
}
