//! The list of queries of the differential test, and asking them.

use anyhow::{Context, Result, bail};
use chronolith_e2e::api::{Answer, Order};
use chronolith_e2e::http::Client;

const LIST: &str = include_str!("../queries.txt");

/// The instants the list refers to, in ms.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Instants {
    /// `S`: start of the generated stream.
    pub(crate) stream_start_ms: i64,
    /// `W`: an actual scrape near the end of the scraped minute.
    pub(crate) scrape_ms: i64,
}

/// One line of the list.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    /// The line, for messages.
    pub(crate) line: String,
    /// How the order of a vector is compared.
    pub(crate) order: Order,
    path: &'static str,
    form: Vec<(&'static str, String)>,
}

impl Question {
    /// Asks a server.
    pub(crate) fn ask(&self, client: &mut Client) -> Result<Answer> {
        let form: Vec<(&str, &str)> = self.form.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let response = client.post_form(self.path, &form).with_context(|| self.line.clone())?;
        Answer::parse(&response).with_context(|| self.line.clone())
    }
}

/// All questions of the list.
pub(crate) fn questions(instants: Instants) -> Result<Vec<Question>> {
    let lines = LIST.lines().filter(|l| !l.is_empty() && !l.starts_with('#'));
    lines.map(|line| parse(line, instants).with_context(|| format!("queries.txt: {line}"))).collect()
}

fn parse(line: &str, instants: Instants) -> Result<Question> {
    let (kind, rest) = line.split_once(' ').context("no time")?;
    let time = |text: &str| -> Result<String> {
        let ms = time_ms(text, instants)?;
        Ok(format!("{}.{:03}", ms / 1000, ms % 1000))
    };
    let mut form = Vec::new();
    let (path, expr) = match kind {
        "i" | "u" => {
            let (at, expr) = rest.split_once(' ').context("no expression")?;
            form.push(("time", time(at)?));
            ("/api/v1/query", expr)
        }
        "r" => {
            let mut parts = rest.splitn(4, ' ');
            let mut next = || parts.next().context("a range needs START END STEP EXPR");
            form.push(("start", time(next()?)?));
            form.push(("end", time(next()?)?));
            form.push(("step", next()?.to_owned()));
            ("/api/v1/query_range", next()?)
        }
        other => bail!("unknown kind {other}"),
    };
    form.push(("query", expr.to_owned()));
    let order = if kind == "u" { Order::Free } else { Order::Exact };
    Ok(Question { line: line.to_owned(), order, path, form })
}

fn time_ms(text: &str, instants: Instants) -> Result<i64> {
    let base = match text.as_bytes().first() {
        Some(b'S') => instants.stream_start_ms,
        Some(b'W') => instants.scrape_ms,
        _ => bail!("time {text} starts with neither S nor W"),
    };
    let mut total = base;
    let mut rest = &text[1..];
    while let Some(sign) = rest.chars().next() {
        let sign = match sign {
            '+' => 1,
            '-' => -1,
            _ => bail!("time {text}: expected + or -"),
        };
        let end = rest[1..].find(['+', '-']).map_or(rest.len(), |i| i + 1);
        total += sign * duration_ms(&rest[1..end]).with_context(|| format!("time {text}"))?;
        rest = &rest[end..];
    }
    Ok(total)
}

fn duration_ms(text: &str) -> Result<i64> {
    let mut total = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).context("a number without a unit")?;
        let number: i64 = rest[..digits].parse().context("no number")?;
        let tail = &rest[digits..];
        let unit_len = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        total += number
            * match &tail[..unit_len] {
                "h" => 3_600_000,
                "m" => 60_000,
                "s" => 1_000,
                "ms" => 1,
                unit => bail!("unknown unit {unit}"),
            };
        rest = &tail[unit_len..];
    }
    Ok(total)
}

#[test]
fn the_list_is_well_formed_and_long_enough() {
    let instants = Instants { stream_start_ms: 1_000_000_000, scrape_ms: 2_000_000_000 };
    let all = questions(instants).expect("a well-formed list");
    assert!(all.len() >= 150, "{} queries", all.len());
    assert_eq!(time_ms("S+1h-1ms", instants).expect("a time"), 1_003_599_999);
    assert_eq!(time_ms("W-1m30s500ms", instants).expect("a time"), 1_999_909_500);
    assert!(time_ms("W-1x", instants).is_err());
}
