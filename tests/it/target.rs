//! A scrape target inside the test: it can restart, disappear and churn.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chronolith_e2e::rng::Rng;

/// A listening target; dropping it closes its port.
#[derive(Debug)]
pub(crate) struct Target {
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Target {
    /// Listens on `addr` (port 0: any). Counters start at zero, as after a restart of the program.
    pub(crate) fn start(addr: SocketAddr, seed: u64) -> std::io::Result<Self> {
        let listener = TcpListener::bind(addr)?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut state = State::new(seed);
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        // A scraper that hangs up early is its own problem.
                        let _ = answer(stream, &state.exposition());
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        Ok(Self { addr, stop, thread: Some(thread) })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(mut stream: TcpStream, body: &str) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut head = Vec::new();
    let mut byte = [0; 512];
    while !head.windows(4).any(|w| w == b"\r\n\r\n") && head.len() < 16 * 1024 {
        match stream.read(&mut byte)? {
            0 => break,
            n => head.extend_from_slice(&byte[..n]),
        }
    }
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

struct State {
    rng: Rng,
    started: Instant,
    events: f64,
    latency: [f64; 4],
    latency_sum: f64,
}

const BOUNDS: [&str; 4] = ["0.1", "0.5", "1", "+Inf"];
/// How long a churning series lives.
const LIFE_SECONDS: u64 = 6;

impl State {
    fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            started: Instant::now(),
            events: 0.0,
            latency: [0.0; 4],
            latency_sum: 0.0,
        }
    }

    fn exposition(&mut self) -> String {
        self.events += self.rng.below(20) as f64;
        for _ in 0..self.rng.below(6) {
            let seconds = self.rng.unit() * 1.5;
            self.latency_sum += seconds;
            for (count, bound) in self.latency.iter_mut().zip([0.1, 0.5, 1.0, f64::INFINITY]) {
                *count += f64::from(u8::from(seconds <= bound));
            }
        }
        let seconds = self.started.elapsed().as_secs();
        let mut out = String::new();
        let mut line = |text: std::fmt::Arguments<'_>| writeln!(out, "{text}").expect("writing to a String");
        line(format_args!("# TYPE gen_events_total counter\ngen_events_total {}", self.events));
        line(format_args!("# TYPE gen_level gauge\ngen_level {}", self.rng.unit() * 100.0 - 50.0));
        line(format_args!("gen_strange{{v=\"nan\"}} NaN\ngen_strange{{v=\"inf\"}} +Inf"));
        line(format_args!("# TYPE gen_latency_seconds histogram"));
        for (count, bound) in self.latency.iter().zip(BOUNDS) {
            line(format_args!("gen_latency_seconds_bucket{{le=\"{bound}\"}} {count}"));
        }
        line(format_args!("gen_latency_seconds_sum {}", self.latency_sum));
        line(format_args!("gen_latency_seconds_count {}", self.latency[3]));
        line(format_args!("# TYPE gen_churn gauge"));
        for id in 0..3 {
            // Three series that are replaced at different seconds.
            line(format_args!("gen_churn{{id=\"{}-{id}\"}} {seconds}", (seconds + id * 2) / LIFE_SECONDS));
        }
        if seconds % 4 < 2 {
            line(format_args!("gen_flapping {seconds}"));
        }
        out
    }
}
