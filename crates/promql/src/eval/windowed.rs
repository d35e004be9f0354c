//! A range function over one series, in pieces between which the query can be stopped.

use std::sync::Arc;

use chronolith_storage::Samples;

use super::{leaf::costs_by_window, natives::NativeSamples};
use crate::{
    api::QueryError,
    functions::range::{self, RangeFunction, Sight},
    limits::{Interrupt, STAGE_EVALUATION},
    series::{Column, Grid, KernelContext, Windows, samples_of},
};

/// Samples of windows that are looked at between two looks at whether the query was canceled, about.
const BLOCK_WORK: usize = 1 << 21;
/// The same of histograms, as Prometheus counts them: adding one up takes longer than looking at as many floats.
const NATIVE_BLOCK_WORK: usize = 1 << 18;

/// Up to so many windows are added up in order whatever they cost: a short range then says exactly what instants say.
const IN_ORDER_STEPS_MAX: usize = 16;
/// Histograms' worth of work that a window's sum takes where it is put together from parts.
const SLIDING_WORK: usize = 4;

/// A function, its parameters by step, and what it is over.
pub(super) struct Windowed<'a> {
    pub(super) function: RangeFunction,
    pub(super) params: &'a [&'a [f64]],
    /// Floats without stale markers.
    pub(super) samples: &'a Samples,
    /// Of the times of the floats.
    pub(super) sight: &'a Sight,
    pub(super) natives: &'a NativeSamples,
    pub(super) windows: &'a Windows,
}

/// Whether `function` may put its windows together from sums of their parts, and how many bytes of these it prepares.
pub(super) fn slides(function: RangeFunction, natives: &NativeSamples, windows: &Windows) -> Option<usize> {
    let sums = matches!(function, RangeFunction::Sum | RangeFunction::Avg);
    let overlap = windows.grid.count > IN_ORDER_STEPS_MAX && windows.grid.step < windows.range;
    (sums && overlap).then(|| natives.let_slide()).flatten()
}

impl Windowed<'_> {
    /// Evaluates it into `column`, which has no value yet; the largest window has `largest` samples.
    ///
    /// # Errors
    /// When the query is over, or those of the function.
    pub(super) fn eval(
        &self,
        largest: usize,
        interrupt: &Interrupt,
        column: &mut Column,
        context: &mut KernelContext<'_>,
    ) -> Result<(), QueryError> {
        let Self { function, params, samples, sight, natives, windows } = *self;
        let seen = sight.seen();
        let grid = windows.grid;
        let block = if !natives.times.is_empty() {
            NATIVE_BLOCK_WORK / self.native_work(largest).max(1)
        } else if costs_by_window(function) {
            BLOCK_WORK / largest.max(1)
        } else {
            grid.count
        };
        if block >= grid.count {
            return range::eval(function, params, (samples, seen), natives, windows, column, context);
        }
        let block = block.max(1);
        for start in (0..grid.count).step_by(block) {
            interrupt.check(STAGE_EVALUATION)?;
            let steps = start..(start + block).min(grid.count);
            let params: Vec<&[f64]> = params.iter().map(|param| &param[steps.clone()]).collect();
            let grid = Grid { start: grid.time(start), count: steps.len(), ..grid };
            let mut part = Column::absent(steps.len());
            let windows = Windows { grid, ..*windows };
            let seen = seen.part(steps.clone());
            range::eval(function, &params, (samples, seen), natives, &windows, &mut part, context)?;
            column.values_mut()[steps].copy_from_slice(part.values());
            for (step, native) in part.lane().into_iter().flat_map(|lane| lane.iter()) {
                column.set_histogram(start + step, Arc::clone(native));
            }
        }
        Ok(())
    }

    /// Samples of histograms that are looked at for a step, about, where the largest window has `largest`.
    fn native_work(&self, largest: usize) -> usize {
        let Self { function, natives, windows, .. } = *self;
        if slides(function, natives, windows).is_none() {
            return largest;
        }
        let (step, range) = (windows.grid.step, windows.range);
        // What is new in a window is added in twice; the sum is copied, put together and written.
        let new = (largest as f64 * (step as f64 / range as f64)) as usize;
        let one = natives.histograms.iter().map(|native| samples_of(native)).max().unwrap_or(0);
        largest.min(SLIDING_WORK * one + 2 * new)
    }
}
