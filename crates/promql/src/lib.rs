//! PromQL planning and evaluation over the storage contract.
//!
//! `text -> AST -> checks -> plan -> fetch (async) / evaluate (sync, parallel) -> value`. **Must not know:** `tsdb`,
//! HTTP.
//!
//! Map: [`api`] what callers see · `plan` · `eval` · `functions`.

pub mod api;

pub use api::{
    CancelToken, Engine, EngineOptions, InstantSample, Query, QueryError, QueryResult, QueryStats, RangeSeries, Value,
};
