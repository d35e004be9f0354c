//! Queries: parsing ends, errors have a place inside the text, and what is printed parses to the same again.
#![no_main]

use chronolith_syntax::{ParseOptions, parse, parse_metric_selector, pretty};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = str::from_utf8(data) else { return };
    for options in [ParseOptions::default(), ParseOptions::all()] {
        let Ok(expr) = parse(text, &options) else { continue };
        let printed = expr.to_string();
        let again = parse(&printed, &options)
            .unwrap_or_else(|e| panic!("{text:?} is printed as {printed:?}, which does not parse: {e}"));
        assert_eq!(again.to_string(), printed, "{text:?}");
        let indented = pretty(&expr);
        let again = parse(&indented, &options)
            .unwrap_or_else(|e| panic!("{text:?} is formatted as {indented:?}, which does not parse: {e}"));
        assert_eq!(again.to_string(), printed, "{text:?}");
    }
    let _ = parse_metric_selector(text);
});
