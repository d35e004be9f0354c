//! Selectors of series on the command line.

use std::str::FromStr;
use std::sync::Arc;

use chronolith_index::CompiledMatcher;

/// A selector of series.
#[derive(Clone, Debug)]
pub(super) struct Selector(Arc<[CompiledMatcher]>);

impl Selector {
    /// What a series has to meet, all of it.
    pub(super) fn matchers(&self) -> &[CompiledMatcher] {
        &self.0
    }
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim().is_empty() {
            return Err("it is empty; a selector is for example up{job=\"node\"}".to_owned());
        }
        let matchers = chronolith_syntax::parse_metric_selector(text).map_err(|error| error.to_string())?;
        CompiledMatcher::compile_all(&matchers).map(|all| Self(all.into())).map_err(|error| error.to_string())
    }
}
