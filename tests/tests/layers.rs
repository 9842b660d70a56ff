//! Which package may depend on which: `ARCHITECTURE.md`'s table, held.
#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is wrong")]

use std::{collections::BTreeMap, fs, path::Path};

/// Packages that need no mention may depend on nothing of ours.
const MAY_DEPEND_ON: &[(&str, &[&str])] = &[
    ("archweld-runtime", &["archweld-metrics", "archweld-model"]),
    ("archweld-ecr", &["archweld-model", "archweld-runtime"]),
    ("archweld-builds", &["archweld-ecr", "archweld-model", "archweld-runtime"]),
    ("archweld-executable", &["archweld-model"]),
    ("plan-build", FUNCTION),
    ("start-build", FUNCTION),
    ("build-events", FUNCTION),
    ("publish", FUNCTION),
    ("reconcile", FUNCTION),
    ("report", FUNCTION),
    ("trigger-run", FUNCTION),
    ("archweld-step-functions", &["archweld-local-api", "archweld-states"]),
    ("archweld-lambda", LOCAL_SERVICE),
    ("archweld-codebuild", LOCAL_SERVICE),
    ("archweld-events", LOCAL_SERVICE),
    ("archweld-registry", LOCAL_SERVICE),
    ("archweld-scheduler", LOCAL_SERVICE),
    ("archweld-secrets", LOCAL_SERVICE),
    ("archweld-git", LOCAL_SERVICE),
    ("archweld-template", &["archweld-events", "archweld-scheduler", "archweld-secrets"]),
    ("archweld-cloud", LOCAL_HOST),
    ("archweld-console", CONSOLE),
    ("archweld-simulation", SIMULATION),
    ("archweld", COMMAND),
    ("archweld-bench", LOCAL_HOST),
    ("archweld-tests", EVERYTHING),
];
const FUNCTION: &[&str] = &[
    "archweld-aws",
    "archweld-badge",
    "archweld-builds",
    "archweld-ecr",
    "archweld-executable",
    "archweld-model",
    "archweld-runtime",
];
const LOCAL_SERVICE: &[&str] = &["archweld-local-api", "archweld-model"];
const CONSOLE: &[&str] = &[
    "archweld-badge",
    "archweld-cloud",
    "archweld-codebuild",
    "archweld-events",
    "archweld-lambda",
    "archweld-local-api",
    "archweld-model",
    "archweld-registry",
    "archweld-scheduler",
    "archweld-secrets",
    "archweld-states",
    "archweld-step-functions",
];
const LOCAL_HOST: &[&str] = &[
    "archweld-aws",
    "archweld-cloud",
    "archweld-codebuild",
    "archweld-console",
    "archweld-events",
    "archweld-git",
    "archweld-lambda",
    "archweld-local-api",
    "archweld-metrics",
    "archweld-model",
    "archweld-registry",
    "archweld-scheduler",
    "archweld-secrets",
    "archweld-states",
    "archweld-step-functions",
    "archweld-template",
];
const COMMAND: &[&str] = &[
    "archweld-aws",
    "archweld-cloud",
    "archweld-codebuild",
    "archweld-console",
    "archweld-events",
    "archweld-git",
    "archweld-lambda",
    "archweld-local-api",
    "archweld-model",
    "archweld-registry",
    "archweld-scheduler",
    "archweld-simulation",
    "archweld-secrets",
    "archweld-states",
    "archweld-step-functions",
    "archweld-template",
];
const SIMULATION: &[&str] = &[
    "archweld-cloud",
    "archweld-codebuild",
    "archweld-events",
    "archweld-git",
    "archweld-lambda",
    "archweld-local-api",
    "archweld-model",
    "archweld-registry",
    "archweld-runtime",
    "archweld-states",
    "archweld-step-functions",
    "archweld-template",
    "build-events",
    "plan-build",
    "publish",
    "reconcile",
    "report",
    "start-build",
    "trigger-run",
];
const EVERYTHING: &[&str] = &["*"];
/// The folders that hold packages.
const FOLDERS: [&str; 5] = ["crates", "functions", "local", "bench", "tests"];

fn manifests() -> BTreeMap<String, toml::Table> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut manifests = BTreeMap::new();
    for folder in FOLDERS.map(|folder| root.join(folder)) {
        let below = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        for package in below.chain([folder.clone()]) {
            let Ok(text) = fs::read_to_string(package.join("Cargo.toml")) else { continue };
            let manifest: toml::Table = text.parse().unwrap();
            let name = manifest["package"]["name"].as_str().unwrap().to_owned();
            manifests.insert(name, manifest);
        }
    }
    manifests
}

#[test]
fn packages_depend_only_on_those_below_them() {
    let manifests = manifests();
    assert!(manifests.len() > 15, "found only {:?}", manifests.keys());
    for (name, manifest) in &manifests {
        let allowed =
            MAY_DEPEND_ON.iter().find(|(known, _)| known == name).map_or(&[][..], |(_, may)| may);
        let dependencies = manifest.get("dependencies").and_then(toml::Value::as_table);
        for dependency in dependencies.into_iter().flat_map(toml::Table::keys) {
            let ours = manifests.contains_key(dependency);
            assert!(
                !ours || allowed == EVERYTHING || allowed.contains(&&**dependency),
                "{name} may not depend on {dependency}"
            );
        }
    }
}

#[test]
fn functions_link_no_configuration_chain_and_no_local_code() {
    for (name, manifest) in manifests() {
        if !MAY_DEPEND_ON.iter().any(|(known, may)| *known == name && *may == FUNCTION) {
            continue;
        }
        let dependencies = manifest["dependencies"].as_table().unwrap();
        assert!(!dependencies.contains_key("aws-config"), "{name}: start-up is a feature");
    }
}
