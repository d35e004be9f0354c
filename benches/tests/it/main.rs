//! The comparison at its smallest size, as a test.

use std::time::{SystemTime, UNIX_EPOCH};

use chronolith_bench::load::{Load, LoadSpec};
use chronolith_bench::measure::{MeasureSpec, Measurement, measure};
use chronolith_bench::{queries, report};
use chronolith_e2e::peers::{Peers, chronolith_bin, skip};
use chronolith_e2e::servers::Kind;
use chronolith_testkit::data::data_dir;

const SERIES: usize = 2_000;
const STEPS: usize = 20;

#[test]
fn smoke_run_acknowledges_everything_and_answers_like_prometheus() {
    let Some(peers) = Peers::find("compare smoke") else { return };
    let Some(data) = data_dir() else {
        return skip("compare smoke", "the recorded hour is missing (CHRONOLITH_DATA)");
    };
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_millis();
    let end_ms = (i64::try_from(now_ms).expect("a time in range") - 60_000) / 1000 * 1000;
    let spec = LoadSpec { series: SERIES, steps: STEPS, connections: 2, end_ms };
    let load = Load::generate(&spec, &data).expect("a load");
    let set = queries::query_set();
    let dir = tempfile::tempdir().expect("a directory");
    let run = |kind, program: &std::path::Path| -> Measurement {
        let spec = MeasureSpec {
            kind,
            program: program.to_owned(),
            extra_args: Vec::new(),
            dir: dir.path().to_owned(),
            keep: false,
            query_repetitions: 1,
        };
        measure(&spec, &load, &set).expect("a measurement")
    };
    let runs = [run(Kind::Chronolith, chronolith_bin()), run(Kind::Prometheus, &peers.prometheus())];
    println!("{}", report::table(&load, &runs, &set));
    for run in &runs {
        assert_eq!(run.sent.acked_samples, SERIES * STEPS, "{}: {:?}", run.kind.name(), run.sent.refusals);
        assert!(run.settled.rss_bytes > 0 && run.ingest_cpu_seconds > 0.0 && run.disk_bytes > 0);
    }
    // Which of several equal values topk takes depends on the order of the series, which is not defined.
    for query in set.iter().filter(|q| !q.expr.contains("topk")) {
        let sizes = [&runs[0].queries[query.name].series, &runs[1].queries[query.name].series];
        assert_eq!(sizes[0], sizes[1], "{}: {}", query.name, query.expr);
    }
}
