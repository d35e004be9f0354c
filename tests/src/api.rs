//! Answers of the query API, parsed as strictly as they are compared.

use std::fmt;

use anyhow::{Context, Result, bail};
use serde_json::Value as Json;

use crate::http::Response;
use crate::remote_write::LabelMap;

/// Largest relative difference of two values that count as equal.
pub const TOLERANCE: f64 = 1e-9;

/// What the rounding of subnormal numbers, whose digits are few, may add to that.
pub const TOLERANCE_SUBNORMAL: f64 = 2e-323;

/// A sample of an answer: time in ms, value.
pub type Point = (i64, Sampled);

/// What a sample says.
#[derive(Debug, Clone, PartialEq)]
pub enum Sampled {
    /// A float.
    Float(f64),
    /// A native histogram.
    Histogram {
        /// Observations.
        count: f64,
        /// Their sum.
        sum: f64,
        /// Per bucket: which bounds are inclusive, lower and upper bound, observations.
        buckets: Vec<[f64; 4]>,
    },
}

impl Sampled {
    /// The float, unless it is a histogram.
    #[must_use]
    pub fn as_float(&self) -> Option<f64> {
        match self {
            Self::Float(v) => Some(*v),
            Self::Histogram { .. } => None,
        }
    }
}

impl fmt::Display for Sampled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Float(v) => write!(f, "{v}"),
            Self::Histogram { count, sum, buckets } => {
                write!(f, "{{count {count}, sum {sum}")?;
                for [_, lower, upper, count] in buckets {
                    write!(f, ", {lower}..{upper} {count}")?;
                }
                f.write_str("}")
            }
        }
    }
}

/// The data of a successful answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// `vector`: one point per series, in the order of the answer.
    Vector(Vec<(LabelMap, Point)>),
    /// `matrix`: several points per series, in the order of the answer.
    Matrix(Vec<(LabelMap, Vec<Point>)>),
    /// `scalar`.
    Scalar((i64, f64)),
    /// `string`.
    Text(i64, String),
}

/// What a server said to a query.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// `status: success`.
    Success {
        /// The result.
        data: Data,
        /// Warnings and infos, sorted, each with its kind in front.
        annotations: Vec<String>,
    },
    /// `status: error`.
    Error {
        /// HTTP status.
        status: u16,
        /// `errorType`.
        error_type: String,
        /// `error`.
        message: String,
    },
}

/// A difference of two answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference(pub String);

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How strictly the order of an instant vector is compared; matrices are always compared in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Element by element.
    Exact,
    /// As a set: the order is not defined by the language.
    Free,
}

impl Answer {
    /// Parses the body of an answer of `query` or `query_range`.
    ///
    /// # Errors
    /// The body is not what the API documents.
    pub fn parse(response: &Response) -> Result<Self> {
        let root: Json = serde_json::from_slice(&response.body).with_context(|| {
            format!("status {} with a body that is not JSON: {}", response.status, response.text())
        })?;
        if root["status"] == "error" {
            return Ok(Self::Error {
                status: response.status,
                error_type: text(&root["errorType"])?,
                message: text(&root["error"])?,
            });
        }
        if root["status"] != "success" || response.status != 200 {
            bail!("status {} with {}", response.status, response.text());
        }
        let data = parse_data(&root["data"])?;
        let mut annotations = Vec::new();
        for kind in ["warnings", "infos"] {
            for entry in root[kind].as_array().into_iter().flatten() {
                annotations.push(format!("{kind}: {}", text(entry)?));
            }
        }
        annotations.sort();
        Ok(Self::Success { data, annotations })
    }

    /// Whether there is at least one sample in it.
    #[must_use]
    pub fn has_data(&self) -> bool {
        match self {
            Self::Success { data: Data::Vector(v), .. } => !v.is_empty(),
            Self::Success { data: Data::Matrix(m), .. } => !m.is_empty(),
            Self::Success { .. } => true,
            Self::Error { .. } => false,
        }
    }

    /// The first difference to `other`, if any. Error texts and annotations are not compared here.
    #[must_use]
    pub fn difference(&self, other: &Self, order: Order) -> Option<Difference> {
        match (self, other) {
            (Self::Success { data: a, .. }, Self::Success { data: b, .. }) => data_difference(a, b, order),
            (
                Self::Error { status: s1, error_type: t1, .. },
                Self::Error { status: s2, error_type: t2, .. },
            ) => (s1 != s2 || t1 != t2).then(|| Difference(format!("{s1} {t1} against {s2} {t2}"))),
            (a, b) => Some(Difference(format!("{} against {}", a.brief(), b.brief()))),
        }
    }

    /// The annotations of a success; none of an error.
    #[must_use]
    pub fn annotations(&self) -> &[String] {
        match self {
            Self::Success { annotations, .. } => annotations,
            Self::Error { .. } => &[],
        }
    }

    /// One line about the answer.
    #[must_use]
    pub fn brief(&self) -> String {
        match self {
            Self::Success { data: Data::Vector(v), .. } => format!("a vector of {}", v.len()),
            Self::Success { data: Data::Matrix(m), .. } => format!("a matrix of {}", m.len()),
            Self::Success { data: Data::Scalar(p), .. } => format!("scalar {}", p.1),
            Self::Success { data: Data::Text(_, s), .. } => format!("string {s:?}"),
            Self::Error { status, error_type, message } => format!("error {status} {error_type}: {message}"),
        }
    }
}

/// Whether two values count as equal: NaN equals NaN, otherwise within [`TOLERANCE`] and [`TOLERANCE_SUBNORMAL`], signs of
/// zero apart.
#[must_use]
pub fn values_equal(a: f64, b: f64) -> bool {
    if a.is_nan() || b.is_nan() {
        return a.is_nan() && b.is_nan();
    }
    a == b || (a - b).abs() <= (TOLERANCE * a.abs().max(b.abs())).max(TOLERANCE_SUBNORMAL)
}

/// Whether two samples count as equal: as [`values_equal`], in each number of histograms.
#[must_use]
pub fn samples_equal(a: &Sampled, b: &Sampled) -> bool {
    match (a, b) {
        (Sampled::Float(a), Sampled::Float(b)) => values_equal(*a, *b),
        (
            Sampled::Histogram { count: c1, sum: s1, buckets: b1 },
            Sampled::Histogram { count: c2, sum: s2, buckets: b2 },
        ) => {
            values_equal(*c1, *c2)
                && values_equal(*s1, *s2)
                && b1.len() == b2.len()
                && b1.iter().flatten().zip(b2.iter().flatten()).all(|(a, b)| values_equal(*a, *b))
        }
        _ => false,
    }
}

fn data_difference(a: &Data, b: &Data, order: Order) -> Option<Difference> {
    match (a, b) {
        (Data::Vector(a), Data::Vector(b)) => {
            let one = |v: &[(LabelMap, Point)]| -> Vec<(LabelMap, Vec<Point>)> {
                let mut v: Vec<_> = v.iter().map(|(l, p)| (l.clone(), vec![p.clone()])).collect();
                if order == Order::Free {
                    v.sort_by(|x, y| x.0.cmp(&y.0));
                }
                v
            };
            series_difference(&one(a), &one(b))
        }
        (Data::Matrix(a), Data::Matrix(b)) => series_difference(a, b),
        (Data::Scalar(a), Data::Scalar(b)) => {
            let point = |(t, v): &(i64, f64)| [(*t, Sampled::Float(*v))];
            points_difference(&point(a), &point(b)).map(Difference)
        }
        (Data::Text(t1, a), Data::Text(t2, b)) => {
            (t1 != t2 || a != b).then(|| Difference(format!("{a:?} @{t1} against {b:?} @{t2}")))
        }
        _ => Some(Difference("result types differ".to_owned())),
    }
}

fn series_difference(a: &[(LabelMap, Vec<Point>)], b: &[(LabelMap, Vec<Point>)]) -> Option<Difference> {
    for (i, (x, y)) in a.iter().zip(b).enumerate() {
        if x.0 != y.0 {
            return Some(Difference(format!(
                "series {i}: {:?} against {:?} (of {} and {})",
                x.0,
                y.0,
                a.len(),
                b.len()
            )));
        }
        if let Some(d) = points_difference(&x.1, &y.1) {
            return Some(Difference(format!("series {i} {:?}: {d}", x.0)));
        }
    }
    if a.len() != b.len() {
        let extra = a.get(b.len()).or_else(|| b.get(a.len())).map(|s| &s.0);
        return Some(Difference(format!("{} series against {}, first extra {extra:?}", a.len(), b.len())));
    }
    None
}

fn points_difference(a: &[Point], b: &[Point]) -> Option<String> {
    for (x, y) in a.iter().zip(b) {
        if x.0 != y.0 || !samples_equal(&x.1, &y.1) {
            return Some(format!("{}@{} against {}@{}", x.1, x.0, y.1, y.0));
        }
    }
    (a.len() != b.len()).then(|| {
        let extra = a.get(b.len()).or_else(|| b.get(a.len()));
        format!("{} points against {}, first extra {extra:?}", a.len(), b.len())
    })
}

fn parse_data(data: &Json) -> Result<Data> {
    let result = &data["result"];
    Ok(match data["resultType"].as_str() {
        Some("vector") => Data::Vector(
            list(result)?
                .iter()
                .map(|e| {
                    let sample = match &e["histogram"] {
                        Json::Null => point(&e["value"])?,
                        histogram => histogram_point(histogram)?,
                    };
                    Ok((label_map(&e["metric"])?, sample))
                })
                .collect::<Result<_>>()?,
        ),
        Some("matrix") => Data::Matrix(
            list(result)?
                .iter()
                .map(|e| {
                    let (floats, histograms) = (&e["values"], &e["histograms"]);
                    let mut points = Vec::new();
                    if !floats.is_null() || histograms.is_null() {
                        points = list(floats)?.iter().map(point).collect::<Result<_>>()?;
                    }
                    if !histograms.is_null() {
                        for histogram in list(histograms)? {
                            points.push(histogram_point(histogram)?);
                        }
                        points.sort_by_key(|point| point.0);
                    }
                    Ok((label_map(&e["metric"])?, points))
                })
                .collect::<Result<_>>()?,
        ),
        Some("scalar") => Data::Scalar((millis(&result[0])?, number(&result[1])?)),
        Some("string") => Data::Text(millis(&result[0])?, text(&result[1])?),
        other => bail!("unknown resultType {other:?}"),
    })
}

fn list(json: &Json) -> Result<&Vec<Json>> {
    json.as_array().with_context(|| format!("expected a list, got {json}"))
}

fn text(json: &Json) -> Result<String> {
    Ok(json.as_str().with_context(|| format!("expected a string, got {json}"))?.to_owned())
}

fn label_map(json: &Json) -> Result<LabelMap> {
    let object = json.as_object().with_context(|| format!("expected labels, got {json}"))?;
    object.iter().map(|(n, v)| Ok((n.clone(), text(v)?))).collect()
}

fn millis(json: &Json) -> Result<i64> {
    let seconds = json.as_f64().with_context(|| format!("expected a time, got {json}"))?;
    Ok((seconds * 1000.0).round() as i64)
}

fn number(json: &Json) -> Result<f64> {
    let value = text(json)?;
    value.parse().with_context(|| format!("value {value:?}"))
}

fn point(json: &Json) -> Result<Point> {
    Ok((millis(&json[0])?, Sampled::Float(number(&json[1])?)))
}

fn histogram_point(json: &Json) -> Result<Point> {
    let histogram = &json[1];
    let mut buckets = Vec::new();
    for bucket in histogram["buckets"].as_array().into_iter().flatten() {
        let rule = bucket[0].as_f64().with_context(|| format!("no boundary rule in {bucket}"))?;
        buckets.push([rule, number(&bucket[1])?, number(&bucket[2])?, number(&bucket[3])?]);
    }
    let (count, sum) = (number(&histogram["count"])?, number(&histogram["sum"])?);
    Ok((millis(&json[0])?, Sampled::Histogram { count, sum, buckets }))
}
