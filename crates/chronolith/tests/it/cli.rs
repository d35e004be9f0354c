//! The command line as a user meets it: the built program, its texts and exit statuses.

use std::{
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde_json::Value;

/// Longest wait for the program to be ready or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A directory of the test alone, gone with it.
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("chronolith-cli-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a directory for the test");
        Self(path)
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("a file for the test");
        shown(&path)
    }

    pub(crate) fn data(&self) -> String {
        shown(&self.0.join("data"))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn shown(path: &Path) -> String {
    path.to_str().expect("a path of text").to_owned()
}

pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronolith"));
    command.stdin(Stdio::null());
    command
}

/// Exit status, standard output, standard error.
pub(crate) fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let output = program().args(args).output().expect("the program runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Runs a command that answers with JSON and says nothing else.
pub(crate) fn json(args: &[&str]) -> (Option<i32>, Value) {
    let (code, out, error) = run(args);
    assert_eq!(error, "", "no progress bar where there is no terminal");
    (code, serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}")))
}

/// Runs a server until its own metrics are in the log.
pub(crate) fn filled(data: &str) -> Server {
    let server = Server::start(data);
    for _ in 0..1500 {
        let (code, found) = json(&["wal", "inspect", "--json", "--data-dir", data]);
        assert_eq!(code, Some(0));
        if found["total"]["samples"].as_u64() > Some(0) {
            return server;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("no self-scrape");
}

/// A running server; killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
}

impl Server {
    /// Runs until the banner has told the address.
    pub(crate) fn start(data: &str) -> Self {
        Self::start_with(data, &[])
    }

    pub(crate) fn start_with(data: &str, args: &[&str]) -> Self {
        let mut command = program();
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir", data]).args(args);
        Self::start_by(command.stderr(Stdio::null()))
    }

    pub(crate) fn start_by(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the program runs");
        let (found, url) = mpsc::channel();
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some(url) = line.trim().strip_prefix("page") {
                    let _ = found.send(url.trim().trim_end_matches('/').to_owned());
                }
            }
        });
        match url.recv_timeout(PATIENCE) {
            Ok(url) => Self { child, url },
            Err(_) => {
                let _ = child.kill();
                panic!("no banner: {:?}", child.wait());
            }
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "kill {name}");
    }

    pub(crate) fn wait(&mut self) -> Option<i32> {
        for _ in 0..PATIENCE.as_millis() / 20 {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status.code();
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("the server did not end in time");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn wrong_arguments_exit_with_2_and_a_hint() {
    for (args, hint) in [
        (&["bogus"][..], "--help"),
        (&["serve", "--port", "1"], "--help"),
        (&["query"], "<PROMQL>"),
        (&["check", "config"], "<FILE>"),
        (&["--listen", ":9090"], "127.0.0.1:9090"),
        (&["--storage.tsdb.path=/x"], "--data-dir DIR"),
        (&["serve", "--web.listen-address", ":9090"], "--listen ADDR:PORT"),
        (&["--web.external-url=http://x"], "leave it out"),
        (&["--log-level", "bogus"], "is none of error, warn, info, debug, trace"),
        (&["--config", "no/such/file"], "cannot read no/such/file"),
        (&["query", "--start", "5", "up"], "--end"),
        (&["query", "--url", "localhost", "up"], "http://HOST:PORT is needed"),
        (&["query", "--url", "", "up"], "http://HOST:PORT is needed"),
        (&["query", "--url", "http://", "up"], "http://HOST:PORT is needed"),
        (&["query", "--url", "127.0.0.1:9077", "up"], "http://HOST:PORT is needed"),
        (&["query", "--url", "https://127.0.0.1:1", "up"], "TLS is not supported yet"),
        (&["query", "--time", "yesterday", "up"], "Unix seconds or RFC 3339 are needed"),
        (&["query", "--start", "1", "--end", "2", "--step", "0", "up"], "a duration above zero"),
    ] {
        let (code, out, error) = run(args);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{args:?}: {error}");
        assert!(error.starts_with("error: ") && error.contains(hint), "{args:?}: {error}");
    }
}

#[test]
fn help_and_version() {
    let (code, out, _) = run(&["--version"]);
    assert_eq!((code, out), (Some(0), format!("chronolith {}\n", env!("CARGO_PKG_VERSION"))));
    let (code, out, _) = run(&["--help"]);
    assert_eq!(code, Some(0));
    for word in
        ["serve", "query", "check", "test", "wal", "block", "tsdb", "--data-dir", "--listen", "--config"]
    {
        assert!(out.contains(word), "{word} in\n{out}");
    }
}

#[test]
fn configurations_are_checked() {
    let dir = Dir::new("config");
    let good = dir.file("good.yml", "storage:\n  retention: 30d\n");
    let (code, out, error) = run(&["check", "config", &good]);
    assert_eq!((code, error.as_str()), (Some(0), ""));
    assert!(out.starts_with(&format!("# {good} is valid")) && out.contains("\n  retention: 30d\n"), "{out}");
    // What is printed is a configuration itself.
    let printed = dir.file("printed.yml", &out);
    assert_eq!(run(&["check", "config", &printed]).0, Some(0));

    // The disk is that of the data directory, or of what it will be made in; `/proc` is a disk of no bytes.
    let reserve = dir.file("reserve.yml", "storage:\n  disk_reserve: 1KiB\n");
    let (code, _, error) = run(&["check", "config", &reserve]);
    assert_eq!((code, error.as_str()), (Some(0), ""));
    let (code, _, error) = run(&["check", "config", &reserve, "--data-dir", "/proc/none/data"]);
    assert_eq!(code, Some(0));
    assert!(error.contains("is more than the disk of /proc/none/data has"), "{error}");

    for (text, told) in [
        ("storge: {}", "line 1 column 1: unknown field `storge`, expected one of memory, storage, wal"),
        ("storage: {retention: 15}", "storage.retention: \"15\" is not a duration such as 15d"),
        ("global: {scrape_interval: 15s}", "This looks like the configuration of Prometheus"),
        ("storage: [", "line 1 column"),
    ] {
        let bad = dir.file("bad.yml", text);
        for args in [&["check", "config", &bad][..], &["serve", "--config", &bad]] {
            let (code, out, error) = run(args);
            assert_eq!((code, out.as_str()), (Some(2), ""), "{text}");
            assert!(error.starts_with(&format!("error: {bad} is not a valid configuration: ")), "{error}");
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}

#[test]
fn a_query_that_cannot_be_asked() {
    // Bound and dropped: nobody listens there.
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let (code, out, error) = run(&["query", "--url", &format!("http://{closed}"), "up"]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(
        error.starts_with(&format!("error: cannot connect to {closed} (does a server run there?")),
        "{error}"
    );
}

/// A server that answers each connection with `answer`, whatever it is asked.
fn answering(answer: &'static str) -> String {
    use std::io::{Read as _, Write as _};
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    url
}

#[test]
fn what_is_no_prometheus_is_called_so() {
    for (answer, told) in [
        (
            "HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n404 page not found\n",
            "HTTP 404 from URL/api/v1/query (404 page not found): not a Prometheus API; give --url http://HOST:PORT",
        ),
        (
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<html>\n",
            "HTTP 200 from URL/api/v1/query: not a Prometheus API; give --url http://HOST:PORT",
        ),
        (
            "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\r\nService Unavailable",
            "HTTP 503 from URL/api/v1/query: Service Unavailable (it may be starting or ending; retry)",
        ),
        ("SSH-2.0-x\r\n", "does not answer as an HTTP server"),
    ] {
        let url = answering(answer);
        let (code, out, error) = run(&["query", "--url", &url, "up"]);
        assert_eq!((code, out.as_str()), (Some(1), ""));
        assert!(error.contains(&told.replace("URL", &url)), "{error}");
    }
}

#[test]
fn the_answer_to_a_query_that_fails_is_printed() {
    let answer = "{\"status\":\"error\",\"errorType\":\"bad_data\",\"error\":\"wrong\"}";
    let url = answering(
        "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n{\"status\":\"error\",\"errorType\":\"bad_data\",\
         \"error\":\"wrong\"}",
    );
    let told = "error: bad_data: wrong\n".to_owned();
    assert_eq!(
        run(&["query", "--url", &url, "--json", "up"]),
        (Some(1), format!("{answer}\n"), told.clone())
    );
    assert_eq!(run(&["query", "--url", &url, "up"]), (Some(1), String::new(), told));
}

#[test]
fn a_reader_that_hangs_up_is_no_error() {
    let dir = Dir::new("pipe");
    let config = dir.file("good.yml", "storage:\n  retention: 30d\n");
    let script = dir.file("good.test", "load 1m\n  m 1 2 3\n\neval instant at 2m m\n  m 3\n");
    let prometheus = dir.file("bad.yml", "global: {}\n");
    for (args, code) in [
        (&["check", "config", &config][..], 0),
        (&["test", "promql", "-v", &script], 0),
        (&["check", "config", &prometheus], 2),
        (&["query", "--url", "http://127.0.0.1:1", "up"], 1),
        (&["--storage.tsdb.path=/x"], 2),
    ] {
        let mut command = program();
        let (out, error) = (std::io::pipe().expect("a pipe"), std::io::pipe().expect("a pipe"));
        command.args(args).stdout(out.1).stderr(error.1);
        drop((out.0, error.0));
        let status = command.status().expect("the program runs");
        assert_eq!(status.code(), Some(code), "{args:?}");
    }
}

#[test]
fn scripts_pass_and_fail() {
    let dir = Dir::new("promql");
    let script = |value: u8| format!("load 1m\n  m 1 2 3\n\neval instant at 2m m\n  m {value}\n");
    let (good, bad) = (dir.file("good.test", &script(3)), dir.file("bad.test", &script(4)));
    let (code, out, _) = run(&["test", "promql", &good]);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("1 evals, 1 passed, 0 failed"), "{out}");
    let (code, out, _) = run(&["test", "promql", &good, &bad]);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("2 evals, 1 passed, 1 failed") && out.contains(&format!("{bad}:4")), "{out}");
    assert_eq!(run(&["test", "promql", "no/such/file"]).0, Some(1));
}

#[test]
fn unit_tests_of_rules_pass_or_are_shown() {
    let dir = Dir::new("rules");
    let tests = "rule_files: [rules.yml]\ntests:\n- input_series: [{series: up, values: '1x5'}]\n  \
                 promql_expr_test: [{expr: twice, eval_time: 2m, exp_samples: [{labels: twice, value: 2}]}]\n";
    dir.file("rules.yml", "groups: [{name: g, rules: [{record: twice, expr: up * 2}]}]");
    let good = dir.file("good.yml", tests);
    let (code, out, _) = run(&["test", "rules", &good]);
    assert_eq!((code, out.as_str()), (Some(0), "1 files, 1 passed, 0 failed\n"));
    let bad = dir.file("bad.yml", &tests.replace("value: 2", "value: 3"));
    let (code, out, _) = run(&["test", "rules", &good, &bad]);
    assert_eq!(code, Some(1));
    assert!(
        out.contains("twice at 2m\n  expected {__name__=\"twice\"} 3\n  got      {__name__=\"twice\"} 2\n"),
        "{out}"
    );
    let (code, out, _) = run(&["test", "rules", "no/such/file"]);
    assert!(code == Some(1) && out.contains("ERROR no/such/file: "), "{out}");
}

#[test]
fn an_occupied_port() {
    let dir = Dir::new("port");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let (code, out, error) = run(&["--listen", &address, "--data-dir", &dir.data()]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(error.contains(&format!("error: cannot listen on {address}: Address already in use")), "{error}");
    assert!(!Path::new(&dir.data()).exists(), "the data directory is not touched");
}

#[test]
fn a_server_ends_when_asked_and_leaves_its_directory_to_the_next() {
    let dir = Dir::new("serve");
    let data = dir.data();
    let mut server = Server::start(&data);
    let (code, out, error) = run(&["--listen", "127.0.0.1:0", "--data-dir", &data]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(error.contains("is in use by another process"), "{error}");

    // The first self-scrape is stored at once.
    let ask = |server: &Server, query: &str| run(&["query", "--url", &server.url, query]);
    let wait_for = |server: &Server, query: &str| {
        for _ in 0..1000 {
            let answer = ask(server, query);
            if !answer.1.is_empty() {
                return answer;
            }
            thread::sleep(Duration::from_millis(50));
        }
        ask(server, query)
    };
    let answer = wait_for(&server, "up");
    assert!(answer.1.starts_with("up{instance=\"self\", job=\"chronolith\"} => 1 @["), "{answer:?}");
    let (code, out, error) = ask(&server, "nosuch");
    assert_eq!(
        (code, out.as_str(), error.as_str()),
        (Some(0), "", "no series: nothing matches at this time\n")
    );
    let (code, _, error) = ask(&server, "up{");
    assert_eq!(code, Some(1));
    assert!(error.contains("unexpected end of input inside braces"), "{error}");

    // The same wish twice, as a terminal and a wrapper send it.
    server.signal("-TERM");
    server.signal("-INT");
    assert_eq!(server.wait(), Some(0));

    let mut server = Server::start(&data);
    let (_, out, _) = wait_for(&server, "count_over_time(up[1h]) > 1");
    assert!(out.contains("=> 2 @["), "the first sample is still there: {out:?}");
    server.signal("-INT");
    assert_eq!(server.wait(), Some(0));
}
