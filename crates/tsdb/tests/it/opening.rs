//! Opening and closing data directories.

use std::{error::Error as _, path::Path};

use chronolith_env::{Env, Fs, Op};
use chronolith_model::TenantId;
use chronolith_storage::StorageError;
use chronolith_testkit::fault_fs::Fault;
use chronolith_tsdb::{Db, DbOptions, Error};

use crate::fixture::{DIR, Machine, NOW, append, content, count, quick, scrape};

fn refused(machine: &Machine) -> Error {
    Db::open(Path::new(DIR), quick(), machine.env.clone()).expect_err("must not open")
}

#[test]
fn a_second_process_is_told_which_directory_is_in_use() {
    let machine = Machine::new();
    let (db, _) = machine.open(quick());
    let error = refused(&machine);
    assert!(matches!(error, Error::Locked { .. }), "{error:?}");
    assert!(error.to_string().contains(DIR), "{error}");
    db.close().expect("closes");
    machine.open(quick());
}

#[test]
fn a_second_process_is_refused_on_a_real_file_system_too() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let path = dir.path().join("not/yet/there");
    let (db, _) = Db::open(&path, DbOptions::default(), Env::real()).expect("made and opened");
    let second = Db::open(&path, DbOptions::default(), Env::real());
    assert!(matches!(second, Err(Error::Locked { .. })));
    let now = Env::real().clock.now_ms();
    append(&db, &TenantId::default(), &scrape("m", 10, now, 1.0))
        .expect("taken")
        .ticket
        .wait()
        .expect("durable");
    drop(db);
    let (db, report) = Db::open(&path, DbOptions::default(), Env::real()).expect("opens again");
    assert_eq!((report.samples, report.series), (10, 10));
    assert_eq!(count(&content(&db, &TenantId::default())), 10);
}

#[test]
fn a_directory_of_something_else_stays_as_it_is() {
    let machine = Machine::new();
    machine.fs.create_dir_all(Path::new(DIR)).expect("made");
    machine.fs.put(&Path::new(DIR).join("thesis.tex"), b"years of work".to_vec());
    let error = refused(&machine);
    assert!(
        matches!(&error, Error::NotADataDirectory { example, .. } if example == "thesis.tex"),
        "{error:?}"
    );
    assert!(error.to_string().contains(DIR) && error.to_string().contains("thesis.tex"), "{error}");
    assert_eq!(machine.fs.list(Path::new(DIR)).expect("listed"), ["thesis.tex"]);
}

#[test]
fn a_directory_of_another_version_stays_as_it_is() {
    let machine = Machine::new();
    machine.open(quick()).0.close().expect("closes");
    let format = Path::new(DIR).join("format");
    let ours = String::from_utf8(machine.fs.read(&format).expect("written")).expect("text");
    let theirs = ours.replace('2', "9");
    assert_ne!(ours, theirs);
    machine.fs.put(&format, theirs.clone().into_bytes());
    let error = refused(&machine);
    assert!(matches!(&error, Error::ForeignVersion { got, .. } if got == theirs.trim_end()), "{error:?}");
    assert_eq!(machine.fs.read(&format).expect("there"), theirs.into_bytes());
}

#[test]
fn a_read_only_directory_is_a_clear_error() {
    for (op, fault) in
        [(Op::CreateDir, Fault::ReadOnly), (Op::Lock, Fault::ReadOnly), (Op::Create, Fault::Denied)]
    {
        let machine = Machine::new();
        machine.fs.fail(op, 1, u64::MAX, fault);
        let error = refused(&machine);
        let cause = error.source().map(ToString::to_string).unwrap_or_default();
        assert!(cause.contains("read-only") || cause.contains("permission denied"), "{error:?}");
        assert!(cause.contains(DIR) && error.to_string().contains("data"), "{error}: {cause}");
    }
}

#[test]
fn a_closed_database_takes_nothing_and_still_answers() {
    let machine = Machine::new();
    let (db, _) = machine.open(quick());
    let tenant = TenantId::default();
    let unwaited = append(&db, &tenant, &scrape("m", 5, NOW, 1.0)).expect("taken");
    db.close().expect("closes");
    db.close().expect("closing again is fine");
    unwaited.ticket.wait().expect("closing made it durable");
    let refused = append(&db, &tenant, &scrape("m", 5, NOW + 1, 1.0));
    assert!(matches!(refused, Err(StorageError::Unavailable { .. })));
    assert_eq!(count(&content(&db, &tenant)), 5);
    let (db, report) = machine.open(quick());
    assert_eq!(report.samples, 5);
    assert_eq!(count(&content(&db, &tenant)), 5);
}
