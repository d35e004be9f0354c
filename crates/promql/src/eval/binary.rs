//! Two vectors.

use std::sync::Arc;

use chronolith_model::{Labels, METRIC_NAME};
use chronolith_syntax::ast::{BinaryOp, Matching};
use hashbrown::HashMap;

use super::{Executor, Scope, matching::Join, names::unify};
use crate::{
    api::QueryError,
    plan::{BinaryVectors, Node},
    series::{ABSENT, SeriesColumn},
};

/// Numbers the signatures by which series of two sides match: equal signatures, equal numbers.
#[derive(Debug)]
pub(super) struct Signatures<'a> {
    matching: &'a Matching,
    numbers: HashMap<Labels, usize>,
}

impl<'a> Signatures<'a> {
    pub(super) fn new(matching: &'a Matching) -> Self {
        Self { matching, numbers: HashMap::new() }
    }

    pub(super) fn number(&mut self, vector: &[SeriesColumn]) -> Vec<usize> {
        vector
            .iter()
            .map(|series| {
                let next = self.numbers.len();
                *self.numbers.entry(match_labels(self.matching, &series.labels)).or_insert(next)
            })
            .collect()
    }

    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }
}

/// The labels of `labels` that take part in matching.
pub(super) fn match_labels(matching: &Matching, labels: &Labels) -> Labels {
    let listed = |name: &str| matching.labels.iter().any(|label| label == name);
    if matching.on {
        labels.retain(listed)
    } else {
        labels.retain(|name| name != METRIC_NAME && !listed(name))
    }
}

impl Executor<'_> {
    pub(super) async fn binary_vectors(
        &mut self,
        binary: &BinaryVectors,
        node: &Node,
        scope: &mut Scope,
    ) -> Result<Vec<SeriesColumn>, QueryError> {
        let mut lhs = self.vector(&binary.lhs, scope).await?;
        let mut rhs = self.vector(&binary.rhs, scope).await?;
        lhs.retain(|series| !series.column.is_empty());
        rhs.retain(|series| !series.column.is_empty());
        let steps = node.grid.count;
        let result = if binary.op.is_set() {
            set_operation(binary.op, &binary.matching, lhs, rhs, steps)
        } else {
            let join = Join::new(binary, self.delayed_name_removal, self.pool, self.interrupt, steps);
            let result = join.run(lhs, rhs)?;
            for annotation in join.noted() {
                self.notes.add(annotation, node.span);
            }
            result
        };
        // Equal labels at the same step are an error, except where names are still to go at the end of an instant
        // query; at different steps they are one series.
        if self.delayed_name_removal && steps == 1 { Ok(result) } else { unify(result) }
    }
}

fn set_operation(
    op: BinaryOp,
    matching: &Matching,
    mut lhs: Vec<SeriesColumn>,
    mut rhs: Vec<SeriesColumn>,
    steps: usize,
) -> Vec<SeriesColumn> {
    let mut signatures = Signatures::new(matching);
    let left = signatures.number(&lhs);
    let right = signatures.number(&rhs);
    if op == BinaryOp::Or {
        let present = presence(&lhs, &left, signatures.len(), steps);
        keep_where(&mut rhs, &right, &present, steps, false);
        lhs.extend(rhs);
    } else {
        let present = presence(&rhs, &right, signatures.len(), steps);
        keep_where(&mut lhs, &left, &present, steps, op == BinaryOp::And);
    }
    lhs.retain(|series| !series.column.is_empty());
    lhs
}

/// Whether a series of the signature has a value, by signature and step; empty for signatures without a series.
fn presence(vector: &[SeriesColumn], numbers: &[usize], signatures: usize, steps: usize) -> Vec<Vec<bool>> {
    let mut present = vec![Vec::new(); signatures];
    for (series, number) in vector.iter().zip(numbers) {
        let present = &mut present[*number];
        if present.is_empty() {
            present.resize(steps, false);
        }
        series.column.mark(present);
    }
    present
}

/// Keeps the values of `vector` at steps where `present` of their signature is `wanted`.
fn keep_where(
    vector: &mut [SeriesColumn],
    numbers: &[usize],
    present: &[Vec<bool>],
    steps: usize,
    wanted: bool,
) {
    let never = vec![false; steps];
    for (series, number) in vector.iter_mut().zip(numbers) {
        let present = if present[*number].is_empty() { &never } else { &present[*number] };
        for (value, present) in series.column.values_mut().iter_mut().zip(present) {
            if *present != wanted {
                *value = ABSENT;
            }
        }
        series.column.map_histograms(|step, native| (present[step] == wanted).then(|| Arc::clone(native)));
    }
}
