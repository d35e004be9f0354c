//! `chronolith query`: asks a running server and prints the answer.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context as _, bail};
use chronolith_model::labels::{is_legacy_label_name, write_quoted};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, StatusCode, Uri, body::Bytes, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::Value;

use crate::cli::QueryArgs;

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

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: String,
    result: Value,
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
    let url = format!("{}{endpoint}", args.url.trim_end_matches('/'));
    let (status, body) = tokio::time::timeout(TIMEOUT, post(&url, form.finish()))
        .await
        .with_context(|| format!("no answer from {url} within {} s", TIMEOUT.as_secs()))??;
    let Ok(answer) = serde_json::from_slice::<Answer>(&body) else {
        bail!(something_else(&url, status, &body))
    };
    let json = || format!("{}\n", String::from_utf8_lossy(&body));
    if let Some(error) = answer.error {
        let failure = format!("{}: {error}", answer.error_type.unwrap_or_default());
        let text = if args.json { json() } else { String::new() };
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
                if let Some(points) = series["values"].as_array() {
                    let _ = writeln!(out, "{name} =>");
                    for value in points {
                        let _ = writeln!(out, "{}", point(value));
                    }
                } else {
                    let _ = writeln!(out, "{name} => {}", point(&series["value"]));
                }
            }
        }
    }
    out
}

/// `1 @[1435781451.781]`
fn point(value: &Value) -> String {
    format!("{} @[{}]", value[1].as_str().unwrap_or_default(), value[0])
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
        let scalar = r#"{"status":"success","data":{"resultType":"scalar","result":[1.5,"2"]}}"#;
        assert_eq!(rendered(scalar), "2 @[1.5]\n");
    }
}
