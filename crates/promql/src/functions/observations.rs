//! Numbers about a histogram: `histogram_count`, `_sum`, `_avg`, `_stddev`, `_stdvar`.

use chronolith_model::FloatHistogram;

/// Each is the function of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Observations {
    Count,
    Sum,
    Avg,
    Stddev,
    Stdvar,
}

impl Observations {
    /// The function called `name` in PromQL.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "histogram_count" => Self::Count,
            "histogram_sum" => Self::Sum,
            "histogram_avg" => Self::Avg,
            "histogram_stddev" => Self::Stddev,
            "histogram_stdvar" => Self::Stdvar,
            _ => return None,
        })
    }

    /// Its value for `native`.
    pub(crate) fn of(self, native: &FloatHistogram) -> f64 {
        match self {
            Self::Count => native.count(),
            Self::Sum => native.sum(),
            Self::Avg => native.mean(),
            Self::Stddev => native.variance().sqrt(),
            Self::Stdvar => native.variance(),
        }
    }
}
