//! Explanations of queries, and statistics.

use chronolith_promql::EngineOptions;
use chronolith_server::HttpLimits;

use crate::harness::{NOW, Server};

/// `json` with every value of a field of seconds that was measured replaced by 0.
fn timeless(json: &str) -> String {
    let mut out = String::new();
    let mut rest = json;
    while let Some((before, name)) =
        ["\"seconds\":", "\"ownSeconds\":"].iter().filter_map(|name| Some((rest.find(name)?, name))).min()
    {
        let end = before + name.len();
        out.push_str(&rest[..end]);
        out.push('0');
        rest = rest[end..].trim_start_matches(|c: char| c.is_ascii_digit() || ".e-+".contains(c));
    }
    out + rest
}

#[tokio::test]
async fn a_plan_instead_of_a_result() {
    let server = Server::filled().await;
    let node = |operator: &str, expr: &str, more: &str, children: &str| {
        format!(
            r#"{{"operator":"{operator}","expr":"{expr}","start":1795221202,"step":30,"steps":3{more},"children":[{children}]}}"#
        )
    };
    let selector = node("selector", "up", r#","selection":0"#, "");
    let sum = node("aggregation", "sum(up)", "", &selector);
    let expected = format!(
        concat!(
            r#"{{"status":"success","data":{{"explain":{{"mode":"plan","root":{},"#,
            r#""selections":[{{"matchers":"{{__name__=\"up\"}}","start":1795220902.001,"end":1795221262,"series":2,"#,
            r#""storage":{{"memorySeries":2,"blockSeries":0,"blocks":0}}}}]}}}}}}"#
        ),
        node(
            "binary_with_scalar",
            r"sum(up) \u003e 1",
            "",
            &format!("{sum},{}", node("number", "1", "", ""))
        )
    );
    let query = "query=sum(up)%20%3E%201&start=1795221202&end=1795221262&step=30";
    for explain in ["1", "true", "plan"] {
        let answer = server.get(&format!("/api/v1/query_range?{query}&explain={explain}")).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, expected.as_str()));
    }
    let posted = server.post("/api/v1/query_range", &format!("{query}&explain=1")).await;
    assert_eq!(posted.text(), expected);
}

#[tokio::test]
async fn costs_beside_the_result() {
    let server = Server::filled().await;
    let plain = server.get("/api/v1/query?query=sum(up)").await;
    let answer = server.get("/api/v1/query?query=sum(up)&explain=analyze").await;
    let cost = |series: u64, samples: u64| {
        format!(
            r#""cost":{{"evaluations":1,"seconds":0,"ownSeconds":0,"series":{series},"values":{series},"bytes":BYTES,"samples":{samples}}}"#
        )
    };
    let expected = format!(
        concat!(
            r#"{{"status":"success","data":{{"resultType":"vector","result":[{{"metric":{{}},"value":[1795221262,"15"]}}],"#,
            r#""explain":{{"mode":"analyze","root":{{"operator":"aggregation","expr":"sum(up)","start":1795221262,"step":0,"#,
            r#""steps":1,{},"children":[{{"operator":"selector","expr":"up","start":1795221262,"step":0,"steps":1,"#,
            r#""selection":0,{},"children":[]}}]}},"selections":[{{"matchers":"{{__name__=\"up\"}}","start":1795220962.001,"#,
            r#""end":1795221262,"series":2,"storage":{{"memorySeries":2,"blockSeries":0,"blocks":0,"frames":0,"cacheHits":0,"#,
            r#""cacheMisses":0,"readBytes":0,"copiedBytes":0}}}}]}}}}}}"#
        ),
        cost(1, 0),
        cost(2, 2)
    );
    // Bytes are those of the machine.
    let mut got = timeless(answer.text());
    for _ in 0..2 {
        let (before, after) = got.split_once("\"bytes\":").expect("bytes");
        let digits = after.trim_start_matches(|c: char| c.is_ascii_digit());
        assert!(after.len() > digits.len(), "{after}");
        got = format!("{before}\"bytes\"@BYTES{digits}");
    }
    assert_eq!(got.replace("\"bytes\"@", "\"bytes\":"), expected);
    let result = plain.text().trim_end_matches("}}");
    assert!(answer.text().starts_with(result), "{} is not in {}", result, answer.text());
}

#[tokio::test]
async fn errors_are_the_same_with_an_explanation() {
    let engine = EngineOptions { series_max: 1, ..EngineOptions::default() };
    let server = Server::filled_with(HttpLimits::default(), engine).await;
    let query = "query=http_requests_total%20%2B%20up";
    let plain = server.get(&format!("/api/v1/query?{query}")).await;
    assert_eq!(plain.status, 422);
    for explain in ["1", "analyze"] {
        let answer = server.get(&format!("/api/v1/query?{query}&explain={explain}")).await;
        assert_eq!(answer.status, 422);
        let text = answer.text();
        let (before, rest) = text.split_once(",\"data\":{\"explain\":{").expect("an explanation");
        let (told, after) = rest.split_once("]}},\"errorType\"").expect("the error behind it");
        assert_eq!(format!("{before},\"errorType\"{after}"), plain.text());
        assert!(told.contains(r#""series":1,"storage""#) && !told.contains("cost"), "{told}");
    }
    // Without a plan there is nothing to tell.
    for query in ["query=up%20%2B", "query=up[5m]&start=0&end=1&step=1"] {
        let target = if query.contains("step") { "query_range" } else { "query" };
        let plain = server.get(&format!("/api/v1/{target}?{query}")).await;
        let answer = server.get(&format!("/api/v1/{target}?{query}&explain=1")).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (400, plain.text()));
    }
    let answer = server.get("/api/v1/query?query=up&explain=yes").await;
    assert_eq!(
        (answer.status.as_u16(), answer.text()),
        (
            400,
            concat!(
                r#"{"status":"error","errorType":"bad_data","error":"invalid parameter \"explain\": "#,
                r#"\"yes\" is neither \"1\", for the plan, nor \"analyze\""}"#
            )
        )
    );
}

#[tokio::test]
async fn statistics_by_step_are_told_where_that_is_on() {
    let start = NOW / 1000 - 60;
    let query =
        format!("query_range?query=count_over_time(up[16s])&start={start}&end={}&step=30", NOW / 1000);
    let off = Server::filled().await.get(&format!("/api/v1/{query}&stats=all")).await;
    assert!(off.text().contains(r#""samples":{"totalQueryableSamples":10,"peakSamples":"#), "{}", off.text());
    let engine = EngineOptions { per_step_stats: true, ..EngineOptions::default() };
    let server = Server::filled_with(HttpLimits::default(), engine).await;
    let on = server.get(&format!("/api/v1/{query}&stats=all")).await;
    let expected = format!(
        r#""samples":{{"totalQueryableSamplesPerStep":[[{start},2],[{},4],[{},4]],"totalQueryableSamples":10,"peakSamples":"#,
        start + 30,
        start + 60
    );
    assert!(on.text().contains(&expected), "{} is not in {}", expected, on.text());
    let totals = server.get(&format!("/api/v1/{query}&stats=true")).await;
    assert!(totals.text().contains(r#""samples":{"totalQueryableSamples":10,"#), "{}", totals.text());
    let instant = server.get("/api/v1/query?query=sum(up)&time=1795221261.5&stats=all").await;
    let expected = r#"{"totalQueryableSamplesPerStep":[[1795221261.5,2]],"totalQueryableSamples":2,"#;
    assert!(instant.text().contains(expected), "{}", instant.text());
}
