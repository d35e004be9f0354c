use std::collections::BTreeSet;

use chronolith_storage::MemoryBudget;
use clap::CommandFactory as _;

use super::*;
use crate::{
    cli::Cli,
    serve::{db_options, engine_options, http_limits},
};

const README: &str = include_str!("../../../../README.md");

/// The configuration in the README.
fn readme_yaml() -> &'static str {
    let (_, behind) = README.split_once("these are the defaults:\n\n```yaml\n").expect("the defaults");
    behind.split_once("```").expect("the end of the block").0
}

/// `section.key` of a configuration, of those that are commented out too.
fn keys(yaml: &str) -> BTreeSet<String> {
    let mut section = String::new();
    let mut keys = BTreeSet::new();
    for line in yaml.lines() {
        if line.trim_start().starts_with("# memory: {max:") {
            keys.insert("memory.max".to_owned());
        }
        let Some((key, _)) = line.split_once(':').filter(|_| !line.trim_start().starts_with('#')) else {
            continue;
        };
        match key.strip_prefix("  ") {
            Some(key) => drop(keys.insert(format!("{section}.{key}"))),
            None => section = key.to_owned(),
        }
    }
    keys
}

#[test]
fn the_readme_has_the_defaults() {
    // What depends on the machine is told for one with plenty of memory.
    let plenty = "memory: {max: 16GiB}\n";
    let of_readme = Config::parse(&format!("{plenty}{}", readme_yaml())).expect("the README's is valid");
    assert_eq!(of_readme, Config::parse(plenty).expect("defaults"));
    assert_eq!(keys(readme_yaml()), keys(&Config::default().to_string()), "every key stands in the README");
}

#[test]
fn the_readme_has_the_flags() {
    let command = Cli::command();
    for argument in command.get_arguments().filter(|argument| argument.get_long().is_some()) {
        let long = argument.get_long().unwrap_or_default();
        let Some(row) =
            README.lines().find(|line| line.starts_with('|') && line.contains(&format!("`--{long}")))
        else {
            assert!(["help", "version"].contains(&long), "--{long} does not stand in the README");
            continue;
        };
        for default in argument.get_default_values() {
            let default = default.to_str().unwrap_or_default();
            assert!(
                default == "false" || row.contains(&format!("`{default}`")),
                "default of --{long}: {default}"
            );
        }
    }
}

#[test]
fn the_parts_have_the_same_defaults() {
    let config = Config::default();
    let (db, http) = (db_options(&config), http_limits(&config));
    let memory_bytes_max = db.memory_bytes_max;
    assert_eq!(format!("{db:?}"), format!("{:?}", DbOptions { memory_bytes_max, ..DbOptions::default() }));
    let HttpLimits { write_memory_max_bytes, answer_memory_max_bytes, .. } = http;
    let expected = HttpLimits { write_memory_max_bytes, answer_memory_max_bytes, ..HttpLimits::default() };
    assert_eq!(format!("{http:?}"), format!("{expected:?}"));
    let engine = engine_options(&config, MemoryBudget::unlimited());
    let memory_max_bytes = engine.memory_max_bytes;
    let expected = EngineOptions { memory_max_bytes, ..EngineOptions::default() };
    // Functions are shown by their addresses.
    let shown =
        |options: EngineOptions| format!("{:?}", EngineOptions { parse: Default::default(), ..options });
    assert_eq!(shown(engine), shown(expected));
    let plenty = Config::parse("memory: {max: 16GiB}").expect("valid");
    assert_eq!(db_options(&plenty).memory_bytes_max, DbOptions::default().memory_bytes_max);
    assert_eq!(plenty.query.memory_max_bytes, EngineOptions::default().memory_max_bytes);
    let http = http_limits(&plenty);
    assert_eq!(format!("{http:?}"), format!("{:?}", HttpLimits::default()));
}

fn error(text: &str) -> String {
    format!("{:#}", Config::parse(text).expect_err(text))
}

#[test]
fn printed_configuration_reads_back() {
    let mut config = Config::default();
    assert_eq!(Config::parse(&config.to_string()).expect("defaults"), config);
    config.wal_sync = WalSync::Interval(Duration::from_millis(1500));
    config.self_scrape = None;
    config.admin_api = true;
    config.cors_origins = vec!["https://a'b".to_owned(), "http://c".to_owned()];
    config.query.features = vec![Feature::ExperimentalFunctions, Feature::FillModifiers];
    config.query.log_file = Some("/var/log/a 'query'.log".into());
    assert_eq!(Config::parse(&config.to_string()).expect("changed"), config);
}

#[test]
fn an_empty_file_is_the_defaults() {
    assert_eq!(Config::parse("").expect("empty"), Config::default());
    assert_eq!(Config::parse("# nothing\n\n").expect("comments"), Config::default());
}

#[test]
fn the_parts_of_the_memory_fit_together() {
    let parts = |text: &str| {
        let config = Config::parse(text).expect(text);
        let http = config.writes_memory() + config.answers_memory();
        let sum = config.memory_limit_bytes + http + config.query.memory_max_bytes as u64;
        assert!(sum <= config.memory_max_bytes, "{text}: {sum}");
        (config.memory_limit_bytes / MIB, http / MIB, config.query.memory_max_bytes as u64 / MIB)
    };
    assert_eq!(parts("memory: {max: 128MiB}"), (64, 32, 32));
    assert_eq!(parts("memory: {max: 1GiB}"), (512, 256, 256));
    assert_eq!(parts("memory: {max: 16GiB}"), (2048, 768, 1024));
    assert_eq!(parts("memory: {max: 1GiB}\nstorage: {memory_limit: 100MiB}"), (100, 256, 668));
    assert_eq!(parts("memory: {max: 16GiB}\nquery: {memory_limit: 5GiB}"), (2048, 768, 5120));
    parts("");
    assert!(error("memory: {max: 127MiB}").contains("at least 128MiB"));
    let head = error("memory: {max: 1GiB}\nstorage: {memory_limit: 1GiB}");
    assert!(
        head.contains("storage.memory_limit: 1GiB leaves less than 16MiB of memory.max (1GiB)"),
        "{head}"
    );
    let query = error("memory: {max: 1GiB}\nquery: {memory_limit: 512MiB}");
    assert!(query.contains("query.memory_limit: 512MiB is more than memory.max (1GiB) leaves"), "{query}");
}

#[test]
fn errors_name_the_key() {
    assert!(error("storage: {retention: 15}").contains("storage.retention"));
    assert!(error("storage: {retention: 1s}").contains("at least 1h"));
    assert!(error("storage: {memory_limit: 5}").contains("storage.memory_limit"));
    assert!(error("wal: {sync: sometimes}").contains("neither always nor interval"));
    assert!(error("query: {features: [x]}").contains("known: promql-experimental-functions"));
    assert!(error("remote_write: {inflight_limit: 0}").contains("at least 1"));
    assert!(error("query: {concurrency_limit: 10001}").contains("at most 10000"));
    assert!(error("remote_write: {inflight_limit: 10001}").contains("at most 10000"));
    assert!(error("http: {connection_limit: 100001}").contains("at most 100000"));
    assert!(error("remote_write: {label_limit: 65537}").contains("at most 65536"));
    assert!(error("remote_write: {label_value_length_limit: 16777217}").contains("at most 16777216"));
    let unknown = error("wal: {}\nstorge: {}");
    assert!(unknown.starts_with("line 2 column 1: unknown field `storge`, expected one of"), "{unknown}");
    assert_eq!(unknown.matches("expected one of").count(), 2, "once told, once below the line: {unknown}");
    assert!(!unknown.contains("<input>"), "{unknown}");
    assert!(error("global: {}").contains("the configuration of Prometheus"));
    assert!(error("storage: {retenton: 1d}").contains("retenton"));
}
