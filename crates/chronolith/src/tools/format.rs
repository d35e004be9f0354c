//! Numbers, times and tables for people.

use std::fmt::Write as _;

const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// `512 B`, `1.5 MiB`
pub(super) fn bytes(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        // What would be printed as 1024.0.
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// `1 segment`, `2 segments`
pub(super) fn count(n: u64, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// A timestamp in milliseconds as `2026-01-31T10:00:00.000Z`; as a number where there is no such date.
pub(super) fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |time| format!("{time:.3}"))
}

/// `1.25`; `-` of no samples
pub(super) fn per_sample(bytes: f64, samples: u64) -> String {
    if samples == 0 { "-".to_owned() } else { format!("{:.3}", bytes / samples as f64) }
}

/// Columns, right-aligned but for the first, two spaces apart; with a line of headings.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|&heading| heading.to_owned()).collect()] }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        // Names and values come from files: none may move the cursor of a terminal.
        let plain = |cell: String| {
            if cell.contains(char::is_control) { cell.escape_debug().to_string() } else { cell }
        };
        self.rows.push(cells.into_iter().map(plain).collect());
    }

    pub(super) fn text(&self) -> String {
        let mut widths: Vec<usize> = Vec::new();
        for row in &self.rows {
            widths.resize(widths.len().max(row.len()), 0);
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let _ = match index {
                    0 => write!(line, "{cell:<width$}"),
                    _ => write!(line, "  {cell:>width$}"),
                };
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (n, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_572_864, "1.5 MiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (1 << 40, "1.0 TiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(n), text);
        }
    }

    #[test]
    fn bytes_of_samples() {
        assert_eq!((per_sample(1.0, 8).as_str(), per_sample(1.0, 0).as_str()), ("0.125", "-"));
    }

    #[test]
    fn times() {
        assert_eq!(time(1_700_000_000_007), "2023-11-14T22:13:20.007Z");
        assert_eq!(time(-1), "1969-12-31T23:59:59.999Z");
        assert_eq!(time(i64::MAX), i64::MAX.to_string());
    }

    #[test]
    fn tables() {
        let mut table = Table::new(&["a", "bytes"]);
        table.row(["long".to_owned(), "1".to_owned()]);
        table.row(["x".to_owned(), String::new()]);
        table.row(["\u{1b}[".to_owned(), "2".to_owned()]);
        assert_eq!(table.text(), "a        bytes\nlong         1\nx\n\\u{1b}[      2\n");
        assert_eq!((count(1, "segment"), count(0, "segment")), ("1 segment".into(), "0 segments".into()));
    }
}
