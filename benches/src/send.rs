//! Sends a load as fast as the server takes it and times every acknowledgement.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use chronolith_e2e::http::Client;
use chronolith_e2e::remote_write::HEADERS;

use crate::load::{Body, Load};

/// Attempts for a request that is answered 5xx (or not at all) before the run is given up.
pub const ATTEMPTS_MAX: usize = 200;
const RETRY_PAUSE: Duration = Duration::from_millis(50);
const TIMEOUT: Duration = Duration::from_secs(60);
const REFUSALS_KEPT_MAX: usize = 3;

/// What happened to a load.
#[derive(Debug, Clone, Default)]
pub struct SendReport {
    /// From the first byte to the last acknowledgement.
    pub wall: Duration,
    /// Samples in requests answered 2xx.
    pub acked_samples: usize,
    /// Acknowledgement latencies of the successful attempts, sorted.
    pub latencies: Vec<Duration>,
    /// Attempts answered 5xx or broken, all retried.
    pub retries: usize,
    /// Requests answered 4xx, not retried.
    pub refused: usize,
    /// The first refusals.
    pub refusals: Vec<String>,
}

impl SendReport {
    /// The latency that `quantile` (0..=1) of the requests stayed within.
    #[must_use]
    pub fn latency(&self, quantile: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        let rank = (quantile * last as f64).round() as usize;
        self.latencies.get(rank.min(last)).copied().unwrap_or_default()
    }

    fn merge(&mut self, other: Self) {
        self.acked_samples += other.acked_samples;
        self.latencies.extend(other.latencies);
        self.retries += other.retries;
        self.refused += other.refused;
        self.refusals.extend(other.refusals);
        self.refusals.truncate(REFUSALS_KEPT_MAX);
    }
}

/// Sends every body, each connection in order.
///
/// # Errors
/// A request is still refused with 5xx, or unanswered, after [`ATTEMPTS_MAX`] attempts.
pub fn send(load: &Load, addr: SocketAddr) -> Result<SendReport> {
    let start = Instant::now();
    let parts: Vec<Result<SendReport>> = std::thread::scope(|scope| {
        let senders: Vec<_> =
            load.bodies.iter().map(|bodies| scope.spawn(move || send_connection(bodies, addr))).collect();
        senders.into_iter().map(|s| s.join().expect("a sending thread does not panic")).collect()
    });
    let mut report = SendReport::default();
    for part in parts {
        report.merge(part?);
    }
    report.wall = start.elapsed();
    report.latencies.sort_unstable();
    Ok(report)
}

fn send_connection(bodies: &[Body], addr: SocketAddr) -> Result<SendReport> {
    let mut client = Client::new(addr, TIMEOUT);
    let mut report = SendReport { latencies: Vec::with_capacity(bodies.len()), ..SendReport::default() };
    for body in bodies {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let sent = Instant::now();
            let answer = client.send("POST", "/api/v1/write", HEADERS, &body.bytes);
            match answer {
                Ok(r) if r.ok() => {
                    report.latencies.push(sent.elapsed());
                    report.acked_samples += body.samples;
                    break;
                }
                Ok(r) if r.status < 500 && r.status != 429 => {
                    report.refused += 1;
                    if report.refusals.len() < REFUSALS_KEPT_MAX {
                        report.refusals.push(format!("{}: {}", r.status, r.text().trim()));
                    }
                    break;
                }
                other if attempts == ATTEMPTS_MAX => bail!("{addr} refuses a request for good: {other:?}"),
                _ => {
                    report.retries += 1;
                    std::thread::sleep(RETRY_PAUSE);
                }
            }
        }
    }
    Ok(report)
}
