//! An explained query as a tree.

use std::fmt::Write as _;

use serde_json::Value;

/// Of the text of an operator, so much is shown.
const EXPR_CHARS_MAX: usize = 72;

/// Levels that are shown: more than the server tells.
const LEVELS_MAX: usize = 64;

/// The tree of `explain`, an operator a line, and what is selected; `failed` where the query ended with an error.
pub(super) fn render(explain: &Value, failed: bool) -> String {
    let mut tree =
        Tree { out: String::new(), shared: Vec::new(), failed: failed && explain["mode"] == "analyze" };
    tree.node(&explain["root"], "", "", 0);
    let mut out = tree.out;
    for (index, selection) in explain["selections"].as_array().into_iter().flatten().enumerate() {
        if index == 0 {
            out.push('\n');
        }
        let _ = writeln!(out, "#{index} {}", self::selection(selection));
    }
    out
}

struct Tree<'a> {
    out: String,
    /// Operators that are used more than once, each as it came first.
    shared: Vec<&'a Value>,
    /// Not all of it was evaluated.
    failed: bool,
}

impl<'a> Tree<'a> {
    /// A node behind `lead`, what is below it behind `indent`.
    fn node(&mut self, node: &'a Value, lead: &str, indent: &str, level: usize) {
        let out = &mut self.out;
        let _ = write!(out, "{lead}{}  {}", text(&node["operator"]), expr(text(&node["expr"])));
        if let Some(selection) = node["selection"].as_u64() {
            let _ = write!(out, "  #{selection}");
        }
        let steps = count(&node["steps"]);
        if steps != 1 {
            let _ = write!(out, "  {steps} steps");
        }
        let uses = count(&node["uses"]);
        let again = uses > 1 && self.shared.iter().any(|first| is_same(first, node));
        if again {
            out.push_str("  (as above)");
        } else if uses > 1 {
            let _ = write!(out, "  (used {uses} times)");
            self.shared.push(node);
        }
        if node["cost"].is_object() {
            out.push_str(&cost(&node["cost"]));
        } else if self.failed && !again {
            out.push_str("  [not finished]");
        }
        out.push('\n');
        let children: Vec<&Value> = node["children"].as_array().into_iter().flatten().collect();
        let omitted = count(&node["omitted"]);
        for (index, child) in children.iter().enumerate().filter(|_| level < LEVELS_MAX) {
            let last = index + 1 == children.len() && omitted == 0;
            let (here, below) = if last { ("`- ", "   ") } else { ("|- ", "|  ") };
            self.node(child, &format!("{indent}{here}"), &format!("{indent}{below}"), level + 1);
        }
        if omitted > 0 {
            let _ = writeln!(self.out, "{indent}`- {}", of(omitted, "more operator"));
        }
    }
}

/// Whether two operators that are used more than once are one: they say the same, at the same steps.
fn is_same(a: &Value, b: &Value) -> bool {
    ["operator", "expr", "selection", "start", "step", "steps"].iter().all(|field| a[field] == b[field])
}

/// `1 step`, `2 steps`
fn of(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// `  [1.2 ms, own 0.3 ms, 3 series, 300 values, 2.3 KiB, 1200 samples read]`
fn cost(cost: &Value) -> String {
    let mut out = format!("  [{}, own {}", time(&cost["seconds"]), time(&cost["ownSeconds"]));
    if count(&cost["evaluations"]) > 1 {
        let _ = write!(out, " in {} evaluations", count(&cost["evaluations"]));
    }
    let [series, values, samples] = ["series", "values", "samples"].map(|name| count(&cost[name]));
    let _ = write!(out, ", {series} series, {}, {}", of(values, "value"), bytes(&cost["bytes"]));
    if samples > 0 {
        let _ = write!(out, ", {} read", of(samples, "sample"));
    }
    out.push(']');
    out
}

/// `{job="a"} 1700000000 to 1700003600: 3 series (2 in memory, 3 in 1 block); ...`
fn selection(selection: &Value) -> String {
    let mut out = format!("{} {} to {}", text(&selection["matchers"]), selection["start"], selection["end"]);
    let storage = &selection["storage"];
    let Some(series) = selection["series"].as_u64() else { return out };
    let number = |name: &str| count(&storage[name]);
    let _ = write!(out, ": {series} series ({} in memory, ", number("memorySeries"));
    let _ = write!(out, "{} in {})", number("blockSeries"), of(number("blocks"), "block"));
    if storage["frames"].is_u64() {
        let [frames, hits, misses] = ["frames", "cacheHits", "cacheMisses"].map(number);
        let _ = write!(
            out,
            "; {} opened, cache {hits} hits {misses} misses, {} read, {} copied",
            of(frames, "frame"),
            bytes(&storage["readBytes"]),
            bytes(&storage["copiedBytes"])
        );
    }
    out
}

/// On one line, no longer than fits.
fn expr(text: &str) -> String {
    let line: Vec<&str> = text.split_whitespace().collect();
    let line = line.join(" ");
    if line.chars().count() <= EXPR_CHARS_MAX {
        return line;
    }
    let shown: String = line.chars().take(EXPR_CHARS_MAX - 3).collect();
    format!("{shown}...")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn time(seconds: &Value) -> String {
    let seconds = seconds.as_f64().unwrap_or_default();
    match seconds {
        s if s < 1e-3 => format!("{:.0} us", s * 1e6),
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

fn bytes(value: &Value) -> String {
    let bytes = count(value);
    match bytes {
        b if b < 1 << 10 => format!("{b} B"),
        b if b < 1 << 20 => format!("{:.1} KiB", b as f64 / 1024.0),
        b => format!("{:.1} MiB", b as f64 / f64::from(1 << 20)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_tree_is_drawn() {
        let cost = |seconds: f64, own: f64, samples: u64| {
            json!({"evaluations": 1, "seconds": seconds, "ownSeconds": own, "series": 2, "values": 6, "bytes": 2048,
                   "samples": samples})
        };
        let rate = json!({"operator": "range_function", "expr": "rate(m[1m])", "steps": 3, "selection": 0, "uses": 2,
                          "cost": cost(0.0011, 0.0011, 40), "children": []});
        let explain = json!({
            "mode": "analyze",
            "root": {"operator": "binary_of_vectors", "expr": "rate(m[1m])\n  + x", "steps": 3, "omitted": 7,
                     "cost": cost(1.5, 0.0, 0), "children": [
                {"operator": "negation", "expr": "-rate(m[1m])", "steps": 3, "children": [rate]},
                {"operator": "number", "expr": "x".repeat(80), "steps": 1, "children": []}]},
            "selections": [
                {"matchers": "{__name__=\"m\"}", "start": 1.5, "end": 3, "series": 2,
                 "storage": {"memorySeries": 1, "blockSeries": 2, "blocks": 2, "frames": 3, "cacheHits": 4,
                             "cacheMisses": 5, "readBytes": 3 << 20, "copiedBytes": 10}},
                {"matchers": "{}", "start": 0, "end": 0}],
        });
        assert_eq!(
            render(&explain, false),
            format!(
                "binary_of_vectors  rate(m[1m]) + x  3 steps  [1.50 s, own 0 us, 2 series, 6 values, 2.0 KiB]\n\
                 |- negation  -rate(m[1m])  3 steps\n\
                 |  `- range_function  rate(m[1m])  #0  3 steps  (used 2 times)  \
                 [1.1 ms, own 1.1 ms, 2 series, 6 values, 2.0 KiB, 40 samples read]\n\
                 |- number  {}...\n\
                 `- 7 more operators\n\n\
                 #0 {{__name__=\"m\"}} 1.5 to 3: 2 series (1 in memory, 2 in 2 blocks); 3 frames opened, \
                 cache 4 hits 5 misses, 3.0 MiB read, 10 B copied\n\
                 #1 {{}} 0 to 0\n",
                "x".repeat(69)
            )
        );
    }

    #[test]
    fn what_was_not_finished_and_what_comes_twice_is_told() {
        let cost = json!({"evaluations": 1, "seconds": 0.0, "ownSeconds": 0.0, "series": 1, "values": 1, "bytes": 8, "samples": 1});
        let x = |cost: &Value| {
            json!({"operator": "selector", "expr": "x", "start": 5, "step": 0, "steps": 1, "selection": 0, "uses": 2,
                   "cost": cost, "children": []})
        };
        let mut explain = json!({
            "mode": "analyze",
            "root": {"operator": "binary_of_vectors", "expr": "x + x", "start": 5, "step": 0, "steps": 1,
                     "children": [x(&cost), x(&Value::Null)]},
            "selections": [],
        });
        let drawn = |first: &str, cost: &str| {
            format!(
                "binary_of_vectors  x + x{first}\n|- selector  x  #0  (used 2 times){cost}\n\
                 `- selector  x  #0  (as above)\n"
            )
        };
        let cost = "  [0 us, own 0 us, 1 series, 1 value, 8 B, 1 sample read]";
        assert_eq!(render(&explain, false), drawn("", cost));
        assert_eq!(render(&explain, true), drawn("  [not finished]", cost));
        explain["mode"] = "plan".into();
        assert_eq!(render(&explain, true), drawn("", cost));
        // The same text, but not at the same steps.
        explain["root"]["children"][1]["start"] = 6.into();
        assert!(!render(&explain, false).contains("as above"));
    }
}
