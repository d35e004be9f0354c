//! SIGKILL at random moments: what was acknowledged is there afterwards, and nothing else.
//!
//! Seen through the JSON API: values are compared bit for bit, except that the payload of a NaN does not survive JSON
//! and stale markers are invisible to queries; those bits are covered by the tests of the log and the head.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use chronolith_e2e::api::{Answer, Data, Point};
use chronolith_e2e::http::Client;
use chronolith_e2e::peers::chronolith_bin;
use chronolith_e2e::process::free_port;
use chronolith_e2e::remote_write::{HEADERS, WriteRequest, encode_labels};
use chronolith_e2e::rng::Rng;
use chronolith_e2e::servers::{Kind, READY_TIMEOUT, Server, ServerSpec};

const KILLS: usize = 24;
const SENDERS: usize = 3;
const SERIES_PER_SENDER: usize = 40;
/// After how many kills the whole ledger is checked, besides the end.
const AUDIT_EVERY: usize = 6;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Steps between the samples of a series in ms, which begin 40 minutes back: the whole run stays inside what the audit
/// asks for.
const STEP_MS: i64 = 50;
const AUDIT_RANGE: &str = "50m";

/// What one sender knows of one series: each sample's bits, and whether a 2xx covered it.
type Entry = BTreeMap<i64, (u64, bool)>;
/// Series number to its samples.
type Ledger = BTreeMap<usize, Entry>;

#[test]
fn acknowledged_samples_survive_sigkill_at_random_moments() {
    crash_run(Kind::Chronolith, chronolith_bin(), 0x5eed).unwrap_or_else(|e| panic!("{e:#}"));
}

fn crash_run(kind: Kind, program: &std::path::Path, seed: u64) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let spec = ServerSpec::new(kind, program, &dir.path().join("server"));
    let port = free_port();
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let stop = Arc::new(AtomicBool::new(false));
    let senders: Vec<Sender> = (0..SENDERS).map(|id| Sender::new(id, addr, seed)).collect::<Result<_>>()?;
    let mut threads: Vec<JoinHandle<Sender>> = Vec::new();
    let mut rng = Rng::new(seed);
    let mut senders = Some(senders);
    let mut acked_before = 0;

    for kill in 0..KILLS {
        let mut server = spec.spawn_on(port).with_context(|| format!("start {kill}"))?;
        if let Some(all) = senders.take() {
            stop.store(false, Ordering::Relaxed);
            threads = all.into_iter().map(|s| s.run(Arc::clone(&stop))).collect();
        }
        // Most kills hit a server that takes writes, some one that still replays.
        if rng.below(4) > 0 {
            server.wait_ready(READY_TIMEOUT).with_context(|| format!("restart {kill}"))?;
            std::thread::sleep(Duration::from_millis(rng.below(700)));
        } else {
            std::thread::sleep(Duration::from_millis(rng.below(150)));
        }
        server.kill();
        if (kill + 1) % AUDIT_EVERY == 0 {
            // The kill came first: requests in flight at that moment are in the ledger as sent, not as acknowledged.
            stop.store(true, Ordering::Relaxed);
            let done = join(&mut threads)?;
            let mut server = spec.spawn_on(port)?;
            server.wait_ready(READY_TIMEOUT).with_context(|| format!("restart after kill {kill}"))?;
            let acked =
                audit(&server, &done).with_context(|| format!("after kill {kill}, seed {seed:#x}"))?;
            ensure!(acked > acked_before, "no progress: {acked} samples acknowledged after kill {kill}");
            acked_before = acked;
            let status = server.stop()?;
            ensure!(status.success(), "graceful stop after a crash: {status}");
            senders = Some(done);
        }
    }
    println!("{KILLS} kills, {acked_before} acknowledged samples all there");
    Ok(())
}

fn join(threads: &mut Vec<JoinHandle<Sender>>) -> Result<Vec<Sender>> {
    threads.drain(..).map(|t| t.join().map_err(|_| anyhow::anyhow!("a sender panicked"))).collect()
}

/// Sends batches of its own series for ever, retrying or abandoning what was not answered.
struct Sender {
    id: usize,
    addr: SocketAddr,
    rng: Rng,
    encoded: Vec<Vec<u8>>,
    next_ms: i64,
    ledger: Ledger,
}

impl Sender {
    fn new(id: usize, addr: SocketAddr, seed: u64) -> Result<Self> {
        let now_ms = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
        let encoded = (0..SERIES_PER_SENDER)
            .map(|n| {
                let (sender, series) = (id.to_string(), n.to_string());
                let pairs = [("__name__", "crash_ledger"), ("sender", &sender), ("series", &series)];
                encode_labels(pairs)
            })
            .collect();
        Ok(Self {
            id,
            addr,
            rng: Rng::new(seed ^ (id as u64 + 1) << 32),
            encoded,
            next_ms: now_ms - 40 * 60_000,
            ledger: Ledger::new(),
        })
    }

    fn run(mut self, stop: Arc<AtomicBool>) -> JoinHandle<Self> {
        std::thread::spawn(move || {
            let mut client = Client::new(self.addr, REQUEST_TIMEOUT);
            while !stop.load(Ordering::Relaxed) {
                let batch = self.batch();
                self.deliver(&mut client, &batch, &stop);
            }
            self
        })
    }

    /// A few steps of some of the series.
    fn batch(&mut self) -> Vec<(usize, i64, u64)> {
        let mut batch = Vec::new();
        for _ in 0..=self.rng.below(4) {
            self.next_ms += STEP_MS + self.rng.below(20) as i64;
            for series in 0..SERIES_PER_SENDER {
                if self.rng.below(8) > 0 {
                    batch.push((series, self.next_ms, any_value(&mut self.rng)));
                }
            }
        }
        batch
    }

    fn deliver(&mut self, client: &mut Client, batch: &[(usize, i64, u64)], stop: &AtomicBool) {
        let mut request = WriteRequest::new();
        for &(series, t, bits) in batch {
            request.push_sample(&self.encoded[series], t, f64::from_bits(bits));
            self.ledger.entry(series).or_default().insert(t, (bits, false));
        }
        let body = request.take_body();
        let mut attempts = 0;
        loop {
            attempts += 1;
            match client.send("POST", "/api/v1/write", HEADERS, &body) {
                Ok(r) if r.ok() => {
                    for (series, t, _) in batch {
                        if let Some(sample) = self.ledger.get_mut(series).and_then(|e| e.get_mut(t)) {
                            sample.1 = true;
                        }
                    }
                    return;
                }
                // A repeated request may find its older samples stored already, and so out of order; that is an answer
                // but no acknowledgement. The first attempt has no such excuse.
                Ok(r) if r.status == 400 && attempts > 1 => return,
                Ok(r) if r.status < 500 => panic!("sender {}: {} {}", self.id, r.status, r.text()),
                _ => {}
            }
            // Like a sender that restarts, give some requests up: they may be stored or not.
            if stop.load(Ordering::Relaxed) || self.rng.below(4) == 0 {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Any finite value, infinities and zeros of both signs included.
fn any_value(rng: &mut Rng) -> u64 {
    match rng.below(16) {
        0 => f64::INFINITY.to_bits(),
        1 => (-0.0f64).to_bits(),
        2 => rng.below(1000),
        3..=9 => (rng.below(1_000_000) as f64).to_bits(),
        _ => {
            let bits = rng.next_u64();
            if f64::from_bits(bits).is_nan() { 0 } else { bits }
        }
    }
}

/// Compares what the server has with the ledgers; returns the number of acknowledged samples.
fn audit(server: &Server, senders: &[Sender]) -> Result<usize> {
    let mut client = server.client();
    let mut acked = 0;
    for sender in senders {
        for (series, entry) in &sender.ledger {
            let stored = read_back(&mut client, sender, *series)?;
            let place = |t: i64| format!("sender {} series {series} at {t}", sender.id);
            for (t, (bits, acknowledged)) in entry {
                acked += usize::from(*acknowledged);
                match stored.get(t) {
                    Some(got) if got == bits => {}
                    Some(got) => bail!("{}: sent {bits:#018x}, stored {got:#018x}", place(*t)),
                    None if *acknowledged => bail!("{}: acknowledged and lost", place(*t)),
                    None => {}
                }
            }
            if let Some(t) = stored.keys().find(|t| !entry.contains_key(*t)) {
                bail!("{}: stored and never sent", place(*t));
            }
        }
    }
    let expected: usize = senders.iter().map(|s| s.ledger.len()).sum();
    let listed = client.get("/api/v1/series?match[]=crash_ledger")?;
    let listed: serde_json::Value = serde_json::from_slice(&listed.body)?;
    let count = listed["data"].as_array().map_or(0, Vec::len);
    ensure!(count <= expected, "{count} series of which only {expected} were ever sent");
    Ok(acked)
}

fn read_back(client: &mut Client, sender: &Sender, series: usize) -> Result<BTreeMap<i64, u64>> {
    let query = format!("crash_ledger{{sender=\"{}\",series=\"{series}\"}}[{AUDIT_RANGE}]", sender.id);
    let time = format!("{}.{:03}", (sender.next_ms + 1) / 1000, (sender.next_ms + 1) % 1000);
    let response = client.post_form("/api/v1/query", &[("query", &query), ("time", &time)])?;
    match Answer::parse(&response)? {
        Answer::Success { data: Data::Matrix(mut m), .. } if m.len() <= 1 => {
            let points: Vec<Point> = m.pop().map(|(_, p)| p).unwrap_or_default();
            let bits = |(t, v): Point| Ok((t, v.as_float().context("a histogram among floats")?.to_bits()));
            points.into_iter().map(bits).collect()
        }
        other => bail!("{query}: {}", other.brief()),
    }
}

/// The audit must be able to fail: a sample that is claimed but was never sent is found.
#[test]
fn the_audit_notices_a_lost_sample() {
    let run = || -> Result<()> {
        let dir = tempfile::tempdir()?;
        let server =
            ServerSpec::new(Kind::Chronolith, chronolith_bin(), &dir.path().join("server")).start()?;
        let mut sender = Sender::new(0, server.addr(), 7)?;
        let mut client = server.client();
        let batch = sender.batch();
        let begin = Instant::now();
        sender.deliver(&mut client, &batch, &AtomicBool::new(false));
        ensure!(begin.elapsed() < REQUEST_TIMEOUT, "no answer to the first request");
        let senders = [sender];
        ensure!(
            audit(&server, &senders)? == batch.len(),
            "all samples of the batch are acknowledged and found"
        );
        let [mut sender] = senders;
        sender.next_ms += STEP_MS;
        let t = sender.next_ms;
        sender.ledger.entry(3).or_default().insert(t, (1.0f64.to_bits(), true));
        let error = audit(&server, &[sender]).expect_err("a sample is missing");
        ensure!(format!("{error:#}").contains("acknowledged and lost"), "{error:#}");
        Ok(())
    };
    run().unwrap_or_else(|e| panic!("{e:#}"));
}
