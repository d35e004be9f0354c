//! JSON by hand, byte for byte as Prometheus writes it.
//!
//! Prometheus has two ways to write a string: labels of series go out without HTML escaping
//! ([`JsonWriter::string`]), everything else with it ([`JsonWriter::string_html_escaped`]).

use chronolith_model::{Labels, Timestamp, float};

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends JSON to a buffer. The caller keeps braces and commas in balance.
#[derive(Debug, Default)]
pub(crate) struct JsonWriter {
    out: Vec<u8>,
}

/// Puts commas between the elements of an array or object.
#[derive(Debug, Default)]
pub(crate) struct Commas {
    started: bool,
}

impl Commas {
    pub(crate) fn next(&mut self, json: &mut JsonWriter) {
        if self.started {
            json.raw(",");
        }
        self.started = true;
    }
}

impl JsonWriter {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self { out: Vec::with_capacity(bytes) }
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.out
    }

    /// Text that is JSON already.
    pub(crate) fn raw(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    /// Bytes that are JSON already.
    pub(crate) fn json(&mut self, json: &[u8]) {
        self.out.extend_from_slice(json);
    }

    /// `"name":`, for names that need no escaping.
    pub(crate) fn key(&mut self, name: &str) {
        self.out.push(b'"');
        self.raw(name);
        self.raw("\":");
    }

    pub(crate) fn integer(&mut self, value: impl itoa::Integer) {
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    /// The fields of an object that are integers, with commas between them; for names that need no escaping.
    pub(crate) fn integers<'n, I: itoa::Integer>(&mut self, fields: impl IntoIterator<Item = (&'n str, I)>) {
        let mut commas = Commas::default();
        for (name, value) in fields {
            commas.next(self);
            self.key(name);
            self.integer(value);
        }
    }

    pub(crate) fn boolean(&mut self, value: bool) {
        self.raw(if value { "true" } else { "false" });
    }

    /// A float that is no string in JSON; finite.
    pub(crate) fn float(&mut self, value: f64) {
        float::write_json(&mut self.out, if value.is_finite() { value } else { 0.0 });
    }

    /// A sample value: a string with the API's float format.
    pub(crate) fn value(&mut self, value: f64) {
        self.out.push(b'"');
        float::write_json(&mut self.out, value);
        self.out.push(b'"');
    }

    /// A scalar result: a string, never with an exponent.
    pub(crate) fn fixed_value(&mut self, value: f64) {
        self.out.push(b'"');
        float::write_fixed(&mut self.out, value);
        self.out.push(b'"');
    }

    /// Seconds with exactly three digits behind the point, or none: `1.500`, `1`.
    pub(crate) fn timestamp(&mut self, ms: Timestamp) {
        if ms < 0 {
            self.out.push(b'-');
        }
        let magnitude = ms.unsigned_abs();
        self.integer(magnitude / 1000);
        let fraction = (magnitude % 1000) as u16;
        if fraction != 0 {
            let digit = |divisor: u16| b'0' + (fraction / divisor % 10) as u8;
            self.out.extend_from_slice(&[b'.', digit(100), digit(10), digit(1)]);
        }
    }

    /// Seconds as the shortest float, as scalar and string results have them: `1.5`.
    pub(crate) fn timestamp_float(&mut self, ms: Timestamp) {
        self.float(ms as f64 / 1000.0);
    }

    /// A string without HTML escaping.
    pub(crate) fn string(&mut self, text: &str) {
        self.escaped(text, |byte| byte < 0x20 || byte == b'"' || byte == b'\\', false);
    }

    /// A string with `<`, `>`, `&`, U+2028 and U+2029 escaped.
    pub(crate) fn string_html_escaped(&mut self, text: &str) {
        self.escaped(text, needs_html_escape, false);
    }

    /// The same, with `\b` and `\f` in short, as Go's own encoder writes string results.
    pub(crate) fn string_go(&mut self, text: &str) {
        self.escaped(text, needs_html_escape, true);
    }

    fn escaped(&mut self, text: &str, special: impl Fn(u8) -> bool, short: bool) {
        self.out.push(b'"');
        let bytes = text.as_bytes();
        let mut copied = 0;
        let mut at = 0;
        while at < bytes.len() {
            let byte = bytes[at];
            if !special(byte) {
                at += 1;
                continue;
            }
            let mut length = 1;
            let escape: &[u8] = match byte {
                b'"' => b"\\\"",
                b'\\' => b"\\\\",
                b'\n' => b"\\n",
                b'\r' => b"\\r",
                b'\t' => b"\\t",
                0x08 if short => b"\\b",
                0x0c if short => b"\\f",
                // The first byte of U+2028, U+2029 and 4094 others.
                0xe2 => match bytes.get(at + 1..at + 3) {
                    Some([0x80, 0xa8]) => {
                        length = 3;
                        b"\\u2028"
                    }
                    Some([0x80, 0xa9]) => {
                        length = 3;
                        b"\\u2029"
                    }
                    _ => {
                        at += 1;
                        continue;
                    }
                },
                byte => {
                    self.out.extend_from_slice(&bytes[copied..at]);
                    let [high, low] = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
                    self.out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
                    at += 1;
                    copied = at;
                    continue;
                }
            };
            self.out.extend_from_slice(&bytes[copied..at]);
            self.out.extend_from_slice(escape);
            at += length;
            copied = at;
        }
        self.out.extend_from_slice(&bytes[copied..]);
        self.out.push(b'"');
    }

    /// A label set as an object.
    pub(crate) fn labels(&mut self, labels: &Labels) {
        self.out.push(b'{');
        for (index, (name, value)) in labels.iter().enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            self.string(name);
            self.out.push(b':');
            self.string(value);
        }
        self.out.push(b'}');
    }

    /// An array of strings.
    pub(crate) fn strings<T: AsRef<str>>(&mut self, items: &[T]) {
        self.out.push(b'[');
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            self.string_html_escaped(item.as_ref());
        }
        self.out.push(b']');
    }
}

fn needs_html_escape(byte: u8) -> bool {
    byte < 0x20 || matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&' | 0xe2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut JsonWriter)) -> String {
        let mut json = JsonWriter::default();
        write(&mut json);
        String::from_utf8(json.finish()).expect("JSON is UTF-8")
    }

    #[test]
    fn strings_as_prometheus_3_5_3_writes_them() {
        let text = "<>&\u{2028}\u{2029}\u{2030}\u{7f}\u{1}\u{8}\u{c}\n\r\t\"\\/\u{e9}\u{1f600}";
        assert_eq!(
            written(|json| json.string(text)),
            "\"<>&\u{2028}\u{2029}\u{2030}\u{7f}\\u0001\\u0008\\u000c\\n\\r\\t\\\"\\\\/\u{e9}\u{1f600}\""
        );
        let html = "\"\\u003c\\u003e\\u0026\\u2028\\u2029\u{2030}\u{7f}\\u0001";
        let rest = "\\n\\r\\t\\\"\\\\/\u{e9}\u{1f600}\"";
        assert_eq!(written(|json| json.string_html_escaped(text)), format!("{html}\\u0008\\u000c{rest}"));
        assert_eq!(written(|json| json.string_go(text)), format!("{html}\\b\\f{rest}"));
    }

    #[test]
    fn timestamps() {
        for (ms, fixed, float) in [
            (0, "0", "0"),
            (1500, "1.500", "1.5"),
            (-1500, "-1.500", "-1.5"),
            (-1, "-0.001", "-0.001"),
            (1_435_781_451_781, "1435781451.781", "1435781451.781"),
            (1000, "1", "1"),
            (i64::MIN, "-9223372036854775.808", "-9223372036854776"),
        ] {
            assert_eq!(written(|json| json.timestamp(ms)), fixed);
            assert_eq!(written(|json| json.timestamp_float(ms)), float);
        }
    }
}
