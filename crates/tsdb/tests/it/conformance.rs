use std::time::Duration;

use chronolith_storage::conformance;

use crate::fixture::{Machine, quick};

#[test]
fn the_database_keeps_the_contract_of_storage() {
    conformance::check(|| {
        // The suite writes at the beginning of time.
        let machine = Machine::at(1_000_000_000);
        machine.open(quick()).0
    });
}

#[test]
fn it_keeps_it_after_a_restart_too() {
    let machine = Machine::at(1_000_000_000);
    machine.open(quick()).0.close().expect("closes");
    let mut first = Some(machine.open(quick()).0);
    conformance::check(|| first.take().unwrap_or_else(|| Machine::at(1_000_000_000).open(quick()).0));
    machine.clock.advance(Duration::from_secs(1));
    machine.open(quick()).0.close().expect("opens again");
}
