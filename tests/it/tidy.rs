//! The house keeps its shape: who may import whom, what stays out of `domain/`, who names what.

#[path = "tidy/circles.rs"]
mod circles;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::Value;

const SERVICES: [&str; 8] = [
    "camera-svc",
    "slam-svc",
    "tile-svc",
    "checkpoint-svc",
    "drone-ingest",
    "mobile-ingest",
    "round-svc",
    "mesh-gateway",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Which dependencies count.
#[derive(Clone, Copy, PartialEq)]
enum Kinds {
    /// Those of the product.
    Normal,
    /// Those of tests and build scripts too.
    All,
}

/// Direct dependencies of every crate of ours.
fn dependencies(kinds: Kinds) -> anyhow::Result<BTreeMap<String, BTreeSet<String>>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("packages")?;
    let name = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
    Ok(packages
        .iter()
        .map(|package| {
            let direct = package["dependencies"].as_array().into_iter().flatten();
            let direct = direct
                .filter(|dependency| kinds == Kinds::All || dependency["kind"].is_null())
                .map(name);
            (name(package), direct.collect())
        })
        .collect())
}

/// Rust sources below `folder`, with their paths from the root.
fn sources(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() {
                if name != "node_modules" && name != "target" {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                let path = path
                    .strip_prefix(root())
                    .unwrap_or(&path)
                    .display()
                    .to_string();
                found.push((path, text));
            }
        }
    }
    found.sort();
    found
}

/// Folder of the sources of a service.
fn folder_of(service: &str) -> String {
    if service == "mesh-gateway" {
        "gateway".to_owned()
    } else {
        format!("services/{service}")
    }
}

#[test]
fn nobody_imports_what_the_table_forbids() -> anyhow::Result<()> {
    let ours = |name: &str| name.starts_with("sovereign-") || SERVICES.contains(&name);
    let all = dependencies(Kinds::Normal)?;
    let mut forbidden = Vec::new();
    let mut forbid = |from: &str, test: &dyn Fn(&str) -> bool| {
        for to in all.get(from).into_iter().flatten().filter(|to| test(to)) {
            forbidden.push(format!("{from} -> {to}"));
        }
    };
    forbid("sovereign-model", &|to| {
        ours(to) || ["tokio", "tonic", "prost", "serde"].contains(&to)
    });
    // Files are below everything that keeps one.
    forbid("sovereign-bus", &|to| {
        (ours(to) && to != "sovereign-disk") || to == "async-nats"
    });
    forbid("sovereign-bus-nats", &|to| {
        ours(to) && to != "sovereign-bus"
    });
    forbid("sovereign-proto", &|to| {
        (ours(to) && !["sovereign-model", "sovereign-bus"].contains(&to)) || to == "async-nats"
    });
    forbid("sovereign-disk", &ours);
    forbid("sovereign-picture", &|to| {
        ours(to) && to != "sovereign-model"
    });
    forbid("sovereign-service", &|to| {
        ours(to) && !["sovereign-model", "sovereign-bus"].contains(&to)
    });
    forbid("sovereign-objects", &|to| {
        const LIBS: [&str; 4] = [
            "sovereign-model",
            "sovereign-picture",
            "sovereign-proto",
            "sovereign-service",
        ];
        ours(to) && !LIBS.contains(&to)
    });
    forbid("sovereign-host", &|to| {
        const LIBS: [&str; 4] = [
            "sovereign-disk",
            "sovereign-bus",
            "sovereign-bus-nats",
            "sovereign-service",
        ];
        ours(to) && !LIBS.contains(&to)
    });
    forbid("sovereign-vision", &|to| {
        (ours(to) && to != "sovereign-model") || to == "tokio"
    });
    forbid("sovereign-sim", &|to| ours(to) && to != "sovereign-model");
    for service in SERVICES {
        forbid(service, &|to| {
            SERVICES.contains(&to) || to == "sovereign-bus-nats"
        });
        forbid(service, &|to| {
            ["sovereign-node", "sovereign-sim", "sovereign-tests"].contains(&to)
        });
    }
    // Their tests do not either: what spans services is in tests/.
    let all = dependencies(Kinds::All)?;
    for service in SERVICES {
        let services = all.get(service).into_iter().flatten();
        let services = services.filter(|to| SERVICES.contains(&to.as_str()));
        forbidden.extend(services.map(|to| format!("{service} -> {to}")));
    }
    ensure!(forbidden.is_empty(), "forbidden edges: {forbidden:#?}");
    Ok(())
}

#[test]
fn no_two_files_import_each_other() -> anyhow::Result<()> {
    let mut folders: Vec<String> = SERVICES.map(folder_of).to_vec();
    folders.extend(["proto", "services/sovereign-node"].map(str::to_owned));
    for entry in std::fs::read_dir(root().join("services/libs"))? {
        let name = entry?.file_name();
        folders.push(format!("services/libs/{}", name.display()));
    }
    let mut found = Vec::new();
    for folder in folders {
        let files = sources(&format!("{folder}/src"));
        let files = files.into_iter().filter_map(|(path, text)| {
            let (_, path) = path.split_once("/src/")?;
            Some((path.to_owned(), text))
        });
        let files: Vec<(String, String)> = files.collect();
        ensure!(!files.is_empty(), "{folder} has no sources");
        let circles = circles::circles(&files)?;
        found.extend(
            circles
                .iter()
                .map(|circle| (folder.clone(), circle.clone())),
        );
    }
    ensure!(found.is_empty(), "files that import each other: {found:#?}");
    Ok(())
}

#[test]
fn each_foreign_system_is_named_by_one_crate() -> anyhow::Result<()> {
    let all = dependencies(Kinds::All)?;
    for (name, allowed) in [
        ("async-nats", vec!["sovereign-bus-nats", "sovereign-tests"]),
        ("opencv", vec!["sovereign-vision"]),
        ("libp2p", vec!["mesh-gateway"]),
        ("mavlink", vec!["drone-ingest", "sovereign-sim"]),
    ] {
        let users: Vec<&String> = all
            .iter()
            .filter(|(_, direct)| direct.contains(name))
            .map(|(user, _)| user)
            .collect();
        ensure!(!users.is_empty(), "nobody uses {name}");
        for user in users {
            ensure!(allowed.contains(&user.as_str()), "{user} names {name}");
        }
    }
    Ok(())
}

#[test]
fn only_a_main_imports_the_host() {
    let mut offenders = Vec::new();
    for service in SERVICES {
        for (path, text) in sources(&folder_of(service)) {
            if text.contains("sovereign_host") && !path.ends_with("src/main.rs") {
                offenders.push(path);
            }
        }
    }
    assert!(offenders.is_empty(), "{offenders:#?}");
}

#[test]
fn a_main_has_no_logic() {
    for service in SERVICES {
        let path = root().join(folder_of(service)).join("src/main.rs");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.lines().count() <= 25, "{} is not thin", path.display());
        assert!(text.contains("sovereign_host::main"), "{}", path.display());
        let own = service.replace('-', "_");
        let code = text
            .lines()
            .map(|line| line.split("//").next().unwrap_or_default());
        for (root, _) in code.flat_map(paths) {
            let known = ["std", "sovereign_host", own.as_str()].contains(&root);
            let is_type = root.starts_with(char::is_uppercase);
            assert!(known || is_type, "{} names {root}", path.display());
        }
    }
}

/// The paths of a line of code, each as its first segment and the rest.
fn paths(line: &str) -> Vec<(&str, &str)> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (at, _) in line.match_indices("::") {
        let before = &line[..at];
        let start = before.rfind(|c| !is_name(c)).map_or(0, |space| space + 1);
        if start < at && !before[..start].ends_with("::") {
            found.push((&before[start..], &line[at + 2..]));
        }
    }
    found
}

#[test]
fn a_domain_is_pure() {
    const FOREIGN: [&str; 11] = [
        "tokio",
        "tonic",
        "prost",
        "sovereign_proto",
        "sovereign_bus",
        "::now(",
        "thread::",
        "rand::",
        "Uuid::new_",
        "std::fs",
        "std::env",
    ];
    let mut offences = Vec::new();
    let mut read = 0;
    for service in SERVICES {
        for (path, text) in sources(&folder_of(service)) {
            if !path.contains("/src/domain") {
                continue;
            }
            read += 1;
            // Tests may read recordings.
            if path.contains("tests") || path.ends_with("fixtures.rs") {
                continue;
            }
            let product = text.split("#[cfg(test)]\nmod tests {").next();
            for (number, line) in product.unwrap_or_default().lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                for word in FOREIGN.iter().filter(|word| code.contains(**word)) {
                    offences.push(format!("{path}:{}: {word}", number + 1));
                }
            }
        }
    }
    assert!(read >= SERVICES.len(), "only {read} domain files were read");
    assert!(offences.is_empty(), "{offences:#?}");
}

#[test]
fn generated_types_stay_at_the_edges() {
    // slam-svc keeps keyframes as they were published: the message is the record. The phones' edge shows what
    // it asks of others and hears on the bus.
    const EDGES: [&str; 8] = [
        "/src/wire",
        "/src/grpc.rs",
        "/src/grpc/",
        "/src/service.rs",
        "/tests.rs",
        "slam-svc/src/store.rs",
        "mobile-ingest/src/upstream.rs",
        "mobile-ingest/src/feed.rs",
    ];
    // Written by hand: names of topics, conversions with the name of the field.
    const BY_HAND: [&str; 2] = ["sovereign_proto::topics", "sovereign_proto::convert"];
    let mut offences = Vec::new();
    for service in SERVICES {
        for (path, text) in sources(&format!("{}/src", folder_of(service))) {
            if EDGES.iter().any(|edge| path.contains(edge)) {
                continue;
            }
            for (number, line) in text.lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                if code.contains("sovereign_proto") && !BY_HAND.iter().any(|w| code.contains(w)) {
                    offences.push(format!("{path}:{}", number + 1));
                }
            }
        }
    }
    assert!(offences.is_empty(), "{offences:#?}");
}

#[test]
fn every_service_has_the_one_shape() {
    for service in SERVICES {
        let folder = root().join(folder_of(service));
        for file in [
            "main", "lib", "config", "error", "metrics", "service", "grpc", "wire",
        ] {
            let file = folder.join("src").join(file);
            let there = file.with_extension("rs").is_file() || file.join("mod.rs").is_file();
            assert!(there, "{service} has no {}", file.display());
        }
        let lib = std::fs::read_to_string(folder.join("src/lib.rs")).unwrap();
        assert!(
            lib.contains("//! State: "),
            "{service} does not say who owns its state"
        );
        assert!(
            folder.join("src/domain").is_dir(),
            "{service} has no domain"
        );
        let tests = ["tests/it.rs", "tests/it/main.rs"];
        assert!(
            tests.iter().any(|test| folder.join(test).is_file()),
            "{service} has neither {tests:?}"
        );
    }
}

#[test]
fn nothing_is_left_to_be_done_later() {
    let mut offences = Vec::new();
    for folder in ["proto", "services", "gateway", "tests"] {
        for (path, text) in sources(folder) {
            if path.ends_with("it/tidy.rs") {
                continue;
            }
            for (number, line) in text.lines().enumerate() {
                for word in [
                    "todo!",
                    "unimplemented!",
                    "TODO",
                    "FIXME",
                    "XXX",
                    "#[ignore",
                ] {
                    if line.contains(word) {
                        offences.push(format!("{path}:{}: {word}", number + 1));
                    }
                }
            }
        }
    }
    assert!(offences.is_empty(), "{offences:#?}");
}
