use chronolith_model::histogram::HistogramLiteral;

use super::*;

fn native(literal: &str) -> Native {
    Arc::new(HistogramLiteral::parse(literal).expect("a literal").histogram)
}

/// The histograms of `literals`, one a minute from 0 on.
fn each_minute(literals: &[&str]) -> (Vec<Timestamp>, Vec<Native>) {
    let times = (0..literals.len() as i64).map(|minute| minute * 60_000).collect();
    (times, literals.iter().map(|literal| native(literal)).collect())
}

/// The change of all of `literals` in a window that is as long as they take, and none is extrapolated in.
fn change(change: Change, literals: &[&str]) -> (Option<String>, Findings) {
    let (times, histograms) = each_minute(literals);
    let history = match change {
        Change::Delta => History::of_gauge(&times, &histograms),
        _ => History::of_counter(&times, &histograms, |_| false),
    };
    let end = times[times.len() - 1];
    let (found, findings) = history.extrapolated(change, 0..times.len(), (0, end), 0);
    (found.map(|native| native.to_literal()), findings)
}

fn increase(literals: &[&str]) -> (Option<String>, Findings) {
    change(Change::Increase, literals)
}

const NOTHING: Findings = Findings {
    not_counter: false,
    not_gauge: false,
    mixed_schemas: false,
    reconciled_in_addition: false,
    reconciled_in_subtraction: false,
};

#[test]
fn what_was_reached_before_resets_is_added() {
    let (found, findings) = increase(&[
        "{{count:4 sum:4 buckets:[4]}}",
        "{{count:6 sum:6 buckets:[6]}}",
        "{{count:1 sum:1 buckets:[1]}}",
        "{{count:5 sum:5 buckets:[1 4]}}",
        "{{count:5 sum:5 buckets:[0 5]}}",
    ]);
    assert_eq!(found.as_deref(), Some("{{count:12 sum:12 counter_reset_hint:gauge buckets:[3 9]}}"));
    assert_eq!(findings, NOTHING);
}

#[test]
fn a_gauge_is_no_counter_and_the_other_way_around() {
    let gauge = "{{count:4 sum:4 buckets:[4] counter_reset_hint:gauge}}";
    let counter = "{{count:6 sum:6 buckets:[6]}}";
    let not_counter = Findings { not_counter: true, ..NOTHING };
    let not_gauge = Findings { not_gauge: true, ..NOTHING };
    assert_eq!(increase(&[gauge, counter]).1, not_counter);
    assert_eq!(increase(&[counter, gauge, counter]).1, not_counter);
    assert_eq!(change(Change::Delta, &[counter, gauge]).1, not_gauge);
    assert_eq!(change(Change::Delta, &[gauge, counter, gauge]), {
        (Some("{{counter_reset_hint:gauge}}".to_owned()), NOTHING)
    });
}

#[test]
fn exponential_and_custom_buckets_do_not_mix() {
    let custom = "{{schema:-53 count:1 custom_values:[5 10] buckets:[1]}}";
    let exponential = "{{count:4 buckets:[4]}}";
    let mixed = Findings { mixed_schemas: true, ..NOTHING };
    assert_eq!(increase(&[exponential, custom, exponential]), (None, mixed));
    assert_eq!(increase(&[custom, exponential, custom]), (None, mixed));
    // What comes before a reset with the second sample does not matter.
    assert_eq!(increase(&[custom, exponential]).1, NOTHING);
    // Of a gauge only the ends are looked at.
    let found = change(Change::Delta, &[exponential, custom, exponential]);
    assert_eq!(found.1, Findings { not_gauge: true, ..NOTHING });
    assert_eq!(change(Change::Delta, &[exponential, custom]).0, None);
}

#[test]
fn custom_bounds_are_reconciled() {
    let a = "{{schema:-53 count:1 custom_values:[5] buckets:[1]}}";
    let b = "{{schema:-53 count:3 custom_values:[5 10] buckets:[1 2]}}";
    let subtracted = Findings { reconciled_in_subtraction: true, ..NOTHING };
    let found = increase(&[a, b]);
    assert_eq!(
        found,
        (
            Some(
                "{{schema:-53 count:2 custom_values:[5] counter_reset_hint:gauge offset:1 buckets:[2]}}"
                    .to_owned()
            ),
            subtracted
        )
    );
    // Nothing is left of the first but that the second has other bounds than the last.
    let found = increase(&["{{schema:-53 count:9 custom_values:[7] buckets:[9]}}", a, b]);
    assert_eq!(
        found.0.as_deref(),
        Some("{{schema:-53 count:3 custom_values:[5] counter_reset_hint:gauge buckets:[1 2]}}")
    );
    assert_eq!(found.1, subtracted);
    // The bounds of what was reached before a reset.
    let found = increase(&[a, b, "{{schema:-53 count:2 custom_values:[5] buckets:[2]}}"]);
    assert_eq!(
        found,
        (
            Some(
                "{{schema:-53 count:4 custom_values:[5] counter_reset_hint:gauge buckets:[2 2]}}".to_owned()
            ),
            Findings { reconciled_in_addition: true, ..NOTHING }
        )
    );
}

#[test]
fn only_resets_of_the_window_count() {
    let (times, histograms) = each_minute(&[
        "{{count:9 buckets:[9]}}",
        "{{count:1 buckets:[1]}}",
        "{{count:2 buckets:[2]}}",
        "{{count:1 buckets:[1]}}",
    ]);
    let history = History::of_counter(&times, &histograms, |_| false);
    let count = |window: Range<usize>, start, end| {
        history.extrapolated(Change::Increase, window, (start, end), 0).0.map(|native| native.count())
    };
    assert_eq!(count(1..3, 60_000, 120_000), Some(1.0));
    assert_eq!(count(1..4, 60_000, 180_000), Some(2.0));
    assert_eq!(count(2..4, 120_000, 180_000), Some(1.0));
    assert_eq!(count(2..3, 0, 180_000), None);
    // A reset that only the caller knows of.
    let known = History::of_counter(&times, &histograms, |index| index == 2);
    let found = known.extrapolated(Change::Increase, 1..3, (60_000, 120_000), 0).0;
    assert_eq!(found.map(|native| native.count()), Some(2.0));
}

#[test]
fn changes_are_extrapolated_to_the_ends() {
    let (times, histograms) = each_minute(&["{{count:10 buckets:[10]}}", "{{count:40 buckets:[40]}}"]);
    let history = History::of_counter(&times, &histograms, |_| false);
    let count = |change, start, end| {
        history
            .extrapolated(change, 0..2, (start, end), 0)
            .0
            .map(|native| native.count())
            .expect("two samples")
    };
    assert_eq!(
        count(Change::Increase, -30_000, 90_000),
        30.0 * ((20.0 + 60.0 + 30.0) / 60.0),
        "zero at -20 s"
    );
    assert_eq!(
        count(Change::Increase, -10_000, 600_000),
        30.0 * ((10.0 + 60.0 + 30.0) / 60.0),
        "too far to the right"
    );
    assert_eq!(count(Change::Delta, -600_000, 60_000), 30.0 * ((30.0 + 60.0) / 60.0), "too far to the left");
    assert_eq!(count(Change::Rate, 0, 60_000), 0.5);
}

#[test]
fn results_of_the_same_buckets_share_their_layout() {
    // The second bucket does not change and is compacted away each time.
    let literals = ["{{count:5 buckets:[1 4]}}", "{{count:6 buckets:[2 4]}}", "{{count:9 buckets:[5 4]}}"];
    let (times, histograms) = each_minute(&literals);
    let history = History::of_counter(&times, &histograms, |_| false);
    let layout = |window| {
        let found = history.extrapolated(Change::Increase, window, (0, 120_000), 0).0.expect("two samples");
        Arc::clone(found.layout())
    };
    let first = layout(0..2);
    assert_eq!(first.len(), 1);
    assert!(Arc::ptr_eq(&first, &layout(1..3)));
}

#[test]
fn the_last_two_samples() {
    let (a, b) = (native("{{count:4 sum:9 buckets:[4]}}"), native("{{count:6 sum:12 buckets:[1 5]}}"));
    let found = |change, reset| {
        let (found, findings) = between(change, (1_000, &a), (3_000, &b), reset);
        (found.map(|native| native.to_literal()), findings)
    };
    // A bucket fell: everything is new.
    let anew = Some("{{count:3 sum:6 counter_reset_hint:gauge buckets:[0.5 2.5]}}".to_owned());
    assert_eq!(found(Change::Rate, false), (anew.clone(), NOTHING));
    assert_eq!(found(Change::Rate, true), (anew, NOTHING));
    let difference = Some("{{count:2 sum:3 counter_reset_hint:gauge buckets:[-3 5]}}".to_owned());
    assert_eq!(found(Change::Delta, false), (difference, Findings { not_gauge: true, ..NOTHING }));
    assert_eq!(between(Change::Rate, (1_000, &a), (1_000, &b), false), (None, NOTHING));
    let custom = native("{{schema:-53 count:9 custom_values:[1] buckets:[9]}}");
    let (found, findings) = between(Change::Delta, (0, &a), (1, &custom), false);
    assert!(found.is_none());
    assert_eq!(findings, Findings { mixed_schemas: true, not_gauge: true, ..NOTHING });
}
