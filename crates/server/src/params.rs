//! Parameters of a request: URL and form merged as Go's `FormValue` does, and their values as Prometheus reads them.

use std::time::Duration;

use chronolith_model::{TimeRange, Timestamp, parse_duration};
use jiff::tz::Offset;

use crate::error::ApiError;

/// The most parameters of one request.
pub(crate) const PARAMS_MAX: usize = 10_000;

/// The times Prometheus prints for the ends of time, and reads back.
const MIN_TIME_TEXT: &str = "-292273086-05-16T16:47:06Z";
const MAX_TIME_TEXT: &str = "292277025-08-18T07:12:54.999999999Z";
/// One more than the seconds between years 1 and 1970.
const UNIX_TO_INTERNAL: i64 = 62_135_596_801;
/// What those mean.
const MIN_TIME: ApiTime = ApiTime { seconds: i64::MIN / 1000 + UNIX_TO_INTERNAL, nanos: 0 };
const MAX_TIME: ApiTime = ApiTime { seconds: i64::MAX / 1000 - UNIX_TO_INTERNAL, nanos: 999_999_999 };

/// The parameters of a request. Values of the form come before those of the URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Params {
    pairs: Vec<(String, String)>,
    /// The first pair that is no valid encoding; it is left out.
    fault: Option<String>,
}

impl Params {
    /// The parameters of `form`, if the request has one, and of the URL's `query`.
    ///
    /// # Errors
    /// When there are more than [`PARAMS_MAX`].
    pub(crate) fn new(form: Option<&[u8]>, query: Option<&str>) -> Result<Self, ApiError> {
        let mut params = Self::default();
        if let Some(form) = form {
            params.add(form)?;
        }
        if let Some(query) = query {
            params.add(query.as_bytes())?;
        }
        Ok(params)
    }

    fn add(&mut self, encoded: &[u8]) -> Result<(), ApiError> {
        for pair in encoded.split(|byte| *byte == b'&') {
            if pair.is_empty() {
                continue;
            }
            if self.pairs.len() >= PARAMS_MAX {
                return Err(ApiError::bad_data(format!("more than {PARAMS_MAX} parameters")));
            }
            let decoded = if pair.contains(&b';') {
                Err("invalid semicolon separator in query".to_owned())
            } else {
                let mut parts = pair.splitn(2, |byte| *byte == b'=');
                let name = percent_decode(parts.next().unwrap_or_default(), true);
                let value = percent_decode(parts.next().unwrap_or_default(), true);
                name.and_then(|name| value.map(|value| (name, value)))
            };
            match decoded {
                Ok((name, value)) => self.pairs.push((into_text(name), into_text(value))),
                Err(fault) => self.fault = self.fault.take().or(Some(fault)),
            }
        }
        Ok(())
    }

    /// The first value of `name`, or the empty text.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.pairs.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value.as_str())
    }

    /// All values of `name`.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// That every pair could be read, for the endpoints where Prometheus insists.
    pub(crate) fn well_formed(&self) -> Result<(), ApiError> {
        match &self.fault {
            Some(fault) => Err(ApiError::bad_data(format!("error parsing form values: {fault}"))),
            None => Ok(()),
        }
    }

    /// `limit`: 0 where there is none.
    pub(crate) fn limit(&self) -> Result<usize, ApiError> {
        let text = self.get("limit");
        if text.is_empty() {
            return Ok(0);
        }
        let limit = parse_integer(text).map_err(|cause| ApiError::parameter("limit", cause))?;
        usize::try_from(limit).map_err(|_| ApiError::parameter("limit", "limit must be non-negative"))
    }

    /// A time that may be missing.
    pub(crate) fn time_or(&self, name: &str, default: ApiTime) -> Result<ApiTime, ApiError> {
        let text = self.get(name);
        if text.is_empty() {
            return Ok(default);
        }
        ApiTime::parse(text).ok_or_else(|| {
            let cause = format!("invalid time value for '{name}': {}", not_a_time(text));
            ApiError::parameter(name, cause)
        })
    }

    /// A time that must be there.
    pub(crate) fn time(&self, name: &str) -> Result<ApiTime, ApiError> {
        let text = self.get(name);
        ApiTime::parse(text).ok_or_else(|| ApiError::parameter(name, not_a_time(text)))
    }

    /// `start` and `end` of the label endpoints.
    pub(crate) fn time_range(&self) -> Result<TimeRange, ApiError> {
        let start = self.time_or("start", MIN_TIME)?;
        let end = self.time_or("end", MAX_TIME)?;
        Ok(TimeRange::new(start.millis(), end.millis()))
    }

    /// `start` and `end` of `query_exemplars`.
    pub(crate) fn exemplar_range(&self) -> Result<(ApiTime, ApiTime), ApiError> {
        Ok((self.time_or("start", MIN_TIME)?, self.time_or("end", MAX_TIME)?))
    }
}

fn not_a_time(text: &str) -> String {
    format!("cannot parse {} to a valid timestamp", go_quoted(text))
}

/// `text` as Go's `%q` shows it.
pub(crate) fn go_quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    // Writing to a string cannot fail.
    let _ = chronolith_model::labels::write_quoted(&mut out, text);
    out
}

/// An integer as Go's `strconv.Atoi` reads it, or its error.
pub(crate) fn parse_integer(text: &str) -> Result<i64, String> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("strconv.Atoi: parsing {}: invalid syntax", go_quoted(text)));
    }
    text.parse().map_err(|_| format!("strconv.Atoi: parsing {}: value out of range", go_quoted(text)))
}

/// A float as Go's `strconv.ParseFloat` reads it; hexadecimal is not supported.
fn parse_float(text: &str) -> Option<f64> {
    let digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
    let bytes = text.as_bytes();
    let underscores_fine = bytes
        .iter()
        .enumerate()
        .all(|(at, byte)| *byte != b'_' || (at > 0 && digit(bytes.get(at - 1)) && digit(bytes.get(at + 1))));
    if !underscores_fine {
        return None;
    }
    let value: f64 =
        if text.contains('_') { text.replace('_', "").parse().ok()? } else { text.parse().ok()? };
    // What overflows is an error, what is written as infinity is not.
    let spelled_out = text.bytes().any(|byte| byte == b'n' || byte == b'N');
    (value.is_finite() || spelled_out).then_some(value)
}

/// A point in time of the API, with nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ApiTime {
    seconds: i64,
    /// Below 10^9.
    nanos: i64,
}

impl ApiTime {
    /// As Go's `time.Unix` does: nanoseconds may be anything, seconds wrap.
    fn unix(seconds: i64, nanos: i64) -> Self {
        Self {
            seconds: seconds.wrapping_add(nanos.div_euclid(1_000_000_000)),
            nanos: nanos.rem_euclid(1_000_000_000),
        }
    }

    pub(crate) fn from_millis(ms: Timestamp) -> Self {
        Self { seconds: ms.div_euclid(1000), nanos: ms.rem_euclid(1000) * 1_000_000 }
    }

    /// Float seconds, RFC 3339, or one of the two texts for the ends of time.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Some(float) = parse_float(text) {
            let fraction = (float.fract() * 1000.0).round() / 1000.0;
            return Some(Self::unix(go_int64(float.trunc()), go_int64(fraction * 1e9)));
        }
        match text {
            MIN_TIME_TEXT => Some(MIN_TIME),
            MAX_TIME_TEXT => Some(MAX_TIME),
            _ => parse_rfc3339(text),
        }
    }

    /// Milliseconds, cut. Times that do not fit wrap, as they do in Prometheus.
    pub(crate) fn millis(self) -> Timestamp {
        self.seconds.wrapping_mul(1000).wrapping_add(self.nanos / 1_000_000)
    }

    /// Seconds since year 1, as Go counts them; where that does not fit it wraps, so that infinite times are before
    /// all others.
    fn go_seconds(self) -> i64 {
        self.seconds.wrapping_add(UNIX_TO_INTERNAL - 1)
    }

    pub(crate) fn is_before(self, other: Self) -> bool {
        (self.go_seconds(), self.nanos) < (other.go_seconds(), other.nanos)
    }

    /// Nanoseconds from `earlier` to here, at most what an `i64` holds.
    pub(crate) fn nanos_since(self, earlier: Self) -> i64 {
        let nanos = |time: Self| i128::from(time.go_seconds()) * 1_000_000_000 + i128::from(time.nanos);
        let difference = nanos(self) - nanos(earlier);
        i64::try_from(difference).unwrap_or(if difference < 0 { i64::MIN } else { i64::MAX })
    }
}

/// A float to an integer as the processor does it for Go: what does not fit is the smallest integer.
fn go_int64(value: f64) -> i64 {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if (-LIMIT..LIMIT).contains(&value) { value as i64 } else { i64::MIN }
}

/// `2006-01-02T15:04:05.999999999Z07:00`, strictly.
fn parse_rfc3339(text: &str) -> Option<ApiTime> {
    let bytes = text.as_bytes();
    let digits = |from: usize, count: usize| -> Option<i32> {
        let part = bytes.get(from..from + count)?;
        if part.iter().all(u8::is_ascii_digit) { str::from_utf8(part).ok()?.parse().ok() } else { None }
    };
    let is = |at: usize, byte: u8| bytes.get(at) == Some(&byte);
    if !(is(4, b'-') && is(7, b'-') && is(10, b'T') && is(13, b':') && is(16, b':')) {
        return None;
    }
    let mut behind = 19;
    let mut nanos = 0_i32;
    if is(19, b'.') || is(19, b',') {
        let fraction = bytes.get(20..)?.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if fraction == 0 {
            return None;
        }
        let mut scale = 100_000_000;
        for at in 20..20 + fraction {
            nanos += digits(at, 1)? * scale;
            scale /= 10;
        }
        behind = 20 + fraction;
    }
    let offset_seconds = match bytes.get(behind..)? {
        [b'Z'] => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (hours, minutes) = (digits(behind + 1, 2)?, digits(behind + 4, 2)?);
            if hours > 24 || minutes > 59 {
                return None;
            }
            let seconds = hours * 3600 + minutes * 60;
            if *sign == b'-' { -seconds } else { seconds }
        }
        _ => return None,
    };
    let part = |from, count| digits(from, count).and_then(|value| i8::try_from(value).ok());
    let year = i16::try_from(digits(0, 4)?).ok()?;
    let (month, day) = (part(5, 2)?, part(8, 2)?);
    let (hour, minute, second) = (part(11, 2)?, part(14, 2)?, part(17, 2)?);
    let civil = jiff::civil::DateTime::new(year, month, day, hour, minute, second, nanos).ok()?;
    let utc = Offset::UTC.to_timestamp(civil).ok()?;
    Some(ApiTime::unix(utc.as_second() - i64::from(offset_seconds), i64::from(utc.subsec_nanosecond())))
}

/// A duration of the API in nanoseconds: float seconds or a Prometheus duration.
///
/// # Errors
/// Its text, without the name of the parameter.
pub(crate) fn parse_api_duration(text: &str) -> Result<i64, String> {
    if let Some(seconds) = parse_float(text) {
        let nanos = seconds * 1e9;
        if nanos > i64::MAX as f64 || nanos < i64::MIN as f64 {
            return Err(format!("cannot parse {} to a valid duration. It overflows int64", go_quoted(text)));
        }
        return Ok(go_int64(nanos));
    }
    let ms = parse_duration(text)
        .ok_or_else(|| format!("cannot parse {} to a valid duration", go_quoted(text)))?;
    Ok(ms.saturating_mul(1_000_000))
}

/// The grid of a range query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grid {
    pub(crate) start: Timestamp,
    pub(crate) end: Timestamp,
    /// Milliseconds, positive.
    pub(crate) step: i64,
}

/// Most steps between start and end of a range query.
const GRID_STEPS_MAX: i64 = 11_000;

impl Grid {
    /// `start`, `end` and `step`, checked in Prometheus' order.
    pub(crate) fn of(params: &Params) -> Result<Self, ApiError> {
        let start = params.time("start")?;
        let end = params.time("end")?;
        if end.is_before(start) {
            return Err(ApiError::parameter("end", "end timestamp must not be before start time"));
        }
        let step =
            parse_api_duration(params.get("step")).map_err(|cause| ApiError::parameter("step", cause))?;
        let too_small = || {
            let cause =
                "zero or negative query resolution step widths are not accepted. Try a positive integer";
            ApiError::parameter("step", cause)
        };
        if step <= 0 {
            return Err(too_small());
        }
        if end.nanos_since(start) / step > GRID_STEPS_MAX {
            return Err(ApiError::bad_data(
                "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution \
                 (?step=XX)",
            ));
        }
        // Prometheus fails inside for a step below a millisecond.
        let step = step / 1_000_000;
        if step == 0 {
            return Err(too_small());
        }
        Ok(Self { start: start.millis(), end: end.millis(), step })
    }
}

/// What `timeout` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timeout {
    /// Nothing.
    Default,
    /// At most so long.
    After(Duration),
    /// It is over already.
    Expired,
}

impl Timeout {
    pub(crate) fn of(params: &Params) -> Result<Self, ApiError> {
        let text = params.get("timeout");
        if text.is_empty() {
            return Ok(Self::Default);
        }
        let nanos = parse_api_duration(text).map_err(|cause| ApiError::parameter("timeout", cause))?;
        Ok(u64::try_from(nanos).map_or(Self::Expired, |nanos| Self::After(Duration::from_nanos(nanos))))
    }
}

/// `lookback_delta`, if it is positive.
pub(crate) fn lookback_of(params: &Params) -> Result<Option<Duration>, ApiError> {
    let text = params.get("lookback_delta");
    if text.is_empty() {
        return Ok(None);
    }
    let nanos = parse_api_duration(text)
        .map_err(|cause| ApiError::bad_data(format!("error parsing lookback delta duration: {cause}")))?;
    Ok(u64::try_from(nanos).ok().filter(|nanos| *nanos > 0).map(Duration::from_nanos))
}

/// Undoes percent encoding; in forms, `+` is a blank.
///
/// # Errors
/// Go's text for an escape that is none.
pub(crate) fn percent_decode(encoded: &[u8], form: bool) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(encoded.len());
    let mut at = 0;
    while let Some(byte) = encoded.get(at) {
        match byte {
            b'%' => {
                let hex = |at: usize| encoded.get(at).and_then(|byte| (*byte as char).to_digit(16));
                let (Some(high), Some(low)) = (hex(at + 1), hex(at + 2)) else {
                    let shown = encoded.get(at..).unwrap_or_default();
                    let shown = String::from_utf8_lossy(shown.get(..3).unwrap_or(shown));
                    return Err(format!("invalid URL escape {}", go_quoted(&shown)));
                };
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            b'+' if form => {
                out.push(b' ');
                at += 1;
            }
            byte => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    Ok(out)
}

fn into_text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests;
