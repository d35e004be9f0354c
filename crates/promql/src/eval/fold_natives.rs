//! The histograms of a group, folded step by step beside its floats.

use std::sync::Arc;

use chronolith_model::{
    FloatHistogram, Labels,
    histogram::{Combined, HistogramMean, HistogramSum, IncompatibleHistograms, Layout},
};
use chronolith_syntax::ast::{AggregateOp, Span};

use crate::{
    annotations::{Annotation, Annotations, HistogramOperation},
    series::{Column, Lane, Native},
};

/// What a step has of histograms so far.
#[derive(Debug, Default)]
enum Folded {
    #[default]
    Nothing,
    /// Floats came first: there is no result, whatever comes.
    Spoilt,
    /// Exponential and custom buckets met: no result, and nobody looks any more.
    Incompatible,
    Sum(Box<HistogramSum>),
    Mean(Box<HistogramMean>),
}

impl Folded {
    fn of(op: AggregateOp, native: &FloatHistogram) -> Self {
        match op {
            AggregateOp::Sum => Self::Sum(Box::new(HistogramSum::of(native.clone()))),
            _ => Self::Mean(Box::new(HistogramMean::of(native.clone()))),
        }
    }

    fn add(&mut self, native: &FloatHistogram) -> Result<(), IncompatibleHistograms> {
        match self {
            Self::Nothing | Self::Spoilt | Self::Incompatible => Ok(()),
            Self::Sum(sum) => sum.add(native),
            Self::Mean(mean) => mean.add(native),
        }
    }

    fn combined(&self) -> Combined {
        match self {
            Self::Nothing | Self::Spoilt | Self::Incompatible => Combined::default(),
            Self::Sum(sum) => sum.combined(),
            Self::Mean(mean) => mean.combined(),
        }
    }

    /// The result; it shares `known`, the layout of the one before, if that is its own.
    fn finish(self, known: &mut Option<Arc<Layout>>) -> Option<Native> {
        let mut native = match self {
            Self::Nothing | Self::Spoilt | Self::Incompatible => return None,
            Self::Sum(sum) => sum.finish(),
            Self::Mean(mean) => mean.finish(),
        };
        native.compact();
        if let Some(known) = known {
            native.share_layout(known);
        }
        *known = Some(Arc::clone(native.layout()));
        Some(Arc::new(native))
    }

    /// Bytes behind it, about.
    fn bytes(&self) -> usize {
        match self {
            Self::Nothing | Self::Spoilt | Self::Incompatible => 0,
            Self::Sum(sum) => size_of::<HistogramSum>() + sum.heap_bytes(),
            Self::Mean(mean) => size_of::<HistogramMean>() + mean.heap_bytes(),
        }
    }
}

/// The histograms of a group of `sum` or `avg`.
#[derive(Debug)]
pub(super) struct FoldedNatives {
    op: AggregateOp,
    steps: Vec<Folded>,
    /// What annotations are about: the expression that is aggregated.
    span: Span,
    pub(super) notes: Annotations,
}

impl FoldedNatives {
    pub(super) fn new(op: AggregateOp, steps: usize, span: Span) -> Self {
        let steps = (0..steps).map(|_| Folded::Nothing).collect();
        Self { op, steps, span, notes: Annotations::default() }
    }

    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.steps.len() * size_of::<Folded>()
            + self.steps.iter().map(Folded::bytes).sum::<usize>()
    }

    /// Takes in the histograms of a series; `has_float` says whether the group has a float at a step so far.
    pub(super) fn push(&mut self, labels: &Labels, lane: &Lane, has_float: impl Fn(usize) -> bool) {
        for (step, native) in lane.iter() {
            let folded = &mut self.steps[step];
            if matches!(folded, Folded::Nothing) {
                *folded = if has_float(step) { Folded::Spoilt } else { Folded::of(self.op, native) };
                continue;
            }
            if folded.add(native).is_err() {
                self.note_reconciled(step);
                self.steps[step] = Folded::Incompatible;
                let metric = labels.metric_name().unwrap_or_default().to_owned();
                self.notes.add(Annotation::MixedSchemas(metric), self.span);
            }
        }
    }

    /// Whether floats of a step do not matter any more.
    pub(super) fn closed(&self, step: usize) -> bool {
        matches!(self.steps[step], Folded::Incompatible)
    }

    fn note_reconciled(&mut self, step: usize) {
        if self.steps[step].combined().bounds_reconciled {
            let note = Annotation::BoundsReconciled(HistogramOperation::Aggregation);
            self.notes.add(note, self.span);
        }
    }

    /// Puts the results into `column`, which has those of the floats.
    pub(super) fn finish(mut self, column: &mut Column) -> Annotations {
        let mut layout = None;
        for step in 0..self.steps.len() {
            self.note_reconciled(step);
            let folded = std::mem::take(&mut self.steps[step]);
            if matches!(folded, Folded::Nothing) {
                continue;
            }
            // Floats behind what cannot be combined were not looked at.
            if column.get(step).is_some() {
                column.clear(step);
                self.notes.add(Annotation::MixedAggregation, self.span);
                continue;
            }
            if folded.combined().hints_collide {
                let note = Annotation::ResetCollision(HistogramOperation::Aggregation);
                self.notes.add(note, self.span);
            }
            if let Some(native) = folded.finish(&mut layout) {
                column.set_histogram(step, native);
            }
        }
        self.notes
    }
}
