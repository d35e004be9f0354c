use super::*;

fn regex(pattern: &str) -> CompiledMatcher {
    CompiledMatcher::new(&Matcher::new("l", MatchOp::Regex, pattern)).expect(pattern)
}

#[track_caller]
fn check(pattern: &str, yes: &[&str], no: &[&str]) {
    let positive = regex(pattern);
    let negative = CompiledMatcher::new(&Matcher::new("l", MatchOp::NotRegex, pattern)).expect(pattern);
    for value in yes {
        assert!(positive.matches(value), "{pattern} should match {value:?}");
        assert!(!negative.matches(value), "!~{pattern} should not match {value:?}");
    }
    for value in no {
        assert!(!positive.matches(value), "{pattern} should not match {value:?}");
        assert!(negative.matches(value), "!~{pattern} should match {value:?}");
    }
    assert_eq!(positive.matches_empty(), positive.matches(""), "{pattern}");
}

#[track_caller]
fn check_error(pattern: &str, text: &str) {
    let error = CompiledMatcher::new(&Matcher::new("l", MatchOp::Regex, pattern)).expect_err(pattern);
    assert_eq!(error.to_string(), format!("error parsing regexp: {text}"));
}

#[test]
fn anchored_at_both_ends_with_go_semantics() {
    check("a.*", &["a", "ab", "a\nb"], &["", "ba"]);
    check("a.+", &["ab", "a\n"], &["a", ""]);
    check(".*b", &["b", "ab"], &["ba", ""]);
    check(".*b.*", &["b", "abc"], &["", "ac"]);
    check("a|b", &["a", "b"], &["ab", "", "a|b"]);
    check("(a|b)?c{2}", &["cc", "acc", "bcc"], &["c", "abcc", "ccc"]);
    check("", &[""], &["a"]);
    check("|x", &["", "x"], &["y"]);
    check("^foo$", &["foo"], &["foo ", ""]);
    check("(?i)fOo", &["foo", "FOO", "Foo"], &["fo"]);
    check("(?i:ab)c", &["ABc", "abc"], &["abC"]);
    check("(?U)a+", &["a", "aaa"], &[""]);
    check("(?-s).*", &["ab", ""], &["a\nb"]);
    check("[^a]", &["b", "\n", "\u{e9}"], &["a", "", "bb"]);
    check(r"\d+", &["12"], &["\u{661}", ""]);
    check(r"\D", &["a", "\u{661}"], &["1"]);
    check(r"\w+", &["aZ_0"], &["\u{e9}"]);
    check(r"[\w-]+\.\s", &["a-b. "], &["\u{e9}. "]);
    check(r"a\b.*", &["a", "a b", "a\u{e9}"], &["ab"]);
    check(r"\pL+", &["a\u{e9}"], &["1"]);
    check(r"[\p{Greek}x]", &["\u{3b1}", "x"], &["y"]);
    check(r"\p{^Greek}[\P{^Greek}]", &["y\u{3b1}"], &["\u{3b1}\u{3b1}", "yy"]);
    check(r"\Qa.b\E.", &["a.bc"], &["axbc"]);
    check(r"a{,2}", &["a{,2}"], &["a", "aa"]);
    check(r"a{2}", &["aa"], &["a", "a{2}"]);
    check(r"x{", &["x{"], &["x"]);
    check(r"[a&&b]", &["a", "b", "&"], &["a&&b"]);
    check(r"[[a]", &["[", "a"], &["]"]);
    check(r"[[:alpha:]_]+", &["ab_"], &["1"]);
    check(r"[]a]", &["]", "a"], &["b"]);
    check(r"[a-]", &["-", "a"], &["b"]);
    check(r"\x41\x{42}\103\n", &["ABC\n"], &["ABC"]);
    check(r"\/\-\_", &["/-_"], &[]);
    check("a#b c", &["a#b c"], &[]);
    check("(?P<x>a)(?<y>b)", &["ab"], &["a"]);
    check("(?P<x>a)(?P<x>b)", &["ab"], &["a"]);
    check(".", &["a", "\n", "\u{1f600}"], &["", "ab"]);
    check("a.c|.*z", &["abc", "z", "yz"], &["ab", ""]);
    check("foo(bar|baz).*", &["foobar", "foobazx"], &["foo", "xfoobar"]);
}

#[test]
fn errors_have_gos_words() {
    check_error("(", "missing closing ): `(`");
    check_error("a)b", "unexpected ): `a)b`");
    check_error("x[a", "missing closing ]: `[a`");
    check_error("[b-a]", "invalid character class range: `b-a`");
    check_error("*a", "missing argument to repetition operator: `*`");
    check_error("a|+", "missing argument to repetition operator: `+`");
    check_error("a**", "invalid nested repetition operator: `**`");
    check_error("a+?*", "invalid nested repetition operator: `+?*`");
    check_error("a{1001}", "invalid repeat count: `{1001}`");
    check_error("a{2,1}", "invalid repeat count: `{2,1}`");
    check_error(r"\y", r"invalid escape sequence: `\y`");
    check_error(r"\1", r"invalid escape sequence: `\1`");
    check_error("a\\", "trailing backslash at end of expression: ``");
    check_error("(?x)a", "invalid or unsupported Perl syntax: `(?x`");
    check_error("(?", "invalid or unsupported Perl syntax: `(?`");
    check_error("(?i", "invalid or unsupported Perl syntax: `(?i`");
    check_error("(?=a)", "invalid or unsupported Perl syntax: `(?=`");
    check_error("(?P<a-b>x)", "invalid named capture: `(?P<a-b>`");
    check_error(r"\p{^Nope}", r"invalid character class range: `\p{^Nope}`");
    check_error(r"\p{Nope}", r"invalid character class range: `\p{Nope}`");
    check_error("[[:nope:]]", "invalid character class range: `[:nope:]`");
}

#[test]
fn simple_expressions_are_no_automata() {
    let literals = |pattern: &str| match regex(pattern).selects() {
        Selects::Literals(texts) => texts.iter().map(|text| text.to_string()).collect::<Vec<_>>(),
        other => panic!("{pattern}: {other:?}"),
    };
    assert_eq!(literals("foo"), ["foo"]);
    assert_eq!(literals("b|a|b"), ["a", "b"]);
    assert_eq!(literals("(a|b)c"), ["ac", "bc"]);
    assert_eq!(literals("^(foo1|foo2|)$"), ["", "foo1", "foo2"]);
    assert_eq!(literals(r"host\.example"), ["host.example"]);
    assert_eq!(literals("x[12]?"), ["x", "x1", "x2"]);
    assert_eq!(regex(".*").selects(), Selects::Anything);
    assert_eq!(regex("(.*)").selects(), Selects::Anything);
    assert_eq!(regex(".+").selects(), Selects::NonEmpty);
    assert_eq!(regex("foo.*").selects(), Selects::Scan { prefix: "foo" });
    assert_eq!(regex("foo[0-9]+").selects(), Selects::Scan { prefix: "foo" });
    let many: Vec<String> = (0..5000).map(|i| format!("pod-{i:05}-some-long-name")).collect();
    assert_eq!(literals(&many.join("|")), many);
}

#[test]
fn limits() {
    let long = "a".repeat(REGEX_BYTES_MAX);
    assert!(regex(&long).matches(&long));
    let error = |pattern: &str| CompiledMatcher::new(&Matcher::new("l", MatchOp::Regex, pattern));
    assert!(matches!(error(&format!("{long}a")), Err(MatcherError::TooLong { .. })));
    assert!(matches!(error("((a{1000}){1000}){1000}"), Err(MatcherError::TooLarge { .. })));
    let deep = format!("{}a{}", "(".repeat(100_000), ")".repeat(100_000));
    assert!(matches!(error(&deep), Err(MatcherError::Syntax(_))));
    let nested = format!("{}a{}", "(?:".repeat(95), ")*".repeat(95));
    assert!(error(&nested).is_ok());
}

#[test]
fn equality_is_not_a_regular_expression() {
    let matcher = |op| CompiledMatcher::new(&Matcher::new("l", op, "a.*")).expect("no regex");
    assert!(matcher(MatchOp::Equal).matches("a.*") && !matcher(MatchOp::Equal).matches("ab"));
    assert!(matcher(MatchOp::NotEqual).matches("ab") && matcher(MatchOp::NotEqual).matches_empty());
}

#[test]
fn memory_is_told_for_every_shape() {
    let bytes = |pattern: &str| regex(pattern).memory_bytes();
    for pattern in [".*", ".+", "a", "a.*", ".*a", ".*a.*", "a|b"] {
        assert!(bytes(pattern) < 500, "{pattern}: {}", bytes(pattern));
    }
    let many: Vec<String> = (0..5_000).map(|i| format!("pod-{i:05}")).collect();
    assert!(bytes(&many.join("|")) > 5_000 * (9 + size_of::<Box<str>>()));
    // An automaton of its own size, without a cache; one that is built while it matches, with a cache.
    assert!((1_000..REGEX_CACHE_BYTES_MAX).contains(&bytes("foo[0-9]+")), "{}", bytes("foo[0-9]+"));
    assert!(bytes(r"x\pL+y") > REGEX_CACHE_BYTES_MAX + 10_000, "{}", bytes(r"x\pL+y"));
    let repeated = Matcher::new("l", MatchOp::Regex, "[ab]c".repeat(1_000));
    assert!(CompiledMatcher::compile_bytes(&repeated) >= 5_000 * 300);
    assert_eq!(CompiledMatcher::compile_bytes(&Matcher::equal("l", "abc")), 3);
}

/// What is refused is refused before it has taken hundreds of megabytes.
#[test]
fn unicode_classes_are_counted_before_they_are_made() {
    let of = |count: usize| {
        let matcher = Matcher::new("l", MatchOp::Regex, r"\p{Greek}?".repeat(count));
        CompiledMatcher::new(&matcher)
    };
    assert!(of(10).is_ok());
    assert!(matches!(of(UNICODE_CLASSES_MAX + 1), Err(MatcherError::TooLarge { .. })));
}

#[test]
#[expect(clippy::mutable_key_type, reason = "the caches inside take no part in equality and hash")]
fn clones_share_and_equal_matchers_are_equal() {
    let first = regex("a[0-9]+");
    assert_eq!(first.clone(), first);
    assert_eq!(regex("a[0-9]+"), first);
    assert_ne!(regex("a[0-9]*"), first);
    let set: std::collections::HashSet<_> =
        [first.clone(), regex("a[0-9]+"), regex("b")].into_iter().collect();
    assert_eq!(set.len(), 2);
}
