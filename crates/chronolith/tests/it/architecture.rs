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

/// Normal dependencies between the crates under `crates/`, from cargo.
fn actual() -> Graph {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(workspace_root())
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
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
