//! The order of instant results: `sort`, `sort_desc`, `sort_by_label`, `sort_by_label_desc`.

use std::cmp::Ordering;

use crate::series::{SeriesColumn, is_absent};

/// Sorts by the value at the only step, NaN last in both directions; equal values keep their order. Series without a
/// value go.
pub(crate) fn sort(series: &mut Vec<SeriesColumn>, descending: bool) {
    let value = |series: &SeriesColumn| series.column.values().first().copied().filter(|v| !is_absent(*v));
    series.retain(|series| value(series).is_some());
    series.sort_by(|a, b| {
        let (a, b) = (value(a).unwrap_or(f64::NAN), value(b).unwrap_or(f64::NAN));
        let order = if descending { b.partial_cmp(&a) } else { a.partial_cmp(&b) };
        order.unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
    });
}

/// Sorts by the values of `labels` in turn, digits compared as numbers, then by all labels.
pub(crate) fn sort_by_label(series: &mut [SeriesColumn], labels: &[&str], descending: bool) {
    series.sort_by(|a, b| {
        let by_label = labels.iter().find_map(|label| {
            let (a, b) = (a.labels.get(label).unwrap_or_default(), b.labels.get(label).unwrap_or_default());
            (a != b).then(|| natural(a, b))
        });
        let order = by_label.unwrap_or_else(|| a.labels.cmp(&b.labels));
        if descending { order.reverse() } else { order }
    });
}

/// Natural order: stretches of digits compare as numbers, others as text; a prefix comes first. Never equal for
/// different strings.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a.as_bytes(), b.as_bytes());
    while !left.is_empty() && !right.is_empty() {
        let (one, other) = (chunk(&mut left), chunk(&mut right));
        let numbers = one[0].is_ascii_digit() && other[0].is_ascii_digit();
        let order = if numbers { number(one).cmp(&number(other)) } else { one.cmp(other) };
        if order.is_ne() {
            return order;
        }
    }
    left.len().cmp(&right.len()).then_with(|| a.cmp(b))
}

/// Takes the leading stretch of digits, or of anything else, off a text that is not empty.
fn chunk<'a>(text: &mut &'a [u8]) -> &'a [u8] {
    let digits = text[0].is_ascii_digit();
    let len = text.iter().position(|byte| byte.is_ascii_digit() != digits).unwrap_or(text.len());
    let (head, tail) = text.split_at(len);
    *text = tail;
    head
}

/// Digits in an order of numbers of any length.
fn number(digits: &[u8]) -> (usize, &[u8]) {
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    (digits.len() - zeros, &digits[zeros..])
}

#[cfg(test)]
mod tests {
    use chronolith_model::Labels;

    use super::*;
    use crate::series::Column;

    fn series(rows: &[(&str, Option<f64>)]) -> Vec<SeriesColumn> {
        rows.iter()
            .map(|(le, value)| SeriesColumn {
                labels: Labels::from_pairs([("le", *le), ("x", "1")]),
                drop_name: false,
                column: value.map_or(Column::absent(1), |v| Column::constant(v, 1)),
            })
            .collect()
    }

    fn order(series: &[SeriesColumn]) -> Vec<&str> {
        series.iter().map(|s| s.labels.get("le").unwrap_or_default()).collect()
    }

    #[test]
    fn nan_is_last_both_ways_and_absent_gone() {
        let rows = [("a", Some(2.0)), ("b", Some(f64::NAN)), ("c", Some(1.0)), ("d", None), ("e", Some(2.0))];
        let mut up = series(&rows);
        sort(&mut up, false);
        assert_eq!(order(&up), ["c", "a", "e", "b"]);
        let mut down = series(&rows);
        sort(&mut down, true);
        assert_eq!(order(&down), ["a", "e", "c", "b"]);
    }

    #[test]
    fn digits_sort_as_numbers() {
        let rows = ["1", "0.5", "+Inf", "0.1", "10", "9", "a10", "a9", "", "a09", "99999999999999999999"];
        let mut up = series(&rows.map(|le| (le, Some(0.0))));
        sort_by_label(&mut up, &["le"], false);
        let expected = ["", "+Inf", "0.1", "0.5", "1", "9", "10", "99999999999999999999", "a09", "a9", "a10"];
        assert_eq!(order(&up), expected);
        sort_by_label(&mut up, &["le"], true);
        assert_eq!(order(&up), expected.iter().rev().copied().collect::<Vec<_>>());
        sort_by_label(&mut up, &["x", "nothing"], false);
        let plain = ["+Inf", "0.1", "0.5", "1", "10", "9", "99999999999999999999", "a09", "a10", "a9", ""];
        assert_eq!(order(&up), plain, "ties go by all labels, the series without le by its x");
    }
}
