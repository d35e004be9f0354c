use super::*;
use crate::error::ErrorKind;

fn of(query: &str) -> Params {
    Params::new(None, Some(query)).expect("few")
}

#[test]
fn the_form_wins_and_lists_are_joined() {
    let params = Params::new(Some(b"a=form&m%5B%5D=1&m[]=2&empty&plus=a+b%2B"), Some("a=url&m[]=3&b=%c3%a9"))
        .expect("few");
    assert_eq!(params.get("a"), "form");
    assert_eq!(params.get("b"), "\u{e9}");
    assert_eq!(params.get("plus"), "a b+");
    assert_eq!(params.get("empty"), "");
    assert_eq!(params.get("none"), "");
    assert_eq!(params.all("m[]").collect::<Vec<_>>(), ["1", "2", "3"]);
    assert!(params.well_formed().is_ok());
}

#[test]
fn what_is_malformed_is_left_out() {
    let params = of("query=1%zz&a=1;b=2&c=3");
    assert_eq!((params.get("query"), params.get("a"), params.get("c")), ("", "", "3"));
    let error = params.well_formed().expect_err("malformed");
    assert_eq!(error.message, "error parsing form values: invalid URL escape \"%zz\"");
}

#[test]
fn times_as_prometheus_reads_them() {
    // Checked against 3.5.3.
    for (text, ms) in [
        ("1.9999", 2000),
        ("1.0004", 1000),
        ("-1.5", -1500),
        ("-0.0005", -1),
        ("0.0005", 1),
        ("1_0", 10_000),
        ("1795219200000", 1_795_219_200_000_000),
        ("1e30", 0),
        ("2026-11-21T00:34:22Z", 1_795_221_262_000),
        ("2026-11-21T00:34:22+02:00", 1_795_214_062_000),
        ("2026-11-21T00:34:22.0019Z", 1_795_221_262_001),
        ("1969-12-31T23:59:59.5Z", -500),
    ] {
        assert_eq!(ApiTime::parse(text).map(ApiTime::millis), Some(ms), "{text}");
    }
    // Any time will do for these, but none of them is an error.
    for text in ["NaN", "Inf", "-Inf"] {
        assert!(ApiTime::parse(text).is_some(), "{text}");
    }
    for text in [
        "",
        " 1",
        "foo",
        "0x10",
        "1e400",
        "_1",
        "1__0",
        "2026-11-21t00:34:22z",
        "2026-11-21 00:34:22Z",
        "2026-11-21T00:34:22",
        "2026-02-30T00:34:22Z",
        "2026-11-21T00:34:22.Z",
        "2026-11-21T00:34:22+2:00",
    ] {
        assert_eq!(ApiTime::parse(text), None, "{text}");
    }
}

#[test]
fn the_ends_of_time() {
    assert_eq!(ApiTime::parse(MIN_TIME_TEXT), Some(MIN_TIME));
    assert_eq!(ApiTime::parse(MAX_TIME_TEXT), Some(MAX_TIME));
    assert_eq!(MAX_TIME.nanos_since(MIN_TIME), i64::MAX);
    assert_eq!(MIN_TIME.nanos_since(MAX_TIME), i64::MIN);
    let range = of("").time_range().expect("defaults");
    assert!(range.min < i64::MIN / 2 && range.max > i64::MAX / 2);
}

#[test]
fn durations() {
    for (text, nanos) in [
        ("15", 15_000_000_000),
        ("0.5", 500_000_000),
        ("1m30s", 90_000_000_000),
        ("0", 0),
        ("-1", -1_000_000_000),
        ("NaN", i64::MIN),
    ] {
        assert_eq!(parse_api_duration(text), Ok(nanos), "{text}");
    }
    for (text, error) in [
        ("1x", "cannot parse \"1x\" to a valid duration"),
        ("", "cannot parse \"\" to a valid duration"),
        ("1e12", "cannot parse \"1e12\" to a valid duration. It overflows int64"),
        ("1e400", "cannot parse \"1e400\" to a valid duration"),
    ] {
        assert_eq!(parse_api_duration(text), Err(error.to_owned()));
    }
}

#[test]
fn a_grid_is_checked_in_prometheus_order() {
    for (query, error) in [
        ("", "invalid parameter \"start\": cannot parse \"\" to a valid timestamp"),
        ("start=1&end=x", "invalid parameter \"end\": cannot parse \"x\" to a valid timestamp"),
        ("start=10&end=1&step=x", "invalid parameter \"end\": end timestamp must not be before start time"),
        ("start=1&end=Inf&step=1", "invalid parameter \"end\": end timestamp must not be before start time"),
        ("start=1&end=5", "invalid parameter \"step\": cannot parse \"\" to a valid duration"),
        (
            "start=1&end=5&step=0",
            "invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try a \
             positive integer",
        ),
        (
            "start=1&end=1&step=0.0001",
            "invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try a \
             positive integer",
        ),
        (
            "start=0&end=11001&step=1",
            "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution \
             (?step=XX)",
        ),
        (
            "start=NaN&end=1&step=1",
            "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution \
             (?step=XX)",
        ),
        (
            "start=-292273086-05-16T16:47:06Z&end=1&step=1",
            "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution \
             (?step=XX)",
        ),
    ] {
        assert_eq!(Grid::of(&of(query)).expect_err(query).message, error, "{query}");
    }
    let grid = Grid::of(&of("start=0&end=11000.9&step=1s")).expect("11,001 points are fine");
    assert_eq!(grid, Grid { start: 0, end: 11_000_900, step: 1000 });
}

#[test]
fn limits() {
    for (query, error) in [
        ("limit=x", "invalid parameter \"limit\": strconv.Atoi: parsing \"x\": invalid syntax"),
        (
            "limit=99999999999999999999",
            "invalid parameter \"limit\": strconv.Atoi: parsing \"99999999999999999999\": value out of range",
        ),
        ("limit=-1", "invalid parameter \"limit\": limit must be non-negative"),
    ] {
        assert_eq!(of(query).limit().expect_err(query).message, error);
    }
    assert_eq!(of("limit=%2B5").limit(), Ok(5));
    assert_eq!(of("").limit(), Ok(0));
}

#[test]
fn timeout_and_lookback() {
    assert_eq!(Timeout::of(&of("")), Ok(Timeout::Default));
    assert_eq!(Timeout::of(&of("timeout=1m")), Ok(Timeout::After(Duration::from_secs(60))));
    assert_eq!(Timeout::of(&of("timeout=-1")), Ok(Timeout::Expired));
    assert!(Timeout::of(&of("timeout=1x")).is_err());
    assert_eq!(lookback_of(&of("lookback_delta=1m")), Ok(Some(Duration::from_secs(60))));
    for none in ["", "lookback_delta=0", "lookback_delta=-1", "lookback_delta=NaN"] {
        assert_eq!(lookback_of(&of(none)), Ok(None), "{none}");
    }
}

#[test]
fn there_is_a_limit_to_parameters() {
    let many = "a=1&".repeat(PARAMS_MAX);
    assert_eq!(of(&many).all("a").count(), PARAMS_MAX);
    let form = many.strip_suffix("a=1&").expect("the last");
    assert_eq!(Params::new(Some(form.as_bytes()), Some("a=2")).expect("as many").get("a"), "1");
    for (form, query) in [(Some(many.as_bytes()), "b=1"), (None, &*format!("{many}b=1"))] {
        let error = Params::new(form, Some(query)).expect_err("one more");
        assert_eq!((error.kind, error.message.as_str()), (ErrorKind::BadData, "more than 10000 parameters"));
    }
}
