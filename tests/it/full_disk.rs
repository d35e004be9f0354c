//! A disk that is full, and a file that may not grow: 503, nothing acknowledged is lost, and it goes on afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use chronolith_e2e::http::Client;
use chronolith_e2e::peers::skip;
use chronolith_e2e::process::{Process, free_port};
use chronolith_e2e::remote_write::{WriteRequest, encode_labels};
use chronolith_e2e::rng::Rng;

use crate::scratch::{Scratch, may_not_mount, now_ms, read, with_own_mounts, write};

const SERIES: usize = 50;
const STEPS: usize = 20;
const REQUESTS_MAX: usize = 3_000;
const RECOVERY: Duration = Duration::from_secs(30);
const READY: Duration = Duration::from_secs(20);

/// Writes random samples and keeps what was acknowledged.
struct Writer {
    rng: Rng,
    encoded: Vec<Vec<u8>>,
    t: i64,
    acked: BTreeMap<i64, Vec<u64>>,
    attempted: BTreeMap<i64, Vec<u64>>,
}

impl Writer {
    fn new() -> Self {
        let encoded = (0..SERIES)
            .map(|i| encode_labels([("__name__", "full"), ("series", format!("{i:03}").as_str())]))
            .collect();
        Self {
            rng: Rng::new(5),
            encoded,
            t: now_ms() - 3_000_000,
            acked: BTreeMap::new(),
            attempted: BTreeMap::new(),
        }
    }

    /// Sends one request; returns its status.
    fn send(&mut self, client: &mut Client) -> u16 {
        let mut request = WriteRequest::new();
        let mut sent = BTreeMap::new();
        for _ in 0..STEPS {
            self.t += 40;
            let values: Vec<u64> = (0..SERIES).map(|_| self.rng.unit().to_bits()).collect();
            for (encoded, bits) in self.encoded.iter().zip(&values) {
                request.push_sample(encoded, self.t, f64::from_bits(*bits));
            }
            sent.insert(self.t, values);
        }
        self.attempted.extend(sent.clone());
        let response = write(client, &request.take_body()).expect("an answer");
        if response.ok() {
            self.acked.extend(sent);
        } else {
            assert_eq!(response.status, 503, "{}", response.text());
            assert!(response.header("retry-after").is_some(), "503 without Retry-After");
        }
        response.status
    }

    /// Everything acknowledged is there, and nothing is there that was not sent.
    fn audit(&self, client: &mut Client) {
        let stored = read(client, "full[2h]", self.t).expect("an answer");
        for (labels, samples) in &stored {
            let series: usize = labels["series"].parse().expect("a number");
            for (t, v) in samples {
                let sent = self.attempted.get(t).map(|values| values[series]);
                assert_eq!(sent, Some(v.to_bits()), "{labels:?} at {t}: stored and never sent");
            }
        }
        let count = |t: &i64| stored.values().filter(|s| s.binary_search_by_key(t, |p| p.0).is_ok()).count();
        for t in self.acked.keys() {
            assert_eq!(count(t), SERIES, "acknowledged at {t} and lost");
        }
    }
}

#[test]
fn a_full_disk_refuses_writes_and_loses_nothing() {
    let scratch = Scratch::new();
    let mount = scratch.dir.path().join("mount");
    fs::create_dir(&mount).expect("a directory");
    let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
    // A small file system that only this server sees. The ballast is freed when the disk is to have room again.
    let script = "mount -t tmpfs -o size=12m tmpfs \"$1\" || exit 77
        head -c 4194304 /dev/zero > \"$1/ballast\" || exit 77
        shift; exec \"$@\"";
    // The reserve is larger than this disk: nothing would be taken from the start.
    let config = scratch.dir.path().join("chronolith.yml");
    fs::write(&config, "storage:\n  disk_reserve: 0B\n").expect("a configuration");
    let mut command = with_own_mounts(script);
    command.arg(&mount).arg(&scratch.spec.program);
    command.args(["serve", "--no-self-scrape", "--listen", &addr.to_string(), "--data-dir"]);
    command.arg(mount.join("data")).arg("--config").arg(&config);
    let log = scratch.dir.path().join("log");
    let Ok(mut process) = Process::spawn("chronolith", command, &log) else {
        return skip("full disk", "there is no unshare");
    };
    if !wait_ready(&mut process, addr) {
        let text = process.log_text();
        let status = process.exited().expect("a status");
        assert!(may_not_mount(status, &text), "{status:?}: {text}");
        return skip("full disk", &format!("mounting needs privileges: {text}"));
    }
    let mut client = Client::new(addr, Duration::from_secs(20));
    let mut writer = Writer::new();
    let filled = (0..REQUESTS_MAX).find(|_| writer.send(&mut client) == 503);
    assert!(filled.is_some(), "{} requests fit into 8 MiB", REQUESTS_MAX);
    assert!(!writer.acked.is_empty());
    for _ in 0..5 {
        writer.send(&mut client);
    }
    writer.audit(&mut client);
    assert!(client.get("/-/healthy").expect("an answer").ok());
    let ballast = format!("/proc/{}/root{}", process.pid(), mount.join("ballast").display());
    fs::remove_file(Path::new(&ballast)).expect("the ballast");
    let deadline = Instant::now() + RECOVERY;
    while writer.send(&mut client) == 503 {
        assert!(
            Instant::now() < deadline,
            "no recovery although there is room; log:\n{}",
            process.log_tail(20)
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    writer.audit(&mut client);
    let text = process.log_text();
    assert!(!text.contains("panicked"), "{text:.4000}");
    let status = process.stop(READY).expect("a graceful stop");
    assert!(status.success(), "{status}: {}", process.log_tail(10));
}

/// `ulimit -f`: writes fail with EFBIG in the middle of a segment. Needs no privileges.
#[test]
fn a_file_that_may_not_grow_loses_nothing() {
    let scratch = Scratch::new();
    let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
    // The signal that goes with the limit would kill; ignored, the write fails instead. Blocks of 512 bytes: 1 MiB.
    let script = "trap '' XFSZ; ulimit -f 2048; exec \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(&scratch.spec.program);
    command.args(["serve", "--no-self-scrape", "--listen", &addr.to_string(), "--data-dir"]);
    command.arg(scratch.spec.data_dir());
    let log = scratch.dir.path().join("log");
    let mut process = Process::spawn("chronolith", command, &log).expect("a started program");
    assert!(wait_ready(&mut process, addr), "{}", process.log_text());
    let mut client = Client::new(addr, Duration::from_secs(20));
    let mut writer = Writer::new();
    for _ in 0..300 {
        writer.send(&mut client);
    }
    assert!(!writer.acked.is_empty());
    writer.audit(&mut client);
    let text = process.log_text();
    assert!(!text.contains("panicked"), "{text:.4000}");
    process.kill();
    // Without the limit: the log is whole.
    let server = scratch.start();
    let mut client = server.client();
    writer.audit(&mut client);
    assert_eq!(writer.send(&mut client), 204);
    writer.audit(&mut client);
    assert!(server.stop().expect("a graceful stop").success());
}

fn wait_ready(process: &mut Process, addr: SocketAddr) -> bool {
    let deadline = Instant::now() + READY;
    while Instant::now() < deadline && process.exited().expect("a status").is_none() {
        let mut client = Client::new(addr, Duration::from_secs(5));
        if client.get("/-/ready").is_ok_and(|r| r.ok()) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}
