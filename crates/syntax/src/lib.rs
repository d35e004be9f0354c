//! PromQL text to an inert AST and back.
//!
//! Everything is a pure function of the text. **Must not know:** storage, time, evaluation, compiled regular
//! expressions.
//!
//! Map: [`ast`] the tree · [`functions`] the function table · `lexer` (nom) · [`parser`] text to tree · `printer` tree
//! to text · `walk` going through a tree · [`text`] texts of literals · [`error`].
#![deny(clippy::unwrap_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod ast;
pub mod error;
pub mod functions;
mod lexer;
pub mod parser;
mod printer;
pub mod text;
mod walk;

pub use error::{ParseError, ParseErrorKind, Position};
pub use parser::{
    EXPR_DEPTH_MAX, ParseOptions, QUERY_BYTES_MAX, RegexCheck, parse, parse_metric_selector,
    parse_metric_selector_with,
};
pub use printer::pretty;
pub use walk::{walk, walk_mut};
