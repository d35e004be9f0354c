//! Range queries that are asked again while data come: results that are kept, and those that are not, are the same.

use chronolith_e2e::api::Answer;
use chronolith_e2e::http::Client;
use chronolith_e2e::servers::Server;

use crate::scratch::{Scratch, body, now_ms, write};

const SCRAPE_MS: i64 = 15_000;
const SCRAPES: i64 = 120;

fn ask(client: &mut Client, query: &str, (start, end): (i64, i64), more: &[(&str, &str)]) -> Answer {
    let (start, end) = ((start / 1_000).to_string(), (end / 1_000).to_string());
    let mut form = vec![("query", query), ("start", start.as_str()), ("end", end.as_str()), ("step", "15")];
    form.extend_from_slice(more);
    let response = client.post_form("/api/v1/query_range", &form).expect("an answer");
    Answer::parse(&response).expect("as the API has them")
}

fn hits(server: &Server) -> f64 {
    let metrics = server.client().get("/metrics").expect("metrics").text();
    let line = metrics.lines().find(|line| line.starts_with("chronolith_result_cache_hits_total "));
    line.and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a number")
}

#[test]
fn answers_are_those_of_now() {
    let scratch = Scratch::new();
    let server = scratch.start();
    let mut client = server.client();
    let first = now_ms() / SCRAPE_MS * SCRAPE_MS - SCRAPES * SCRAPE_MS;
    let scrape = |client: &mut Client, job: &str, k: i64| {
        let names = [("__name__", "requests_total"), ("job", job)];
        let sent = write(client, &body(&[(&names, first + k * SCRAPE_MS, (k * k) as f64)])).expect("sent");
        assert!(sent.ok(), "{}", sent.text());
    };
    let queries =
        ["sum by (job) (rate(requests_total[1m]))", "requests_total", "count(rate(requests_total[5m]) > 1)"];
    let same = |client: &mut Client, k: i64| {
        let range = (first, first + k * SCRAPE_MS);
        for query in queries {
            let kept = ask(client, query, range, &[]);
            assert_eq!(kept, ask(client, query, range, &[("nocache", "1")]), "{query} at scrape {k}");
            assert_eq!(kept, ask(client, query, range, &[]), "{query}, asked again at scrape {k}");
        }
    };
    for k in 0..SCRAPES {
        scrape(&mut client, "a", k);
        if k % 3 == 0 {
            scrape(&mut client, "b", k);
        }
        if k % 10 == 9 {
            same(&mut client, k);
        }
        // Late, for what has been asked about.
        if k % 20 == 19 {
            scrape(&mut client, "b", k - 8);
            same(&mut client, k);
        }
    }
    assert!(hits(&server) > 20.0, "{} hits", hits(&server));
    let before = hits(&server);
    let range = (first, first + SCRAPES * SCRAPE_MS);
    for more in [("nocache", "true"), ("stats", "all"), ("explain", "analyze")] {
        ask(&mut client, queries[0], range, &[more]);
        ask(&mut client, queries[0], range, &[more]);
    }
    assert!((hits(&server) - before).abs() < 0.5, "whole queries were asked for");
}
