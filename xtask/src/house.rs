//! The rules of the house: who may depend on whom, and what each crate carries.
//!
//! A layer crate never imports another layer crate, nor HTTP: that is what keeps each usable alone.
//! The dependencies are read from `cargo tree`, so renamed, optional and platform-dependent ones
//! count like any other.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    manifest::Manifest,
    runner::{cargo, root},
};

const CORE: &str = "portcullis-core";
const TESTKIT: &str = "portcullis-testkit";
const LAYERS: [&str; 6] = [
    "portcullis-breaker",
    "portcullis-poll",
    "portcullis-ratelimit",
    "portcullis-retry",
    "portcullis-timeout",
    "portcullis-trace",
];
const ADMIN: &str = "portcullis-admin";
const HTTP: &str = "portcullis-http";
/// The one crate that has types of OpenTelemetry in its interface.
const OTEL: &str = "portcullis-otel";
const PROCESS: &str = "portcullis-process";
const REQWEST: &str = "portcullis-reqwest";
const SQLITE: &str = "portcullis-sqlite";
const TRACE: &str = "portcullis-trace";

/// What the page and its API show, and where they have the words from.
const SHOWN: [&str; 6] =
    [CORE, OTEL, TRACE, "portcullis-breaker", "portcullis-ratelimit", "portcullis-retry"];

/// Folders whose packages nothing depends on.
const LEAVES: [&str; 6] = ["benches", "examples", "fuzz", "simulator", "tests", "xtask"];

/// One package of the workspace.
#[derive(Debug, Default)]
pub(crate) struct Member {
    pub(crate) name: String,
    /// Relative to the root of the repository.
    pub(crate) folder: PathBuf,
    pub(crate) manifest: Manifest,
    pub(crate) has_readme: bool,
    pub(crate) has_library: bool,
    /// By name, `default` among them if there is one.
    pub(crate) features: Vec<String>,
    /// What it needs to be built, be it by default, by a feature or on one platform.
    pub(crate) normal: BTreeSet<String>,
    /// The same, and what its tests need.
    pub(crate) any: BTreeSet<String>,
}

impl Member {
    /// Whether it is one of the crates, and not a test, an example, a bench or a tool.
    pub(crate) fn is_crate(&self) -> bool {
        self.folder.starts_with("crates")
    }

    /// Whether it is one of the crates that others use.
    pub(crate) fn is_library(&self) -> bool {
        self.is_crate() && self.has_library
    }

    fn is_leaf(&self) -> bool {
        LEAVES.iter().any(|leaf| self.folder.starts_with(leaf))
    }
}

/// The packages of the workspace, as cargo sees them.
pub(crate) fn members() -> io::Result<Vec<Member>> {
    let root = root();
    let any = tree("normal,build,dev")?;
    let mut members = Vec::new();
    for package in tree("normal,build")? {
        let manifest = fs::read_to_string(package.folder.join("Cargo.toml"))?;
        members.push(Member {
            manifest: Manifest::parse(&manifest),
            has_readme: package.folder.join("README.md").is_file(),
            has_library: package.folder.join("src/lib.rs").is_file(),
            folder: package.folder.strip_prefix(&root).unwrap_or(&package.folder).to_owned(),
            normal: package.dependencies,
            any: any
                .iter()
                .find(|other| other.name == package.name)
                .map(|other| other.dependencies.clone())
                .unwrap_or_default(),
            features: package.features,
            name: package.name,
        });
    }
    Ok(members)
}

/// What the members do against the rules, a sentence each.
pub(crate) fn violations(members: &[Member]) -> Vec<String> {
    let mut found = Vec::new();
    for member in members {
        dependencies(member, members, &mut found);
        if member.is_crate() {
            furnishings(member, &mut found);
        }
    }
    found
}

fn dependencies(member: &Member, members: &[Member], found: &mut Vec<String>) {
    let name = &member.name;
    let allowed: Option<&[&str]> = match name.as_str() {
        CORE | TESTKIT => Some(&[]),
        HTTP | PROCESS => Some(&[CORE]),
        REQWEST => Some(&[CORE, HTTP]),
        SQLITE => Some(&[CORE, TRACE]),
        ADMIN => Some(&SHOWN),
        layer if LAYERS.contains(&layer) => Some(&[CORE]),
        _ => None,
    };
    for other in members.iter().filter(|other| other.name != *name) {
        if other.is_leaf() && member.any.contains(&other.name) {
            found.push(format!("{name} depends on {}, which nothing may", other.name));
        }
        if !member.normal.contains(&other.name) {
            continue;
        }
        if allowed.is_some_and(|allowed| !allowed.contains(&other.name.as_str())) {
            found.push(format!("{name} depends on {}, which is not beneath it", other.name));
        } else if member.is_crate() && other.name == TESTKIT {
            found.push(format!("{name} depends on {TESTKIT} outside its tests"));
        }
    }
    if member.is_crate() && name != OTEL {
        for dependency in member.normal.iter().filter(|other| speaks_telemetry(other)) {
            found.push(format!("{name} depends on {dependency}, which only {OTEL} may"));
        }
    }
    if name == CORE || LAYERS.contains(&name.as_str()) {
        for dependency in member.normal.iter().filter(|dependency| speaks_http(dependency)) {
            found.push(format!("{name} depends on {dependency}, and knows no HTTP"));
        }
    }
}

fn furnishings(member: &Member, found: &mut Vec<String>) {
    let Member { name, manifest, .. } = member;
    if !manifest.inherits("lints") {
        found.push(format!("{name} does not take the workspace's lints"));
    }
    if manifest.get("package.description").is_none_or(str::is_empty) {
        found.push(format!("{name} has no description"));
    }
    if manifest.get("package.readme") != Some("README.md") || !member.has_readme {
        found.push(format!("{name} has no README.md, or does not name it in its manifest"));
    }
    if !manifest.inherits("package.license") && manifest.get("package.license").is_none() {
        found.push(format!("{name} has no license"));
    }
}

/// Whether a dependency's types are those of OpenTelemetry, or of Prometheus.
fn speaks_telemetry(dependency: &str) -> bool {
    ["opentelemetry", "prometheus"].iter().any(|family| {
        let rest = dependency.strip_prefix(family);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_']))
    })
}

/// Whether a dependency is of the HTTP family.
fn speaks_http(dependency: &str) -> bool {
    ["http", "http-body", "hyper"].iter().any(|family| {
        dependency.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest == "-util")
    })
}

// ===== cargo tree =====

#[derive(Debug, PartialEq, Eq)]
struct Package {
    name: String,
    folder: PathBuf,
    features: Vec<String>,
    dependencies: BTreeSet<String>,
}

fn tree(edges: &str) -> io::Result<Vec<Package>> {
    let output = cargo([
        "tree",
        "--workspace",
        "--all-features",
        "--depth=1",
        // A package's dependencies are printed however often it was met before.
        "--no-dedupe",
        "--prefix=depth",
        "--format={p}\t{f}",
        "--target=all",
        "--edges",
        edges,
    ])
    .output()?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("cargo tree: {}", stderr.trim())));
    }
    Ok(packages(&String::from_utf8_lossy(&output.stdout)))
}

/// Reads `0name v0.1.0 (folder)` and, after a tab, its features as a package and `1name v0.1.0 …` as a
/// dependency of the package before it.
fn packages(tree: &str) -> Vec<Package> {
    let mut packages: Vec<Package> = Vec::new();
    for line in tree.lines() {
        let (depth, rest) = line.split_at(line.len().min(1));
        let (rest, features) = rest.split_once('\t').unwrap_or((rest, ""));
        let name = rest.split(' ').next().unwrap_or_default().to_owned();
        match (depth, packages.last_mut()) {
            ("0", _) => packages.push(Package {
                name,
                folder: rest
                    .rsplit_once(" (")
                    .map(|(_, folder)| Path::new(folder.trim_end_matches(')')).to_owned())
                    .unwrap_or_default(),
                features: features
                    .split(',')
                    .filter(|feature| !feature.is_empty())
                    .map(str::to_owned)
                    .collect(),
                dependencies: BTreeSet::new(),
            }),
            ("1", Some(package)) => {
                package.dependencies.insert(name);
            }
            _ => {}
        }
    }
    packages
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "[package]\ndescription = \"d\"\nlicense.workspace = true\n\
                            readme = \"README.md\"\n[lints]\nworkspace = true";

    fn member(name: &str, folder: &str, normal: &[&str], dev: &[&str]) -> Member {
        let normal: BTreeSet<String> = normal.iter().map(ToString::to_string).collect();
        Member {
            name: name.to_owned(),
            folder: folder.into(),
            manifest: Manifest::parse(MANIFEST),
            has_readme: true,
            has_library: true,
            features: Vec::new(),
            any: normal.iter().cloned().chain(dev.iter().map(ToString::to_string)).collect(),
            normal,
        }
    }

    /// The workspace's crates and leaves, in good order, with `changed` in the place of its name's.
    fn house_with(changed: Member) -> Vec<String> {
        let mut members = vec![
            member(CORE, "crates/core", &["tokio"], &[]),
            member(TESTKIT, "crates/testkit", &["tokio", "tower-service"], &[]),
            member("portcullis-breaker", "crates/breaker", &[CORE], &[TESTKIT]),
            member("portcullis-retry", "crates/retry", &[CORE], &[TESTKIT]),
            member(HTTP, "crates/http", &[CORE, "http", "http-body"], &[TESTKIT]),
            member(REQWEST, "crates/reqwest", &[CORE, HTTP, "reqwest"], &["portcullis"]),
            member("portcullis", "crates/portcullis", &[CORE, HTTP, "portcullis-retry"], &[]),
            member("integration", "tests", &["portcullis", TESTKIT], &["hyper"]),
            member("gauntlet", "examples/gauntlet", &["portcullis"], &[]),
        ];
        members.retain(|member| member.name != changed.name);
        members.push(changed);
        violations(&members)
    }

    #[test]
    fn a_house_in_order_has_no_violations() {
        assert_eq!(house_with(member(CORE, "crates/core", &["tokio"], &[])), [""; 0]);
    }

    #[test]
    fn core_and_testkit_stand_on_no_crate_of_the_house() {
        assert_eq!(
            house_with(member(CORE, "crates/core", &["portcullis-retry"], &[])),
            ["portcullis-core depends on portcullis-retry, which is not beneath it"]
        );
        assert_eq!(
            house_with(member(TESTKIT, "crates/testkit", &[CORE], &[])),
            ["portcullis-testkit depends on portcullis-core, which is not beneath it"]
        );
    }

    #[test]
    fn a_layer_imports_no_other_layer_and_no_http() {
        let breaker = |normal: &[&str], dev: &[&str]| {
            house_with(member("portcullis-breaker", "crates/breaker", normal, dev))
        };
        assert_eq!(
            breaker(&[CORE, "portcullis-retry"], &[]),
            ["portcullis-breaker depends on portcullis-retry, which is not beneath it"]
        );
        assert_eq!(breaker(&[CORE, HTTP], &[]).len(), 1);
        for http in ["http", "http-body", "http-body-util", "hyper", "hyper-util"] {
            assert_eq!(
                breaker(&[CORE, http], &[]),
                [format!("portcullis-breaker depends on {http}, and knows no HTTP")]
            );
        }
        assert!(breaker(&[CORE, "httpdate"], &["hyper", "portcullis-retry"]).is_empty());
    }

    #[test]
    fn http_stands_on_core_alone() {
        assert_eq!(
            house_with(member(HTTP, "crates/http", &[CORE, "portcullis-retry", "http"], &[])),
            ["portcullis-http depends on portcullis-retry, which is not beneath it"]
        );
    }

    #[test]
    fn a_client_stands_on_core_and_http_and_knows_no_layer() {
        assert_eq!(
            house_with(member(REQWEST, "crates/reqwest", &[CORE, HTTP, "portcullis-retry"], &[])),
            ["portcullis-reqwest depends on portcullis-retry, which is not beneath it"]
        );
        assert_eq!(house_with(member(HTTP, "crates/http", &[CORE, REQWEST], &[])).len(), 1);
    }

    #[test]
    fn a_store_of_traces_stands_on_core_and_trace() {
        let sqlite =
            |normal: &[&str]| house_with(member(SQLITE, "crates/sqlite", normal, &[TESTKIT]));
        assert!(sqlite(&[CORE, TRACE, "rusqlite"]).is_empty());
        assert_eq!(
            sqlite(&[CORE, TRACE, HTTP]),
            ["portcullis-sqlite depends on portcullis-http, which is not beneath it"]
        );
    }

    #[test]
    fn what_shows_the_layers_knows_no_client() {
        let admin = |normal: &[&str]| house_with(member(ADMIN, "crates/admin", normal, &[TESTKIT]));
        assert!(admin(&[CORE, TRACE, "portcullis-retry", "axum"]).is_empty());
        assert_eq!(
            admin(&[CORE, HTTP]),
            ["portcullis-admin depends on portcullis-http, which is not beneath it"]
        );
    }

    #[test]
    fn opentelemetry_is_in_one_crate_and_where_nothing_depends_on_it() {
        for foreign in ["opentelemetry", "opentelemetry_sdk", "opentelemetry-otlp", "prometheus"] {
            assert!(house_with(member(OTEL, "crates/otel", &[CORE, foreign], &[])).is_empty());
            assert!(
                house_with(member("gauntlet", "examples/gauntlet", &[foreign], &[])).is_empty()
            );
            assert_eq!(
                house_with(member("portcullis-retry", "crates/retry", &[CORE, foreign], &[])),
                [format!("portcullis-retry depends on {foreign}, which only portcullis-otel may")]
            );
        }
    }

    #[test]
    fn testkit_is_for_tests() {
        assert_eq!(
            house_with(member("portcullis", "crates/portcullis", &[CORE, TESTKIT], &[])),
            ["portcullis depends on portcullis-testkit outside its tests"]
        );
    }

    #[test]
    fn nothing_depends_on_a_leaf_not_even_its_tests() {
        assert_eq!(
            house_with(member("portcullis", "crates/portcullis", &[CORE], &["integration"])),
            ["portcullis depends on integration, which nothing may"]
        );
        assert_eq!(
            house_with(member("integration", "tests", &["gauntlet"], &[])),
            ["integration depends on gauntlet, which nothing may"]
        );
    }

    #[test]
    fn a_crate_carries_lints_description_readme_and_license() {
        let mut bare = member("portcullis", "crates/portcullis", &[CORE], &[]);
        bare.manifest = Manifest::parse("[package]\nname = \"portcullis\"\nreadme = \"README.md\"");
        bare.has_readme = false;
        assert_eq!(
            house_with(bare),
            [
                "portcullis does not take the workspace's lints",
                "portcullis has no description",
                "portcullis has no README.md, or does not name it in its manifest",
                "portcullis has no license",
            ]
        );
        let mut tool = member("xtask", "xtask", &[], &[]);
        tool.manifest = Manifest::parse("");
        tool.has_readme = false;
        assert_eq!(house_with(tool), [""; 0]);
    }

    #[test]
    fn reads_the_tree_that_cargo_prints() {
        let tree = "0portcullis-core v0.1.0 (/a folder/crates/core)\tdefault,serde\n\
                    1tokio v1.54.1\trt,time\n1serde_derive v1.0.0 (proc-macro)\tdefault\n\n\
                    0macros v0.1.0 (proc-macro) (/b/macros)\t\n";
        let core = Package {
            name: CORE.to_owned(),
            folder: "/a folder/crates/core".into(),
            features: ["default", "serde"].map(str::to_owned).into(),
            dependencies: ["serde_derive", "tokio"].map(str::to_owned).into(),
        };
        let macros = Package {
            name: "macros".to_owned(),
            folder: "/b/macros".into(),
            features: Vec::new(),
            dependencies: BTreeSet::new(),
        };
        assert_eq!(packages(tree), [core, macros]);
    }
}
