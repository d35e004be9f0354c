//! `chronolith query`: asks a running server and prints the answer.

mod tree;

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context as _, bail};
use chronolith_model::labels::{is_legacy_label_name, write_quoted};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, StatusCode, Uri, body::Bytes, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::Value;

use crate::cli::{Explain, QueryArgs};

const TIMEOUT: Duration = Duration::from_secs(150);

/// Longest answer.
const ANSWER_BYTES_MAX: usize = 1 << 30;

/// How much of an answer that is none of the API is shown.
const SHOWN_CHARS_MAX: usize = 200;

/// What to print.
pub(crate) struct Printed {
    /// On standard output.
    pub(crate) text: String,
    /// On standard error.
    pub(crate) notes: String,
    /// The server has refused the query: why.
    pub(crate) failure: Option<String>,
}

/// The API's envelope.
#[derive(Deserialize)]
struct Answer {
    data: Option<Data>,
    error: Option<String>,
    #[serde(rename = "errorType")]
    error_type: Option<String>,
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(default)]
    infos: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Data {
    result_type: String,
    result: Value,
    explain: Option<Value>,
}

/// Runs the query.
///
/// # Errors
/// When the server cannot be reached or answers something else than the API does.
pub(crate) async fn run(args: &QueryArgs) -> anyhow::Result<Printed> {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("query", &args.query);
    let endpoint = if let (Some(start), Some(end)) = (&args.start, &args.end) {
        form.append_pair("start", start).append_pair("end", end).append_pair("step", &args.step);
        "/api/v1/query_range"
    } else {
        if let Some(time) = &args.time {
            form.append_pair("time", time);
        }
        "/api/v1/query"
    };
    if let Some(explain) = args.explain {
        form.append_pair("explain", if explain == Explain::Analyze { "analyze" } else { "1" });
    }
    let url = format!("{}{endpoint}", args.url.trim_end_matches('/'));
    let (status, body) = tokio::time::timeout(TIMEOUT, post(&url, form.finish()))
        .await
        .with_context(|| format!("no answer from {url} within {} s", TIMEOUT.as_secs()))??;
    let Ok(answer) = serde_json::from_slice::<Answer>(&body) else {
        bail!(something_else(&url, status, &body))
    };
    let json = || format!("{}\n", String::from_utf8_lossy(&body));
    let failed = answer.error.is_some();
    let explained = |data: Option<&Data>| {
        data.and_then(|data| data.explain.as_ref()).map(|explain| tree::render(explain, failed))
    };
    if let Some(error) = answer.error {
        let failure = format!("{}: {error}", answer.error_type.unwrap_or_default());
        let told = || explained(answer.data.as_ref()).unwrap_or_default();
        let text = if args.json { json() } else { told() };
        return Ok(Printed { text, notes: String::new(), failure: Some(failure) });
    }
    let mut notes = String::new();
    for warning in &answer.warnings {
        let _ = writeln!(notes, "warning: {warning}");
    }
    for info in &answer.infos {
        let _ = writeln!(notes, "info: {info}");
    }
    if args.json {
        return Ok(Printed { text: json(), notes, failure: None });
    }
    let Some(data) = answer.data else { bail!(something_else(&url, status, &body)) };
    if args.explain.is_some() {
        let Some(text) = explained(Some(&data)) else {
            bail!("{url} does not explain queries: it is no Chronolith, or an older one");
        };
        return Ok(Printed { text, notes, failure: None });
    }
    if data.result.as_array().is_some_and(Vec::is_empty) {
        notes.push_str("no series: nothing matches at this time\n");
    }
    Ok(Printed { text: render(&data), notes, failure: None })
}

/// What to tell of an answer that is none of the API.
fn something_else(url: &str, status: StatusCode, body: &[u8]) -> String {
    let status = status.as_u16();
    let text = String::from_utf8_lossy(body);
    let line: String = text.lines().next().unwrap_or_default().chars().take(SHOWN_CHARS_MAX).collect();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        return format!("HTTP {status} from {url}: {line} (it may be starting or ending; retry)");
    }
    let shown =
        if line.trim().is_empty() || line.starts_with('<') { String::new() } else { format!(" ({line})") };
    format!("HTTP {status} from {url}{shown}: not a Prometheus API; give --url http://HOST:PORT")
}

async fn post(url: &str, form: String) -> anyhow::Result<(StatusCode, Bytes)> {
    let uri: Uri = url.parse().with_context(|| format!("--url: {url:?} is not a URL"))?;
    let authority = uri.authority().context("--url: the host is missing")?.clone();
    let address = (authority.host().trim_matches(['[', ']']), authority.port_u16().unwrap_or(80));
    let stream = tokio::net::TcpStream::connect(address).await.with_context(|| {
        format!("cannot connect to {authority} (does a server run there? --url names another)")
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::post(path)
        .header(header::HOST, authority.as_str())
        .header(header::USER_AGENT, concat!("chronolith/", env!("CARGO_PKG_VERSION")))
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Full::new(Bytes::from(form)))?;
    let response = sender.send_request(request).await.with_context(|| {
        format!(
            "{authority} does not answer as an HTTP server; give --url http://HOST:PORT of a Prometheus API"
        )
    })?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("the answer of {authority} broke off: {error}"))?;
    Ok((status, body.to_bytes()))
}

fn render(data: &Data) -> String {
    let mut out = String::new();
    match data.result_type.as_str() {
        "scalar" | "string" => {
            let _ = writeln!(out, "{}", point(&data.result));
        }
        _ => {
            for series in data.result.as_array().into_iter().flatten() {
                let name = metric(&series["metric"]);
                if data.result_type == "matrix" {
                    let _ = writeln!(out, "{name} =>");
                    for value in points(series) {
                        let _ = writeln!(out, "{}", point(value));
                    }
                } else {
                    let value = if series["histogram"].is_array() { "histogram" } else { "value" };
                    let _ = writeln!(out, "{name} => {}", point(&series[value]));
                }
            }
        }
    }
    out
}

/// The floats and histograms of a series in the order of time.
fn points(series: &Value) -> Vec<&Value> {
    let of = |kind: &str| series[kind].as_array().into_iter().flatten();
    let mut points: Vec<&Value> = of("values").chain(of("histograms")).collect();
    let time = |point: &Value| point[0].as_f64().unwrap_or_default();
    points.sort_by(|a, b| time(a).total_cmp(&time(b)));
    points
}

/// `1 @[1435781451.781]`
fn point(value: &Value) -> String {
    let shown = if value[1].is_object() {
        histogram(&value[1])
    } else {
        value[1].as_str().unwrap_or_default().to_owned()
    };
    format!("{shown} @[{}]", value[0])
}

/// `{count:3, sum:4.5, [-2,-1):1, (1,2]:2}`
fn histogram(value: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut out = format!("{{count:{}, sum:{}", text(&value["count"]), text(&value["sum"]));
    for bucket in value["buckets"].as_array().into_iter().flatten() {
        // Which ends belong to the bucket: 0 the upper one, 1 the lower one, 2 none, 3 both.
        let rule = bucket[0].as_u64().unwrap_or_default();
        let open = if matches!(rule, 1 | 3) { '[' } else { '(' };
        let close = if matches!(rule, 0 | 3) { ']' } else { ')' };
        let [lower, upper, count] = [1, 2, 3].map(|at| text(&bucket[at]));
        let _ = write!(out, ", {open}{lower},{upper}{close}:{count}");
    }
    out.push('}');
    out
}

/// `up{job="a"}`
fn metric(labels: &Value) -> String {
    let mut name = String::new();
    let mut pairs = Vec::new();
    for (label, value) in labels.as_object().into_iter().flatten() {
        let value = value.as_str().unwrap_or_default();
        if label == chronolith_model::METRIC_NAME && name.is_empty() {
            name.push_str(value);
            continue;
        }
        let mut pair = String::new();
        let _ =
            if is_legacy_label_name(label) { pair.write_str(label) } else { write_quoted(&mut pair, label) };
        pair.push('=');
        let _ = write_quoted(&mut pair, value);
        pairs.push(pair);
    }
    if pairs.is_empty() && !name.is_empty() {
        return name;
    }
    format!("{name}{{{}}}", pairs.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(json: &str) -> String {
        let answer: Answer = serde_json::from_str(json).expect("an answer");
        render(&answer.data.expect("data"))
    }

    #[test]
    fn results_are_printed_a_line_each() {
        let vector = r#"{"status":"success","data":{"resultType":"vector","result":[
            {"metric":{"__name__":"up","job":"a"},"value":[1435781451.781,"1"]},{"metric":{},"value":[1,"NaN"]}]}}"#;
        assert_eq!(rendered(vector), "up{job=\"a\"} => 1 @[1435781451.781]\n{} => NaN @[1]\n");
        let matrix = r#"{"status":"success","data":{"resultType":"matrix","result":[
            {"metric":{"__name__":"up"},"values":[[1,"1"],[2,"0"]]}]}}"#;
        assert_eq!(rendered(matrix), "up =>\n1 @[1]\n0 @[2]\n");
        let histograms = r#"{"status":"success","data":{"resultType":"vector","result":[
            {"metric":{"__name__":"h"},"histogram":[3,{"count":"6","sum":"NaN","buckets":[
            [1,"-1","-0.5","2"],[3,"-0.001","0.001","2"],[0,"1","2","1"],[2,"2","+Inf","1"]]}]},
            {"metric":{},"histogram":[3,{"count":"0","sum":"0"}]}]}}"#;
        assert_eq!(
            rendered(histograms),
            "h => {count:6, sum:NaN, [-1,-0.5):2, [-0.001,0.001]:2, (1,2]:1, (2,+Inf):1} @[3]\n\
             {} => {count:0, sum:0} @[3]\n"
        );
        let mixed = r#"{"status":"success","data":{"resultType":"matrix","result":[
            {"metric":{},"values":[[1,"1"],[3,"0"]],"histograms":[[2,{"count":"1","sum":"2"}]]}]}}"#;
        assert_eq!(rendered(mixed), "{} =>\n1 @[1]\n{count:1, sum:2} @[2]\n0 @[3]\n");
        let scalar = r#"{"status":"success","data":{"resultType":"scalar","result":[1.5,"2"]}}"#;
        assert_eq!(rendered(scalar), "2 @[1.5]\n");
    }
}
