//! Explanations of queries as JSON; `docs/explain.md` says what each field means.

use std::time::Duration;

use chronolith_promql::{Explain, ExplainMode, ExplainNode, ExplainSelection, NodeCost};

use crate::{
    error::ApiError,
    json::{Commas, JsonWriter},
    params::Params,
};

/// The parameter `explain`; nothing is explained without it.
pub(super) fn mode_of(params: &Params) -> Result<Option<ExplainMode>, ApiError> {
    match params.get("explain") {
        "" => Ok(None),
        "1" | "true" | "plan" => Ok(Some(ExplainMode::Plan)),
        "analyze" => Ok(Some(ExplainMode::Analyze)),
        other => {
            let cause = format!("{other:?} is neither \"1\", for the plan, nor \"analyze\"");
            Err(ApiError::parameter("explain", cause))
        }
    }
}

/// `{"explain":{...}}`
pub(super) fn alone(explain: &Explain) -> Vec<u8> {
    let mut json = JsonWriter::with_capacity(4096);
    json.raw("{\"explain\":");
    write(&mut json, explain);
    json.raw("}");
    json.finish()
}

/// The value of the field `explain`.
pub(super) fn write(json: &mut JsonWriter, explain: &Explain) {
    let analyzed = explain.mode == ExplainMode::Analyze;
    json.raw("{\"mode\":\"");
    json.raw(if analyzed { "analyze" } else { "plan" });
    json.raw("\",\"root\":");
    node(json, &explain.root);
    json.raw(",\"selections\":[");
    let mut commas = Commas::default();
    for told in &explain.selections {
        commas.next(json);
        selection(json, told, analyzed);
    }
    json.raw("]}");
}

fn node(json: &mut JsonWriter, told: &ExplainNode) {
    json.raw("{\"operator\":\"");
    json.raw(told.operator);
    json.raw("\",\"expr\":");
    json.string_html_escaped(&told.expr);
    json.raw(",\"start\":");
    json.timestamp(told.start);
    json.raw(",\"step\":");
    json.timestamp(told.step);
    json.raw(",\"steps\":");
    json.integer(told.steps);
    if let Some(selection) = told.selection {
        json.raw(",\"selection\":");
        json.integer(selection);
    }
    if told.uses > 1 {
        json.raw(",\"uses\":");
        json.integer(told.uses);
    }
    if let Some(told) = &told.cost {
        json.raw(",\"cost\":");
        cost(json, told);
    }
    if told.omitted > 0 {
        json.raw(",\"omitted\":");
        json.integer(told.omitted);
    }
    json.raw(",\"children\":[");
    let mut commas = Commas::default();
    for child in &told.children {
        commas.next(json);
        node(json, child);
    }
    json.raw("]}");
}

fn cost(json: &mut JsonWriter, cost: &NodeCost) {
    json.raw("{\"evaluations\":");
    json.integer(cost.evaluations);
    for (name, time) in [("seconds", cost.time), ("ownSeconds", cost.own_time)] {
        json.raw(",");
        json.key(name);
        json.float(Duration::as_secs_f64(&time));
    }
    json.raw(",");
    json.integers([
        ("series", cost.series),
        ("values", cost.values),
        ("bytes", cost.bytes),
        ("samples", cost.samples),
    ]);
    json.raw("}");
}

fn selection(json: &mut JsonWriter, told: &ExplainSelection, analyzed: bool) {
    json.raw("{\"matchers\":");
    json.string_html_escaped(&told.matchers);
    json.raw(",\"start\":");
    json.timestamp(told.start);
    json.raw(",\"end\":");
    json.timestamp(told.end);
    if let Some(series) = told.series {
        json.raw(",\"series\":");
        json.integer(series);
        json.raw(",\"storage\":{");
        let storage = &told.storage;
        let found = [
            ("memorySeries", storage.memory_series),
            ("blockSeries", storage.block_series),
            ("blocks", storage.blocks),
        ];
        let read = [
            ("frames", storage.frames),
            ("cacheHits", storage.cache_hits),
            ("cacheMisses", storage.cache_misses),
            ("readBytes", storage.read_bytes),
            ("copiedBytes", storage.copied_bytes),
        ];
        json.integers(found.into_iter().chain(read.into_iter().filter(|_| analyzed)));
        json.raw("}");
    }
    json.raw("}");
}
