//! The page at `/`: what this is, how much comes in, a box for queries. One file, no assets from elsewhere.

use crate::state::AppState;

const PAGE: &str = include_str!("page/index.html");

/// The page, with the figures of this moment; its script keeps them current.
pub(crate) fn index(state: &AppState) -> String {
    let build = state.info().build();
    let ingest = state.info().ingest();
    let status = match (state.is_ready(), state.is_stopping()) {
        (true, _) => "ready",
        (false, true) => "stopping",
        (false, false) => "starting",
    };
    PAGE.replace("{{version}}", &escaped(&build.chronolith_version))
        .replace("{{prometheus_version}}", &escaped(&build.version))
        .replace("{{status}}", status)
        .replace("{{series}}", &ingest.series.to_string())
        .replace("{{samples}}", &ingest.samples_stored.to_string())
        .replace("{{retention}}", &escaped(&state.info().runtime().storage_retention))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
