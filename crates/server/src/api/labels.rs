//! `labels`, `label/<name>/values`, `series`.

use std::sync::Arc;

use chronolith_model::{Labels, MatchOp, TimeRange};
use chronolith_promql::{QueryError, ResultMemory, Selectors};
use chronolith_storage::{LabelQuery, Limited, Payer, Querier, StorageError};

use super::{Answer, ApiResult, TRUNCATED, in_turn, paying::QueryPays, querier, success_with};
use crate::{
    error::{ApiError, ErrorKind},
    json::{Commas, JsonWriter},
    params::go_quoted,
    routes::ApiRequest,
};

/// Regular expressions in all `match[]` of a request: each may hold megabytes while the request runs.
const MATCH_REGEXES_MAX: usize = 1_000;

pub(super) async fn names(request: ApiRequest) -> ApiResult {
    let body = in_turn(request, |request, runtime| {
        request.params.well_formed()?;
        let mut selectors = request.state.engine().selectors();
        let query = label_query(request, &mut selectors)?;
        let asked = Asked::new(request, &query, &selectors)?;
        asked.texts(&query, |querier, query| runtime.block_on(querier.label_names(query)))
    });
    body.await.map(Some)
}

pub(super) async fn values(request: ApiRequest) -> ApiResult {
    let body = in_turn(request, |request, runtime| {
        let name = label_name(&request.path_param)?;
        let mut selectors = request.state.engine().selectors();
        let query = label_query(request, &mut selectors)?;
        let asked = Asked::new(request, &query, &selectors)?;
        asked.texts(&query, |querier, query| runtime.block_on(querier.label_values(&name, query)))
    });
    body.await.map(Some)
}

pub(super) async fn series(request: ApiRequest) -> ApiResult {
    let body = in_turn(request, |request, runtime| {
        request.params.well_formed()?;
        if request.params.all("match[]").next().is_none() {
            return Err(ApiError::bad_data("no match[] parameter provided"));
        }
        let limit = request.params.limit()?;
        let range = request.params.time_range()?;
        let mut selectors = request.state.engine().selectors();
        add_selectors(request, &mut selectors).map_err(|error| match error.kind {
            ErrorKind::BadData => ApiError::parameter("match[]", error.message),
            _ => error,
        })?;
        let query =
            LabelQuery { matcher_sets: selectors.sets().to_vec(), range: Some(range), limit, payer: None };
        let asked = Asked::new(request, &query, &selectors)?;
        let ask = |querier: &dyn Querier, query: &LabelQuery| runtime.block_on(querier.series(query));
        let series = asked.bounded(&query, ask, Labels::size_bytes)?;
        let bytes = |labels: &Labels| labels.size_bytes() + 64;
        asked.answer(series, bytes, |json, series| {
            let mut commas = Commas::default();
            json.raw("[");
            for labels in series {
                commas.next(json);
                json.labels(labels);
            }
            json.raw("]");
        })
    });
    body.await.map(Some)
}

/// A view that is asked, and the memory that its answers are charged to.
struct Asked {
    querier: Arc<dyn Querier>,
    memory: ResultMemory,
}

impl Asked {
    fn new(request: &ApiRequest, query: &LabelQuery, selectors: &Selectors) -> Result<Self, ApiError> {
        let querier = querier(request, query.range.unwrap_or(TimeRange::ALL))?;
        Ok(Self { querier, memory: selectors.memory() })
    }

    /// What `ask` finds, as an array of strings.
    fn texts(
        &self,
        query: &LabelQuery,
        ask: impl Fn(&dyn Querier, &LabelQuery) -> Result<Limited<String>, StorageError>,
    ) -> Result<Answer, ApiError> {
        let found = self.bounded(query, ask, String::len)?;
        self.answer(found, |text| text.len() + 3, |json, texts| json.strings(texts))
    }

    /// What `ask` finds within the limit of `query`, of `bytes` each besides the thing itself. It is charged as it grows.
    fn bounded<T>(
        &self,
        query: &LabelQuery,
        ask: impl Fn(&dyn Querier, &LabelQuery) -> Result<Limited<T>, StorageError>,
        bytes: impl Fn(&T) -> usize,
    ) -> Result<Limited<T>, ApiError> {
        let held = self.memory.bytes();
        let payer = QueryPays::new(&self.memory);
        let query = LabelQuery { payer: Some(Arc::clone(&payer) as Arc<dyn Payer>), ..query.clone() };
        let found = ask(&*self.querier, &query).map_err(|error| payer.explain(error))?;
        let found_bytes = found.items.iter().map(|item| size_of::<T>() + bytes(item)).sum::<usize>();
        self.memory.settle(held.saturating_add(found_bytes))?;
        Ok(found)
    }

    /// The answer that `write` makes of what was found; `bytes` guesses what it writes for one.
    fn answer<T>(
        &self,
        found: Limited<T>,
        bytes: impl Fn(&T) -> usize,
        write: impl FnOnce(&mut JsonWriter, &[T]),
    ) -> Result<Answer, ApiError> {
        let capacity = found.items.iter().map(bytes).sum();
        self.memory.charge(capacity)?;
        // Those that are damaged are known by now.
        let mut warnings = self.querier.warnings();
        if found.truncated {
            warnings.push(TRUNCATED.to_owned());
        }
        let json = success_with(&warnings, &[], capacity, |json| write(json, &found.items));
        drop(found);
        Answer::new(json, self.memory.clone())
    }
}

/// `limit`, `start`, `end` and `match[]` of label names and values, judged in this order.
fn label_query(request: &ApiRequest, selectors: &mut Selectors) -> Result<LabelQuery, ApiError> {
    let limit = request.params.limit()?;
    let range = request.params.time_range()?;
    add_selectors(request, selectors)?;
    Ok(LabelQuery { matcher_sets: selectors.sets().to_vec(), range: Some(range), limit, payer: None })
}

/// Adds the selectors of `match[]`, each of which has a matcher that refuses the empty value.
fn add_selectors(request: &ApiRequest, selectors: &mut Selectors) -> Result<(), ApiError> {
    read_selectors(request, selectors)?;
    if selectors.sets().iter().any(|set| set.iter().all(|matcher| matcher.matches_empty())) {
        return Err(ApiError::bad_data("match[] must contain at least one non-empty matcher"));
    }
    Ok(())
}

/// Adds the selectors of `match[]`, whatever they select.
pub(super) fn read_selectors(request: &ApiRequest, selectors: &mut Selectors) -> Result<(), ApiError> {
    let sets_max = request.state.limits().matcher_sets_max;
    let mut regexes = 0;
    for selector in request.params.all("match[]") {
        if selectors.sets().len() >= sets_max {
            return Err(ApiError::bad_data(format!("more than {sets_max} match[] parameters")));
        }
        let set = selectors.add(selector).map_err(|error| match error {
            // About a selector, not about the parameter `query`.
            QueryError::Parse(_) | QueryError::BadData(_) => ApiError::bad_data(error.to_string()),
            error => error.into(),
        })?;
        let is_regex = |op| matches!(op, MatchOp::Regex | MatchOp::NotRegex);
        regexes += set.iter().filter(|m| is_regex(m.matcher().op)).count();
        if regexes > MATCH_REGEXES_MAX {
            let message = format!("more than {MATCH_REGEXES_MAX} regular expressions in match[] parameters");
            return Err(ApiError::bad_data(message));
        }
    }
    Ok(())
}

/// The label name in the path; `U__` starts an escaped one.
fn label_name(bytes: &[u8]) -> Result<String, ApiError> {
    let Ok(name) = str::from_utf8(bytes) else {
        let shown: String = bytes.iter().map(|byte| shown_byte(*byte)).collect();
        return Err(ApiError::bad_data(format!("invalid label name: \"{shown}\"")));
    };
    let name = match name.strip_prefix("U__") {
        Some(escaped) => unescape(escaped).unwrap_or_else(|| name.to_owned()),
        None => name.to_owned(),
    };
    if name.is_empty() {
        return Err(ApiError::bad_data(format!("invalid label name: {}", go_quoted(&name))));
    }
    Ok(name)
}

fn shown_byte(byte: u8) -> String {
    match byte {
        b'"' | b'\\' => format!("\\{}", byte as char),
        0x20..0x7f => (byte as char).to_string(),
        _ => format!("\\x{byte:02x}"),
    }
}

/// Undoes value encoding: `__` is `_`, `_2e_` the character U+002E. `None` when it is not such an encoding.
fn unescape(escaped: &str) -> Option<String> {
    let mut out = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some(at) = rest.find('_') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(behind) = rest.strip_prefix('_') {
            out.push('_');
            rest = behind;
            continue;
        }
        let (code, behind) = rest.split_once('_')?;
        if code.len() > 6 || !code.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        out.push(char::from_u32(u32::from_str_radix(code, 16).ok()?)?);
        rest = behind;
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_the_path() {
        for (path, name) in [
            ("job", "job"),
            ("foo-bar", "foo-bar"),
            ("U__http_2e_status", "http.status"),
            ("U__a__b", "a_b"),
            ("U___1f600_", "\u{1f600}"),
            // No valid encoding stays as it is.
            ("U__a_zz_", "U__a_zz_"),
            ("U__a_2e", "U__a_2e"),
            ("U__a_d800_", "U__a_d800_"),
        ] {
            assert_eq!(label_name(path.as_bytes()).as_deref(), Ok(name), "{path}");
        }
        for (bytes, error) in [
            (&b""[..], "invalid label name: \"\""),
            (b"U__", "invalid label name: \"\""),
            (b"\xff", "invalid label name: \"\\xff\""),
        ] {
            assert_eq!(label_name(bytes).expect_err("invalid").message, error);
        }
    }
}
