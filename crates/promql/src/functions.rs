//! The functions of PromQL as pure kernels: numbers and labels in, numbers and labels out. Nothing here knows the
//! plan or storage; [`crate::series`] says how the evaluator calls them.
//!
//! Map: [`numeric`] compensated sums, means, quantiles · [`range`] functions of range vectors, a whole series at a
//! time · [`instant`] element by element · [`labels`] `label_replace` and `label_join` · [`histogram`] quantiles and
//! fractions · [`native`] native histograms over time · [`observations`] numbers about one · [`sort`] the order of results.

pub(crate) mod histogram;
pub(crate) mod instant;
pub(crate) mod labels;
pub(crate) mod native;
pub(crate) mod numeric;
pub(crate) mod observations;
pub(crate) mod range;
pub(crate) mod sort;
