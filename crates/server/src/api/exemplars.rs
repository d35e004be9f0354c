//! `query_exemplars`.

use std::sync::Arc;

use chronolith_model::{Exemplar, Matcher, TimeRange};
use chronolith_promql::{QueryError, Selectors};
use chronolith_storage::{ExemplarQuery, Payer, SeriesExemplars, exemplars};
use chronolith_syntax::{
    ast::{Expr, ExprKind},
    walk,
};

use super::{Answer, ApiResult, in_turn, paying::QueryPays, querier, success_with};
use crate::{
    error::ApiError,
    json::{Commas, JsonWriter},
    routes::ApiRequest,
};

/// A guess at the bytes of an exemplar as JSON, besides its labels.
const EXEMPLAR_BYTES: usize = 80;
/// The same of a series.
const SERIES_BYTES: usize = 64;

/// The exemplars of the series that any selector of the query selects, whatever is made of them; times are those of the
/// request, not of the selector. Nothing, status 204, for a query without selectors.
pub(super) async fn exemplars(request: ApiRequest) -> ApiResult {
    let (start, end) = request.params.exemplar_range()?;
    if end.is_before(start) {
        return Err(ApiError::bad_data("end timestamp must not be before start timestamp"));
    }
    let range = TimeRange::new(start.millis(), end.millis());
    in_turn(request, move |request, runtime| {
        let engine = request.state.engine();
        let expr = engine.parse(request.params.get("query")).map_err(|error| match error {
            // Told without the name of the parameter here.
            QueryError::Parse(error) => error.into(),
            error => ApiError::from(error),
        })?;
        let sets = selected(&expr);
        if sets.is_empty() {
            return Ok(None);
        }
        let sets_max = request.state.limits().matcher_sets_max;
        if sets.len() > sets_max {
            return Err(ApiError::bad_data(format!("more than {sets_max} different selectors")));
        }
        let mut selectors: Selectors = engine.selectors();
        for matchers in sets {
            selectors.add_matchers(matchers)?;
        }
        let memory = selectors.memory();
        let held = memory.bytes();
        let payer = QueryPays::new(&memory);
        let query = ExemplarQuery {
            matcher_sets: selectors.sets().to_vec(),
            range,
            payer: Some(Arc::clone(&payer) as Arc<dyn Payer>),
        };
        let querier = querier(request, range)?;
        let found = runtime.block_on(querier.exemplars(&query)).map_err(|error| payer.explain(error))?;
        memory.settle(held.saturating_add(found.iter().map(bytes).sum()))?;
        let capacity = found.iter().map(json_bytes).sum();
        memory.charge(capacity)?;
        let json = success_with(&querier.warnings(), &[], capacity, |json| write(json, &found));
        drop(found);
        Answer::new(json, memory).map(Some)
    })
    .await
}

/// The matchers of the selectors of `expr`, each set once.
fn selected(expr: &Expr) -> Vec<&[Matcher]> {
    let mut sets: Vec<&[Matcher]> = Vec::new();
    walk(expr, &mut |expr| {
        let matchers = match &expr.kind {
            ExprKind::Vector(selector) => &selector.matchers,
            ExprKind::Matrix(matrix) => &matrix.selector.matchers,
            _ => return true,
        };
        if !sets.contains(&&matchers[..]) {
            sets.push(matchers);
        }
        true
    });
    sets
}

/// What the exemplars of a series take.
fn bytes(series: &SeriesExemplars) -> usize {
    let of_exemplars: usize = series.exemplars.iter().map(exemplars::exemplar_bytes).sum();
    of_exemplars + exemplars::series_bytes(&series.labels)
}

fn json_bytes(series: &SeriesExemplars) -> usize {
    let one = |exemplar: &Exemplar| exemplar.labels.size_bytes() + EXEMPLAR_BYTES;
    series.exemplars.iter().map(one).sum::<usize>() + series.labels.size_bytes() + SERIES_BYTES
}

fn write(json: &mut JsonWriter, found: &[SeriesExemplars]) {
    json.raw("[");
    let mut commas = Commas::default();
    for series in found {
        commas.next(json);
        json.raw("{\"seriesLabels\":");
        json.labels(&series.labels);
        json.raw(",\"exemplars\":[");
        let mut commas = Commas::default();
        for exemplar in &series.exemplars {
            commas.next(json);
            json.raw("{\"labels\":");
            json.labels(&exemplar.labels);
            json.raw(",\"value\":");
            json.value(exemplar.value);
            json.raw(",\"timestamp\":");
            json.timestamp(exemplar.timestamp);
            json.raw("}");
        }
        json.raw("]}");
    }
    json.raw("]");
}
