//! Trees: what is printed, on one line or indented, parses to the tree it was printed from, and prints the same again.
#![no_main]

mod random_expr;

use chronolith_syntax::{ParseOptions, parse, pretty};
use libfuzzer_sys::{arbitrary::Unstructured, fuzz_target};
use random_expr::Expressions;

const DEPTH: usize = 6;

fuzz_target!(|data: &[u8]| {
    let expr = Expressions::new(&mut Unstructured::new(data), None).expression(DEPTH);
    let (printed, indented) = (expr.to_string(), pretty(&expr));
    for text in [&printed, &indented] {
        let again = parse(text, &ParseOptions::all())
            .unwrap_or_else(|error| panic!("{expr:?} is printed as {text:?}, which does not parse: {error}"));
        assert!(again == expr, "{text:?} is parsed as\n{again:?} and was printed from\n{expr:?}");
        assert_eq!((again.to_string(), pretty(&again)), (printed.clone(), indented.clone()));
        assert_eq!(again.value_type(), expr.value_type(), "{text:?}");
    }
});
