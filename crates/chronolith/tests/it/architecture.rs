//! The crate graph is the one in ARCHITECTURE.md.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

type Graph = BTreeMap<String, BTreeSet<String>>;

fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace root exists")
}

/// Layer and dependencies per crate, from the table in ARCHITECTURE.md.
fn documented() -> (Graph, BTreeMap<String, String>) {
    let text = std::fs::read_to_string(workspace_root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let mut graph = Graph::new();
    let mut layers = BTreeMap::new();
    for line in text.lines() {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, layer, name, deps, _, _, _] = cells[..] else { continue };
        let Some(name) = name.strip_prefix('`').and_then(|name| name.strip_suffix('`')) else { continue };
        let deps = deps.split_whitespace().filter(|dep| *dep != "-").map(str::to_owned).collect();
        graph.insert(name.to_owned(), deps);
        layers.insert(name.to_owned(), layer.to_owned());
    }
    (graph, layers)
}

fn metadata() -> serde_json::Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(workspace_root())
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Normal dependencies between the crates under `crates/`, from cargo.
fn actual() -> Graph {
    let metadata = metadata();
    let crates_dir = workspace_root().join("crates");
    let mut graph = Graph::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let manifest = Path::new(package["manifest_path"].as_str().expect("a path"));
        if !manifest.starts_with(&crates_dir) {
            continue;
        }
        let folder =
            manifest.parent().and_then(Path::file_name).expect("a folder").to_string_lossy().into_owned();
        let deps = package["dependencies"].as_array().expect("dependencies").iter();
        let deps = deps.filter(|dep| dep["kind"].is_null()).filter_map(|dep| dep["name"].as_str());
        let deps = deps.filter_map(|name| name.strip_prefix("chronolith-")).map(str::to_owned).collect();
        graph.insert(folder, deps);
    }
    graph
}

#[test]
fn the_crate_graph_is_the_documented_one() {
    let (documented, _) = documented();
    let actual = actual();
    assert!(actual.len() > 10, "cargo metadata lists the crates: {actual:?}");
    assert_eq!(documented, actual, "left: ARCHITECTURE.md, right: the Cargo.toml files");
}

#[test]
fn arrows_point_down() {
    let (graph, layers) = documented();
    for (name, deps) in graph {
        let Ok(layer) = layers[&name].parse::<u32>() else { continue };
        for dep in deps {
            let Ok(below) = layers[&dep].parse::<u32>() else {
                assert_eq!(
                    (name.as_str(), dep.as_str()),
                    ("chronolith", "testkit"),
                    "only the binary uses testkit"
                );
                continue;
            };
            assert!(below < layer, "{name} (layer {layer}) depends on {dep} (layer {below})");
        }
    }
}

/// The files below `dir`, those of tests left out.
fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.file_stem().is_some_and(|stem| stem == "tests") {
            continue;
        }
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn engine_crates_reach_the_outside_through_env() {
    const OUTSIDE: [&str; 7] = [
        "std::fs",
        "SystemTime::now",
        "Instant::now",
        "thread::spawn",
        "thread::Builder",
        "thread::sleep",
        "getrandom",
    ];
    // The two that ARCHITECTURE.md names.
    const ALLOWED: [(&str, &str); 2] = [("wal", "Instant::now"), ("promql", "Instant::now")];
    let (_, layers) = documented();
    // From the layer of `server` on, the outside is the business of the crate.
    let engine = layers
        .iter()
        .filter(|(name, layer)| layer.parse::<u32>().is_ok_and(|layer| layer < 5) && name.as_str() != "env");
    let mut met = BTreeSet::new();
    for (name, _) in engine {
        let mut files = Vec::new();
        sources(&workspace_root().join("crates").join(name).join("src"), &mut files);
        assert!(!files.is_empty(), "{name}");
        for path in files {
            let text = std::fs::read_to_string(&path).expect("a source");
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            for word in OUTSIDE.into_iter().filter(|word| code.contains(word)) {
                assert!(ALLOWED.contains(&(name, word)), "{} names {word}: that is env's", path.display());
                met.insert((name.clone(), word));
            }
        }
    }
    assert_eq!(met.len(), ALLOWED.len(), "an exception that nobody takes any more: {met:?}");
}

/// Crates from outside that any member names, in any kind of dependency.
fn outside_dependencies() -> BTreeSet<String> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages").iter();
    let deps = packages.flat_map(|package| package["dependencies"].as_array().expect("dependencies"));
    let names = deps.filter_map(|dep| dep["name"].as_str());
    names.filter(|name| !name.starts_with("chronolith-")).map(str::to_owned).collect()
}

#[test]
fn every_dependency_has_its_line_of_reason() {
    let text =
        std::fs::read_to_string(workspace_root().join("docs/dependencies.md")).expect("dependencies.md");
    let mut documented = BTreeSet::new();
    for line in text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| crate ")) {
        let names = line.split('|').nth(1).unwrap_or_default().split(',');
        documented.extend(names.filter_map(|name| name.split_whitespace().next()).map(str::to_owned));
    }
    // Of the fuzz targets' workspace, which cargo metadata does not list here.
    documented.remove("libfuzzer-sys");
    assert_eq!(documented, outside_dependencies(), "left: docs/dependencies.md, right: the Cargo.toml files");
}

#[test]
fn no_workspace_dependency_is_unused() {
    let manifest = std::fs::read_to_string(workspace_root().join("Cargo.toml")).expect("Cargo.toml");
    let (_, table) = manifest.split_once("[workspace.dependencies]").expect("the table");
    let table = table.split("\n[").next().unwrap_or_default();
    let names = table.lines().filter_map(|line| line.split_once(" =")).map(|(name, _)| name.to_owned());
    let listed: BTreeSet<_> = names.filter(|name| !name.starts_with("chronolith-")).collect();
    assert_eq!(listed, outside_dependencies(), "left: [workspace.dependencies], right: what members name");
}
