//! Parameters: missing, unknown, malformed, out of bounds.

use super::{Case, QUERY, RANGE, Times};

/// The cases.
pub(super) fn cases(times: Times) -> Vec<Case> {
    [grids(times), instants(), shared(times), encodings(times), limits(times), label_queries(times), others()]
        .concat()
}

/// `start`, `end` and `step`.
fn grids(times: Times) -> Vec<Case> {
    let grid = |start: &str, end: &str, step: &str| {
        Case::new(RANGE, &[("query", "m"), ("start", start), ("end", end), ("step", step)])
    };
    let t = times.end.to_string();
    let mut cases = vec![
        Case::new(RANGE, &[]),
        Case::new(RANGE, &[("query", "m")]),
        Case::new(RANGE, &[("query", "m"), ("start", "0")]),
        Case::new(RANGE, &[("query", "m"), ("start", "0"), ("end", "10")]),
        Case::new(RANGE, &[("start", "0"), ("end", "10"), ("step", "1")]),
        Case::new(RANGE, &[("query", ""), ("start", "0"), ("end", "10"), ("step", "1")]),
        grid("10", "1", "1"),
        grid("10.001", "10", "1"),
        grid("0", "11000", "1"),
        grid("0", "11001", "1"),
        grid("0", "11000.999", "1"),
        grid("0", "1e12", "1"),
        grid("0", "1e12", "1ms"),
        grid("-1e9", "1e9", "1h"),
        grid(&t, &t, "1e9"),
        grid(&t, &t, "100y"),
        grid("0", "1", "0x10"),
        grid("0", "1", "1e-9"),
        grid("0", "1", "0x1p4").own("Hexadecimal floats", 400, "cannot parse \"0x1p4\" to a valid duration"),
        grid("0", "0", "1e-9").own("`step` below 1 ms", 400, "zero or negative query resolution"),
        grid("0", "1", "0.0009").own("`step` below 1 ms", 400, "zero or negative query resolution"),
    ];
    let not_steps = [
        "0",
        "-1",
        "0s",
        "-5m",
        "0ms",
        "",
        " ",
        "x",
        "NaN",
        "Inf",
        "-Inf",
        "1e300",
        "9223372036.8",
        "9223372037",
        "1x",
        "5m1h",
        "1h1h",
        "1.5h",
        "5 m",
        "--1",
        "1e",
        "1_0",
        "_1",
        "106751y",
        "1e400",
    ];
    cases.extend(not_steps.map(|step| grid("0", "10", step)));
    let not_times = [
        "",
        "x",
        "NaN",
        "1_",
        "2020-13-01T00:00:00Z",
        "2020-01-32T00:00:00Z",
        "2020-01-01",
        "2020-01-01T00:00:00",
        "2020-01-01T00:00:00+25:00",
        "2020-01-01t00:00:00z",
        "2020-02-30T00:00:00Z",
        "1e400",
        "-",
        "5m",
        "now",
        "\u{0}",
        "1,5",
    ];
    for time in not_times {
        cases.push(grid(time, &t, "60"));
        cases.push(grid(&t, time, "60"));
    }
    cases.extend(
        ["Inf", "-Inf", "1e300", "-1e300", "9223372036854775807", "-9223372036854775808"]
            .into_iter()
            .flat_map(|time| [grid(time, &t, "60"), grid(&t, time, "60"), grid(time, time, "60")]),
    );
    cases
}

/// `time`.
fn instants() -> Vec<Case> {
    let at = |time: &str| Case::new(QUERY, &[("query", "m"), ("time", time)]);
    let times = [
        "x",
        "1_",
        "2020-13-01T00:00:00Z",
        "2020-01-01",
        "5m",
        "now",
        "\u{0}",
        "1e400",
        "-1e400",
        "--1",
        "1 ",
        "NaN",
        "0",
        "-1",
        "-62135596800",
        "253402300799",
        "9223372036",
        "-9223372036",
    ];
    let mut cases = times.map(at).to_vec();
    cases.push(at("0x10"));
    cases.push(at("0x1p4").own("Hexadecimal floats", 400, "cannot parse \"0x1p4\" to a valid timestamp"));
    cases
}

/// What instant and range queries share.
fn shared(times: Times) -> Vec<Case> {
    let t = times.end.to_string();
    let both = |more: &[(&str, &str)]| {
        let instant = [&[("query", "m"), ("time", &*t)], more].concat();
        let range = [&[("query", "m"), ("start", &*t), ("end", &*t), ("step", "60")], more].concat();
        [Case::new(QUERY, &instant), Case::new(RANGE, &range)]
    };
    let mut cases = Vec::new();
    for timeout in ["x", "1x", "Inf", "1e300", "5m1h", "-", " ", "100y", "9223372037", "1e400"] {
        cases.extend(both(&[("timeout", timeout)]));
    }
    // Whether it is over before it begins, or in which stage, is up to chance there.
    for (timeout, status, text) in [
        ("0", 503, "query timed out"),
        ("0s", 503, "query timed out"),
        ("-1", 400, "context deadline exceeded"),
        ("NaN", 400, "context deadline exceeded"),
    ] {
        cases.extend(both(&[("timeout", timeout)]).map(|case| case.alone("`timeout` of 0", status, text)));
    }
    for lookback in ["x", "0", "-1", "NaN", "Inf", "1e300", "1ms", "5 m", "100y", " "] {
        cases.extend(both(&[("lookback_delta", lookback)]));
    }
    for stats in ["", "x", "all"] {
        // Statistics have times; that the answer is one is what is compared.
        cases.extend(both(&[("stats", stats)]));
    }
    for limit in ["1", "0", "5", "-1", "x", "1.5", "1e3", "+1", " 1", "99999999999999999999", "0x1", ""] {
        cases.extend(both(&[("limit", limit)]));
    }
    cases.extend(both(&[("nosuch", "x"), ("query", "second"), ("limit", "2"), ("limit", "x")]));
    // With more work than fits into it.
    let once = |inner: &str| format!("quantile_over_time(0.5, {inner}[45m:1s])");
    let slow = once(&once(&once("m")));
    cases.push(Case::new(QUERY, &[("query", &slow), ("time", &t), ("timeout", "1ms")]));
    cases
}

/// Bytes that are no text, and encodings that are none.
fn encodings(times: Times) -> Vec<Case> {
    let t = times.end;
    let query = |encoded: &str| Case::raw(QUERY, format!("query={encoded}&time={t}"));
    let get = |encoded: &str| Case::get(format!("{QUERY}?query={encoded}&time={t}"));
    let mut cases = vec![
        Case::raw(QUERY, ""),
        Case::raw(QUERY, "query"),
        Case::raw(QUERY, "&&&"),
        Case::raw(QUERY, "=m"),
        Case::raw(QUERY, format!("query=m&query=n&time={t}")),
        Case::raw(QUERY, format!("QUERY=m&time={t}")),
        Case::raw(QUERY, format!("query=m&time={t}&a;b=c")),
        Case::get(QUERY),
        Case::get(format!("{QUERY}?")),
        Case::raw(&format!("{QUERY}?query=twin"), format!("query=m&time={t}")),
    ];
    for encoded in [
        "%FF",
        "m%FF",
        "%FFm",
        "m%7Bi%3D%22%FF%22%7D",
        "%22%FF%22",
        "%C3%28",
        "%ED%A0%80",
        "%F4%90%80%80",
        "%00",
        "m%00",
        "%00m",
        "m%7Bi%3D%22%00%22%7D",
        "%22%00%22",
        "m%01",
        "m%0A%2B%0A",
        "%EF%BB%BFm",
        "%E2%80%8Bm",
        "m%C2%A0",
        "%",
        "m%",
        "%2",
        "%ZZ",
        "m;n",
        "m+%2B+m",
        "%F0%9F%98%80",
        "%22%5Cxff%22",
        "m%7Bi%3D%22%5Cxff%22%7D",
        "%7F",
        "m%7B%FF%3D%22a%22%7D",
        "%27%FF",
        "%23%FF",
        "m%7B%22%FF%22%3D%22a%22%7D",
    ] {
        cases.push(query(encoded));
        cases.push(get(encoded));
    }
    cases
}

/// Results above what a query may hold.
fn limits(times: Times) -> Vec<Case> {
    let wide = |query: &str| {
        let (start, end) = ((times.end - 1_000).to_string(), times.end.to_string());
        Case::new(RANGE, &[("query", query), ("start", &start), ("end", &end), ("step", "0.1")])
    };
    let mut cases: Vec<Case> = [
        "{__name__=~\".+\"}",
        "m or twin or one",
        "sum({__name__=~\".+\"})",
        "max_over_time(m[10m:10ms])",
        "m + on (g, i) twin",
        "rate({__name__=~\"m|one\"}[1s])",
        "vector(1)",
        "1",
    ]
    .map(wide)
    .to_vec();
    cases.extend(
        [
            "m[10m:1ms]",
            "max_over_time(m[10m:1ms])",
            "max_over_time(vector(1)[1y:1s])",
            "max_over_time(m[1h:1s])",
            "sum_over_time((m > 0)[10000y:1s])",
        ]
        .map(|query| Case::instant(times, query)),
    );
    cases
}

/// `labels`, `label/.../values`, `series`.
fn label_queries(times: Times) -> Vec<Case> {
    const LABELS: &str = "/api/v1/labels";
    const SERIES: &str = "/api/v1/series";
    const VALUES: &str = "/api/v1/label/g/values";
    let mut cases = vec![Case::new(SERIES, &[])];
    let end = times.end.to_string();
    let mut all = |form: &[(&str, &str)]| {
        cases.push(Case::new(LABELS, form));
        cases.push(Case::new(SERIES, form));
        let query = chronolith_e2e::http::encode_form(form);
        cases.push(Case::get(format!("{VALUES}?{query}")));
    };
    for selector in [
        "",
        "{",
        "{}",
        "m{",
        "m{a=",
        "m{a=~\"(\"}",
        "m[5m]",
        "m offset 5m",
        "1",
        "sum(m)",
        "m or m",
        "{a=\"\"}",
        "{a=~\".*\"}",
        "m{__name__=\"x\"}",
        "\"m\"",
        "\u{0}",
        "m{g=\"\\xff\"}",
        "{__name__!=\"\"}",
        " ",
        "(m)",
    ] {
        all(&[("match[]", selector)]);
        all(&[("match[]", "m"), ("match[]", selector)]);
    }
    for (name, value) in [
        ("start", "x"),
        ("end", "x"),
        ("start", "NaN"),
        ("limit", "-1"),
        ("limit", "x"),
        ("limit", "1"),
        ("limit", "0"),
        ("limit", "99999999999999999999"),
        ("nosuch", "1"),
    ] {
        all(&[("match[]", "m"), (name, value)]);
    }
    all(&[("match[]", "m"), ("start", &end), ("end", "0")]);
    for name in ["%00", "", "a-b", "%FF", "U__a_2d_b", "U__", "%20", "__name__", "nosuch", "%7B%7D"] {
        cases.push(Case::get(format!("/api/v1/label/{name}/values")));
    }
    let at = Case::new(LABELS, &[("match[]", "m @ 1")]);
    cases.push(at.own("`@` in the text of an error", 400, "unexpected <op:@>"));
    let slash = Case::get("/api/v1/label/a%2Fb/values");
    cases.push(slash.own("A slash in the name of a label", 200, ""));
    cases
}

/// Other ways of the API.
fn others() -> Vec<Case> {
    let mut cases = vec![
        Case::new("/api/v1/format_query", &[]),
        Case::new("/api/v1/parse_query", &[]),
        Case::new("/api/v1/query_exemplars", &[]),
        Case::new("/api/v1/query_exemplars", &[("query", "m["), ("start", "0"), ("end", "1")]),
        Case::new("/api/v1/query_exemplars", &[("query", "m"), ("start", "x"), ("end", "1")]),
        Case::new("/api/v1/query_exemplars", &[("query", "m"), ("start", "2"), ("end", "1")]),
        Case::get("/api/v1/metadata?limit=x"),
        Case::get("/api/v1/metadata?limit_per_metric=x"),
        Case::get("/api/v1/metadata?limit=-1"),
        Case::get("/api/v1/status/tsdb?limit=x"),
        Case::get("/api/v1/status/tsdb?limit=0"),
        Case::get("/api/v1/status/tsdb?limit=-1"),
        Case::get("/api/v1/nosuch"),
        Case::get("/api/v1/rules?type=x"),
        Case::get("/api/v1/targets?state=x"),
    ];
    for query in ["", "m{", "foo(m)", "m[5m", "1 +", "\u{0}"] {
        cases.push(Case::new("/api/v1/format_query", &[("query", query)]));
        cases.push(Case::new("/api/v1/parse_query", &[("query", query)]));
    }
    cases
}
