//! What other protocols bring, and what the admin API deletes, in a real process and behind a restart.

use crate::scratch::{Scratch, now_ms, read};

#[test]
fn otlp_and_lines_are_kept_and_what_is_deleted_stays_deleted() {
    let scratch = Scratch::with_config("http: {admin_api: true}\n");
    let server = scratch.start();
    let mut client = server.client();
    let now = now_ms();
    let otlp = format!(
        r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"cpu.load","gauge":{{"dataPoints":[{{"timeUnixNano":"{now}000000","asDouble":0.5}}]}}}}]}}]}}]}}"#
    );
    let headers = [("Content-Type", "application/json")];
    let answer =
        client.send("POST", "/api/v1/otlp/v1/metrics", &headers, otlp.as_bytes()).expect("an answer");
    assert_eq!((answer.status, answer.text()), (200, "{}".into()));
    let lines = format!("mem,host=a used=1,free=2 {now}000000");
    let answer = client.send("POST", "/write?db=d", &[], lines.as_bytes()).expect("an answer");
    assert_eq!(answer.status, 204, "{}", answer.text());
    let kept = "{__name__=~'cpu_load|mem_.*'}[1m]";
    assert_eq!(read(&mut client, kept, now).expect("an answer").len(), 3);
    let delete = "/api/v1/admin/tsdb/delete_series";
    let answer = client.post_form(delete, &[("match[]", "mem_free")]).expect("an answer");
    assert_eq!(answer.status, 204, "{}", answer.text());
    assert!(server.stop().expect("a graceful stop").success());
    let server = scratch.start();
    let mut client = server.client();
    let stored = read(&mut client, kept, now).expect("an answer");
    let names: Vec<_> = stored.keys().filter_map(|labels| labels.get("__name__").cloned()).collect();
    assert_eq!(names, ["cpu_load", "mem_used"]);
    let answer = client.send("POST", "/api/v1/admin/tsdb/snapshot", &[], &[]).expect("an answer");
    assert!(answer.ok() && answer.text().contains("\"name\":\""), "{}", answer.text());
}
