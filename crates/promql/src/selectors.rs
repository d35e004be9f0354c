//! Matchers, compiled and paid for.

use std::sync::Arc;

use chronolith_index::CompiledMatcher;
use chronolith_model::Matcher;
use chronolith_syntax::{ParseOptions, parse_metric_selector_with};
use hashbrown::HashMap;

use crate::{
    api::{EngineOptions, QueryError, ResultMemory},
    limits::Ledger,
};

/// What parsing takes for each byte of a query, at most: most of it for the regular expressions, which the parser
/// compiles one by one to see whether they are right.
const PARSE_BYTES_PER_BYTE: usize = 512;

/// Calls `parse` with the memory reserved that parsing `text` takes.
pub(crate) fn parsing<T>(
    ledger: &Ledger,
    text: &str,
    parse: impl FnOnce() -> Result<T, QueryError>,
) -> Result<T, QueryError> {
    let held = ledger.held();
    ledger.charge(0, text.len().saturating_mul(PARSE_BYTES_PER_BYTE))?;
    let parsed = parse();
    ledger.release_to(held);
    parsed
}

/// Compiles matchers for a query, equal ones once.
pub(crate) struct Compiler<'a> {
    ledger: &'a Ledger,
    known: HashMap<Matcher, CompiledMatcher>,
}

impl<'a> Compiler<'a> {
    pub(crate) fn new(ledger: &'a Ledger) -> Self {
        Self { ledger, known: HashMap::new() }
    }

    /// `matchers`, compiled and charged: before for what compiling takes, then for what is held.
    pub(crate) fn compile(&mut self, matchers: &[Matcher]) -> Result<Vec<CompiledMatcher>, QueryError> {
        let mut compiled = Vec::with_capacity(matchers.len());
        for matcher in matchers {
            if let Some(known) = self.known.get(matcher) {
                compiled.push(known.clone());
                continue;
            }
            let new = compile(self.ledger, matcher)?;
            self.known.insert(matcher.clone(), new.clone());
            compiled.push(new);
        }
        Ok(compiled)
    }
}

fn compile(ledger: &Ledger, matcher: &Matcher) -> Result<CompiledMatcher, QueryError> {
    let held = ledger.held();
    ledger.charge(0, CompiledMatcher::compile_bytes(matcher))?;
    let compiled = CompiledMatcher::new(matcher).map_err(|error| QueryError::BadData(error.to_string()))?;
    ledger.release_to(held);
    ledger.charge(0, compiled.memory_bytes())?;
    Ok(compiled)
}

/// Series selectors outside of a query, `match[]` of label queries for example: compiled within the limits of a query,
/// whose memory they hold as long as they live.
#[derive(Debug)]
pub struct Selectors {
    parse: ParseOptions,
    ledger: Arc<Ledger>,
    known: HashMap<Matcher, CompiledMatcher>,
    sets: Vec<Vec<CompiledMatcher>>,
}

impl Selectors {
    pub(crate) fn new(options: &EngineOptions) -> Self {
        Self {
            parse: options.parse,
            ledger: Arc::new(Ledger::new(options)),
            known: HashMap::new(),
            sets: Vec::new(),
        }
    }

    /// Parses and compiles one more selector.
    ///
    /// # Errors
    /// [`QueryError::Parse`] for a wrong text, [`QueryError::Execution`] beyond the memory of a query,
    /// [`QueryError::Overloaded`] when others have taken it.
    pub fn add(&mut self, text: &str) -> Result<&[CompiledMatcher], QueryError> {
        let Self { parse, ledger, .. } = self;
        let matchers = parsing(ledger, text, || Ok(parse_metric_selector_with(text, parse)?))?;
        self.add_matchers(&matchers)
    }

    /// Compiles the matchers of one more selector, parsed elsewhere.
    ///
    /// # Errors
    /// As [`Selectors::add`] for what is parsed.
    pub fn add_matchers(&mut self, matchers: &[Matcher]) -> Result<&[CompiledMatcher], QueryError> {
        let Self { ledger, known, sets, .. } = self;
        let mut compiler = Compiler { ledger, known: std::mem::take(known) };
        let set = compiler.compile(matchers)?;
        *known = compiler.known;
        sets.push(set);
        Ok(sets.last().map(Vec::as_slice).unwrap_or_default())
    }

    /// What it is charged with, to be charged for answers too; it lives on when the selectors are gone.
    #[must_use]
    pub fn memory(&self) -> ResultMemory {
        ResultMemory(Some(Arc::clone(&self.ledger)))
    }

    /// What was added, in order.
    #[must_use]
    pub fn sets(&self) -> &[Vec<CompiledMatcher>] {
        &self.sets
    }
}
