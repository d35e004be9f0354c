//! Prometheus' own scripts, in `CHRONOLITH_PROMQLTEST`: never fewer evals pass than `testdata/promql/conformance.txt`
//! says.
//!
//! To write that file anew after the engine has learnt something:
//! `CHRONOLITH_WRITE_BASELINE=1 cargo test -p chronolith-testkit conformance`

use std::{collections::BTreeMap, env, fmt::Write as _, fs};

use chronolith_testkit::{
    paths::{from_env, skip, workspace_root},
    promqltest::{Options, run_file},
};

use crate::own_scripts::scripts;

const HEADER: &str = "# Evals of Prometheus' own scripts that pass: file, evals, passed.\n";

/// `(evals, passed)` by file.
type Baseline = BTreeMap<String, (usize, usize)>;

fn parse(text: &str) -> Baseline {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
            [file, evals, passed] => {
                let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("no number in {line:?}"));
                (file.to_owned(), (number(evals), number(passed)))
            }
            _ => panic!("file, evals, passed expected: {line:?}"),
        })
        .collect()
}

#[test]
fn no_fewer_evals_pass_than_before() {
    let dir = from_env("CHRONOLITH_PROMQLTEST", "../shared/promqltest");
    if !dir.is_dir() {
        return skip("the directory of Prometheus' promqltest scripts (CHRONOLITH_PROMQLTEST)");
    }
    let mut counts = Baseline::new();
    for file in scripts(dir) {
        let name = file.file_name().expect("a file of the directory").to_string_lossy().into_owned();
        let report = run_file(&file, &Options::default());
        let mut failures = Vec::new();
        report.write(&mut failures, false).expect("a Vec takes all");
        eprint!("{}", String::from_utf8_lossy(&failures));
        eprintln!("{name}: {} of {} evals pass", report.passed(), report.evals.len());
        counts.insert(name, (report.evals.len(), report.passed()));
    }
    let total = counts.values().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
    eprintln!("total: {} of {} evals pass", total.1, total.0);

    let path = workspace_root().join("testdata/promql/conformance.txt");
    if env::var_os("CHRONOLITH_WRITE_BASELINE").is_some_and(|value| value == "1") {
        let mut text = HEADER.to_owned();
        for (file, (evals, passed)) in &counts {
            writeln!(text, "{file} {evals} {passed}").expect("a String takes all");
        }
        fs::write(&path, text).expect("the baseline is writable");
        return;
    }
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut fewer = Vec::new();
    for (file, (evals, passed)) in parse(&text) {
        let now = counts.get(&file).copied().unwrap_or((0, 0));
        if now.1 < passed || now.0 < evals {
            fewer.push(format!("{file}: {} of {} pass, the baseline has {passed} of {evals}", now.1, now.0));
        } else if now.1 > passed {
            eprintln!("{file}: {} evals pass, {passed} before: raise {}", now.1, path.display());
        }
    }
    assert!(fewer.is_empty(), "{}", fewer.join("\n"));
}
