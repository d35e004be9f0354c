//! Folds over a sliding window without undoing anything: the older part of the window as suffix folds, the newer part
//! as one running fold. Each element is folded in at most twice.

use super::bounds::Bounds;

/// How elements are folded: `join` is associative up to rounding.
pub(super) trait Fold {
    /// The fold of some neighbouring elements.
    type Part: Copy;
    /// The fold of the element at `index` alone.
    fn single(&self, index: usize) -> Self::Part;
    /// The fold of two neighbouring stretches, the older one first.
    fn join(&self, older: Self::Part, newer: Self::Part) -> Self::Part;
}

/// Calls `f(step, window, fold of the window)` for each window that is not empty.
pub(super) fn fold_windows<F: Fold>(fold: &F, bounds: &[Bounds], mut f: impl FnMut(usize, Bounds, F::Part)) {
    // `older[i]` is the fold of the elements `base + i .. split`, `newer` that of `split .. end`.
    let mut older: Vec<F::Part> = Vec::new();
    let mut newer: Option<F::Part> = None;
    let (mut split, mut end) = (0, 0);
    for (step, window) in bounds.iter().enumerate().filter(|(_, window)| window.len() > 0) {
        let first = window.start();
        if first >= split {
            older.clear();
            let mut part = fold.single(window.last());
            older.push(part);
            for index in (first..window.last()).rev() {
                part = fold.join(fold.single(index), part);
                older.push(part);
            }
            (split, end) = (window.end(), window.end());
            newer = None;
        }
        for index in end..window.end() {
            let one = fold.single(index);
            newer = Some(newer.map_or(one, |part| fold.join(part, one)));
        }
        end = window.end();
        // Suffixes were pushed shortest first.
        let part = older[split - first - 1];
        f(step, *window, newer.map_or(part, |newer| fold.join(part, newer)));
    }
}
