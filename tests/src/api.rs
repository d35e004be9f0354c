//! Answers of the query API, parsed as strictly as they are compared.

use std::fmt;

use anyhow::{Context, Result, bail};
use serde_json::Value as Json;

use crate::http::Response;
use crate::remote_write::LabelMap;

/// Largest relative difference of two values that count as equal.
pub const TOLERANCE: f64 = 1e-9;

/// A sample of an answer: time in ms, value.
pub type Point = (i64, f64);

/// The data of a successful answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// `vector`: one point per series, in the order of the answer.
    Vector(Vec<(LabelMap, Point)>),
    /// `matrix`: several points per series, in the order of the answer.
    Matrix(Vec<(LabelMap, Vec<Point>)>),
    /// `scalar`.
    Scalar(Point),
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

/// Whether two values count as equal: NaN equals NaN, otherwise within [`TOLERANCE`], signs of zero apart.
#[must_use]
pub fn values_equal(a: f64, b: f64) -> bool {
    if a.is_nan() || b.is_nan() {
        return a.is_nan() && b.is_nan();
    }
    a == b || (a - b).abs() <= TOLERANCE * a.abs().max(b.abs())
}

fn data_difference(a: &Data, b: &Data, order: Order) -> Option<Difference> {
    match (a, b) {
        (Data::Vector(a), Data::Vector(b)) => {
            let one = |v: &[(LabelMap, Point)]| -> Vec<(LabelMap, Vec<Point>)> {
                let mut v: Vec<_> = v.iter().map(|(l, p)| (l.clone(), vec![*p])).collect();
                if order == Order::Free {
                    v.sort_by(|x, y| x.0.cmp(&y.0));
                }
                v
            };
            series_difference(&one(a), &one(b))
        }
        (Data::Matrix(a), Data::Matrix(b)) => series_difference(a, b),
        (Data::Scalar(a), Data::Scalar(b)) => points_difference(&[*a], &[*b]).map(Difference),
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
        if x.0 != y.0 || !values_equal(x.1, y.1) {
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
                .map(|e| Ok((label_map(&e["metric"])?, point(&e["value"])?)))
                .collect::<Result<_>>()?,
        ),
        Some("matrix") => Data::Matrix(
            list(result)?
                .iter()
                .map(|e| {
                    let points = list(&e["values"])?.iter().map(point).collect::<Result<_>>()?;
                    Ok((label_map(&e["metric"])?, points))
                })
                .collect::<Result<_>>()?,
        ),
        Some("scalar") => Data::Scalar(point(result)?),
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

fn point(json: &Json) -> Result<Point> {
    let value = text(&json[1])?;
    Ok((millis(&json[0])?, value.parse().with_context(|| format!("value {value:?}"))?))
}
