//! PromQL planning and evaluation over the storage contract.
//!
//! `text -> AST -> checks -> plan -> fetch (async) / evaluate (sync, parallel) -> value`. **Must not know:** `tsdb`,
//! HTTP.
//!
//! Map: [`api`] what callers see · `engine` runs a query · `plan` AST to operators on grids · `eval` operators to
//! values · [`explain`] what a query is made of, and took · `functions` pure kernels · `selectors` matchers, compiled · `results` what is kept of range queries · `series` grids, columns, windows · `annotations` warnings and infos · `limits`
//! samples, bytes, time, concurrency · `pause` giving the thread back before long work.

mod annotations;
pub mod api;
mod engine;
mod eval;
pub mod explain;
mod functions;
mod limits;
mod pause;
mod plan;
mod results;
mod selectors;
mod series;

pub use api::{
    CancelToken, EngineOptions, InstantSample, Query, QueryError, QueryResult, QueryStats, RangeSeries,
    ResultCacheStats, ResultMemory, SampleValue, Value,
};
pub use engine::Engine;
pub use explain::{Explain, ExplainMode, ExplainNode, ExplainSelection, Failed, NodeCost, Observed};
pub use selectors::Selectors;
