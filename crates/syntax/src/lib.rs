//! PromQL text to an inert AST and back.
//!
//! Everything is a pure function of the text. **Must not know:** storage, time, evaluation, compiled regular
//! expressions.
//!
//! Map: [`ast`] the tree · [`functions`] the function table · `lexer` (nom) · [`parser`] · [`printer`].
#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

pub mod ast;
pub mod functions;
