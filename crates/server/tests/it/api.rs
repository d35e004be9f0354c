use crate::harness::Server;

#[track_caller]
fn check(answer: &crate::harness::Answer, status: u16, body: &str, target: &str) {
    assert_eq!((answer.status.as_u16(), answer.text()), (status, body), "{target}");
    let expected = if status == 204 { "" } else { "application/json" };
    assert_eq!(answer.header("content-type"), expected, "{target}");
    assert_eq!(answer.header("vary"), "Origin", "{target}");
}

fn bad(error: &str) -> String {
    format!("{{\"status\":\"error\",\"errorType\":\"bad_data\",\"error\":{}}}", quoted(error))
}

/// As Go's encoder quotes it.
fn quoted(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{}\"", text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026"))
}

fn good(data: &str) -> String {
    format!("{{\"status\":\"success\",\"data\":{data}}}")
}

#[tokio::test]
async fn queries_without_data() {
    let server = Server::new();
    for (target, data) in [
        ("query?query=1%2B1&time=1.5", r#"{"resultType":"scalar","result":[1.5,"2"]}"#),
        ("query?query=1e-7&time=1.5", r#"{"resultType":"scalar","result":[1.5,"0.0000001"]}"#),
        (
            "query?query=vector(1e21)&time=1.5",
            r#"{"resultType":"vector","result":[{"metric":{},"value":[1.500,"1e+21"]}]}"#,
        ),
        ("query?query=%22a%3C%22&time=0", r#"{"resultType":"string","result":[0,"a\u003c"]}"#),
        ("query?query=nosuch&time=0", r#"{"resultType":"vector","result":[]}"#),
        ("query_range?query=nosuch&start=0&end=1&step=1", r#"{"resultType":"matrix","result":[]}"#),
        (
            "query_range?query=1&start=1.5&end=3&step=750ms",
            r#"{"resultType":"matrix","result":[{"metric":{},"values":[[1.500,"1"],[2.250,"1"],[3,"1"]]}]}"#,
        ),
        ("query?query=time()", r#"{"resultType":"scalar","result":[1795221262,"1795221262"]}"#),
    ] {
        check(&server.get(&format!("/api/v1/{target}")).await, 200, &good(data), target);
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_query() {
    let server = Server::new();
    for (target, error) in [
        (
            "query?query=foo{",
            "invalid parameter \"query\": 1:5: parse error: unexpected end of input inside braces",
        ),
        ("query", "invalid parameter \"query\": unknown position: parse error: no expression found in input"),
        (
            "query?query=1%zz",
            "invalid parameter \"query\": unknown position: parse error: no expression found in input",
        ),
        (
            "query?query=sum(1)",
            "invalid parameter \"query\": 1:5: parse error: expected type instant vector in aggregation expression, got scalar",
        ),
        (
            "query?query=x&timeout=1x",
            "invalid parameter \"timeout\": cannot parse \"1x\" to a valid duration",
        ),
        ("query?query=x&limit=-1", "invalid parameter \"limit\": limit must be non-negative"),
        (
            "query?query=x&lookback_delta=abc",
            "error parsing lookback delta duration: cannot parse \"abc\" to a valid duration",
        ),
        (
            "query?query=x&time=foo",
            "invalid parameter \"time\": invalid time value for 'time': cannot parse \"foo\" to a valid timestamp",
        ),
        ("query?query=x&timeout=-5", "invalid parameter \"query\": context deadline exceeded"),
        (
            "query?query=x&limit=x&time=x",
            "invalid parameter \"limit\": strconv.Atoi: parsing \"x\": invalid syntax",
        ),
        ("query_range?query=1", "invalid parameter \"start\": cannot parse \"\" to a valid timestamp"),
        (
            "query_range?query=1&start=10&end=1",
            "invalid parameter \"end\": end timestamp must not be before start time",
        ),
        (
            "query_range?query=1&start=1&end=2&step=0",
            "invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try a positive integer",
        ),
        (
            "query_range?query=1&start=0&end=11001&step=1",
            "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)",
        ),
        (
            "query_range?query=up[5m]&start=0&end=1&step=1",
            "invalid parameter \"query\": invalid expression type \"range vector\" for range query, must be Scalar or instant Vector",
        ),
        ("query_exemplars?query=test&start=5&end=1", "end timestamp must not be before start timestamp"),
        ("query_exemplars?query=foo{", "1:5: parse error: unexpected end of input inside braces"),
        (
            "format_query?query=foo{",
            "invalid parameter \"query\": 1:5: parse error: unexpected end of input inside braces",
        ),
        (
            "parse_query?query=foo{",
            "invalid parameter \"query\": 1:5: parse error: unexpected end of input inside braces",
        ),
    ] {
        check(&server.get(&uri(target)).await, 400, &bad(error), target);
    }
}

/// Braces and brackets are no URI characters for our client library.
fn uri(target: &str) -> String {
    let target = target.replace('{', "%7B").replace('}', "%7D").replace('[', "%5B").replace(']', "%5D");
    format!("/api/v1/{}", target.replace('"', "%22"))
}

#[tokio::test]
async fn formatting_and_parsing() {
    let server = Server::new();
    for (target, data) in [
        ("format_query?query=sum(x)by(a)%3Cbool%203", r#""sum by (a) (x) \u003c bool 3""#),
        ("parse_query?query=1", r#"{"type":"numberLiteral","val":"1"}"#),
    ] {
        check(&server.get(&uri(target)).await, 200, &good(data), target);
    }
    check(&server.get(&uri("query_exemplars?query=1")).await, 204, "", "no selector");
}

#[tokio::test]
async fn labels_values_and_series() {
    let server = Server::filled().await;
    for (target, data) in [
        ("labels", r#"["__name__","http.status","job"]"#),
        ("labels?match[]=nosuch", "[]"),
        ("label/job/values", r#"["a","b"]"#),
        ("label/job/values?match[]={__name__=~\"http.*\"}", r#"["a"]"#),
        ("label/job/values?match[]=nosuch&match[]=up{job=\"b\"}", r#"["b"]"#),
        ("label/U__http_2e_status/values", r#"["200"]"#),
        ("label/nosuch-label/values", "[]"),
        (
            "series?match[]=up",
            r#"[{"__name__":"up","http.status":"200","job":"a"},{"__name__":"up","http.status":"200","job":"b"}]"#,
        ),
        ("series?match[]=nosuch", "[]"),
    ] {
        check(&server.get(&uri(target)).await, 200, &good(data), target);
    }
    for (target, data) in [
        ("labels?limit=1", r#"["__name__"]"#),
        ("label/job/values?limit=1", r#"["a"]"#),
        ("series?match[]=up&limit=1", r#"[{"__name__":"up","http.status":"200","job":"a"}]"#),
    ] {
        let warnings = r#","warnings":["results truncated due to limit"]}"#;
        let body = format!("{{\"status\":\"success\",\"data\":{data}{warnings}");
        check(&server.get(&uri(target)).await, 200, &body, target);
    }
    let whole = server.get(&uri("labels?limit=3")).await;
    assert!(!whole.text().contains("warnings"), "{}", whole.text());
}

#[tokio::test]
async fn what_is_wrong_with_a_label_query() {
    let server = Server::new();
    for (target, error) in [
        ("series", "no match[] parameter provided"),
        ("series?limit=x", "no match[] parameter provided"),
        ("series?match[]=%zz", "error parsing form values: invalid URL escape \"%zz\""),
        (
            "series?match[]={}",
            "invalid parameter \"match[]\": match[] must contain at least one non-empty matcher",
        ),
        (
            "series?match[]={a=\"\"}",
            "invalid parameter \"match[]\": match[] must contain at least one non-empty matcher",
        ),
        (
            "series?match[]=up&match[]=foo{",
            "invalid parameter \"match[]\": 1:5: parse error: unexpected end of input inside braces",
        ),
        (
            "series?match[]=up%20offset%201m",
            "invalid parameter \"match[]\": 1:4: parse error: unexpected <offset>",
        ),
        ("labels?match[]=foo{", "1:5: parse error: unexpected end of input inside braces"),
        ("labels?match[]={a!=\"b\"}", "match[] must contain at least one non-empty matcher"),
        ("labels?match[]={a=~\".*\"}", "match[] must contain at least one non-empty matcher"),
        ("labels?limit=-1", "invalid parameter \"limit\": limit must be non-negative"),
        (
            "labels?start=x",
            "invalid parameter \"start\": invalid time value for 'start': cannot parse \"x\" to a valid timestamp",
        ),
        ("label/job/values?match[]=", "unknown position: parse error: unexpected end of input"),
        (
            "label/job/values?limit=x&start=y",
            "invalid parameter \"limit\": strconv.Atoi: parsing \"x\": invalid syntax",
        ),
        ("label/%ff/values", "invalid label name: \"\\xff\""),
        ("label/U__/values", "invalid label name: \"\""),
    ] {
        check(&server.get(&uri(target)).await, 400, &bad(error), target);
    }
    let many = "match[]=a&".repeat(1025);
    let error = bad("more than 1024 match[] parameters");
    check(&server.get(&uri(&format!("labels?{many}"))).await, 400, &error, "many selectors");
    // Of a few texts, for equal ones are compiled once.
    let regexes: Vec<_> = (0..1_000).map(|i| format!("a=~\"b.*{}\"", i % 10)).collect();
    let most = format!("match[]={{{}}}&match[]=up", regexes.join(","));
    check(&server.post("/api/v1/labels", &most).await, 200, &good("[]"), "as many as there may be");
    let error = bad("more than 1000 regular expressions in match[] parameters");
    let more = format!("{most}{{a=~\"b.*\"}}");
    check(&server.post("/api/v1/labels", &more).await, 400, &error, "one more");
    let error =
        bad("invalid parameter \"match[]\": more than 1000 regular expressions in match[] parameters");
    check(&server.post("/api/v1/series", &more).await, 400, &error, "one more");
    let many = "a=1&".repeat(10_000);
    check(
        &server.post("/api/v1/query?query=1", &many).await,
        400,
        &bad("more than 10000 parameters"),
        "parameters",
    );
}

#[tokio::test]
async fn metadata_as_remote_write_brought_it() {
    let server = Server::filled().await;
    let up = r#"{"up":[{"type":"gauge","unit":"ratio","help":"Is it \u003cup\u003e?"}]}"#;
    for (target, data) in [
        ("metadata", up),
        ("metadata?metric=up&limit=1&limit_per_metric=1", up),
        ("metadata?metric=nosuch", "{}"),
        ("metadata?limit=0", "{}"),
        ("metadata?limit=-1", up),
    ] {
        check(&server.get(&uri(target)).await, 200, &good(data), target);
    }
    for name in ["limit", "limit_per_metric"] {
        let target = format!("metadata?{name}=x");
        check(&server.get(&uri(&target)).await, 400, &bad(&format!("{name} must be a number")), name);
    }
}

#[tokio::test]
async fn what_a_server_without_targets_and_rules_says() {
    let server = Server::new();
    for (target, data) in [
        ("targets", r#"{"activeTargets":[],"droppedTargets":[],"droppedTargetCounts":{}}"#),
        ("targets?state=active", r#"{"activeTargets":[],"droppedTargets":[],"droppedTargetCounts":null}"#),
        ("targets?state=DROPPED", r#"{"activeTargets":[],"droppedTargets":[],"droppedTargetCounts":{}}"#),
        ("targets/metadata", "[]"),
        ("scrape_pools", r#"{"scrapePools":[]}"#),
        ("alertmanagers", r#"{"activeAlertmanagers":[],"droppedAlertmanagers":[]}"#),
        ("rules", r#"{"groups":[]}"#),
        ("rules?type=alert", r#"{"groups":[]}"#),
        ("alerts", r#"{"alerts":[]}"#),
        ("notifications", "[]"),
        ("status/walreplay", r#"{"min":0,"max":0,"current":0}"#),
        ("status/config", r#"{"yaml":"retention: 15d\n"}"#),
        ("status/flags", r#"{"data-dir":"./data","listen":"127.0.0.1:9077"}"#),
        (
            "status/buildinfo",
            concat!(
                r#"{"version":"3.5.3","revision":"","branch":"","buildUser":"","buildDate":"","goVersion":"rustc","#,
                r#""chronolithVersion":"0.1.0"}"#
            ),
        ),
        (
            "status/runtimeinfo",
            concat!(
                r#"{"startTime":"2026-11-21T00:34:20.5Z","CWD":"/srv","hostname":"host","#,
                r#""serverTime":"2026-11-21T00:34:22Z","reloadConfigSuccess":true,"#,
                r#""lastConfigTime":"2026-11-21T00:34:20Z","corruptionCount":0,"goroutineCount":4,"GOMAXPROCS":2,"#,
                r#""GOMEMLIMIT":1073741824,"GOGC":"","GODEBUG":"","storageRetention":"15d"}"#
            ),
        ),
    ] {
        check(&server.get(&uri(target)).await, 200, &good(data), target);
    }
    for (target, error) in [
        ("rules?type=foo", "invalid parameter \"type\": not supported value \"foo\""),
        ("targets/metadata?limit=x", "limit must be a number"),
        (
            "targets/metadata?match_target={",
            "invalid parameter \"match_target\": 1:2: parse error: unexpected end of input inside braces",
        ),
        ("status/tsdb?limit=0", "limit must be a positive number"),
        ("status/tsdb?limit=x", "limit must be a positive number"),
        ("status/tsdb?limit=10001", "limit must not exceed 10000"),
    ] {
        check(&server.get(&uri(target)).await, 400, &bad(error), target);
    }
    let admin = server.post("/api/v1/admin/tsdb/snapshot", "").await;
    let text = r#"{"status":"error","errorType":"unavailable","error":"admin APIs disabled"}"#;
    check(&admin, 500, text, "admin");
}

#[tokio::test]
async fn head_statistics() {
    let empty = Server::new().get("/api/v1/status/tsdb").await;
    let data = concat!(
        r#"{"headStats":{"numSeries":0,"numLabelPairs":0,"chunkCount":0,"minTime":9223372036854775807,"#,
        r#""maxTime":-9223372036854775808},"seriesCountByMetricName":[],"labelValueCountByLabelName":[],"#,
        r#""memoryInBytesByLabelName":[],"seriesCountByLabelValuePair":[]}"#
    );
    check(&empty, 200, &good(data), "empty");
    let filled = Server::filled().await.get("/api/v1/status/tsdb?limit=1").await;
    let text = filled.text();
    assert!(text.contains("\"headStats\":{\"numSeries\":3,"), "{text}");
    assert!(text.contains("\"minTime\":1795221202000,\"maxTime\":1795221262000}"), "{text}");
    assert!(text.contains("\"seriesCountByMetricName\":[{\"name\":\"up\",\"value\":2}]"), "{text}");
}

#[tokio::test]
async fn queries_over_data() {
    let server = Server::filled().await;
    let labels = r#""http.status":"200","job":"a""#;
    for (target, data) in [
        (
            "query?query=up{job=\"a\"}",
            format!(
                r#"{{"resultType":"vector","result":[{{"metric":{{"__name__":"up",{labels}}},"value":[1795221262,"5"]}}]}}"#
            ),
        ),
        (
            "query?query=up{job=\"a\"}[31s]",
            format!(
                r#"{{"resultType":"matrix","result":[{{"metric":{{"__name__":"up",{labels}}},"values":[[1795221232,"3"],[1795221247,"4"],[1795221262,"5"]]}}]}}"#
            ),
        ),
        (
            "query_range?query=up{job=\"a\"}&start=1795221202&end=1795221232.5&step=15",
            format!(
                r#"{{"resultType":"matrix","result":[{{"metric":{{"__name__":"up",{labels}}},"values":[[1795221202,"1"],[1795221217,"2"],[1795221232,"3"]]}}]}}"#
            ),
        ),
    ] {
        check(&server.get(&uri(target)).await, 200, &good(&data), target);
    }
    let cut = server.get(&uri("query?query=up&limit=1")).await;
    assert!(cut.text().ends_with(r#"]},"warnings":["results truncated due to limit"]}"#), "{}", cut.text());
    let stats = server.get(&uri("query?query=up&stats=all")).await;
    assert!(stats.text().contains(r#","stats":{"timings":{"evalTotalTime":"#), "{}", stats.text());
}
