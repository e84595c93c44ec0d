//! What Prometheus and Grafana are told to ask: the files in `docs`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

/// One dashboard.
pub(crate) struct Dashboard {
    pub(crate) file: String,
    pub(crate) json: Value,
}

/// An expression, and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Expression {
    pub(crate) place: String,
    pub(crate) expr: String,
    pub(crate) legend: String,
}

pub(crate) fn docs(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(path)
}

/// All dashboards.
pub(crate) fn dashboards() -> Vec<Dashboard> {
    let files = fs::read_dir(docs("grafana")).unwrap();
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    let read = |path: PathBuf| Dashboard {
        file: path.file_name().unwrap().to_string_lossy().into_owned(),
        json: serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap(),
    };
    let all: Vec<_> = paths.into_iter().map(read).collect();
    assert!(!all.is_empty());
    all
}

/// What panels of all dashboards ask, as it is written there.
pub(crate) fn asked_by_panels() -> Vec<Expression> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let of_panel = |file: &str, panel: &Value| -> Vec<Expression> {
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        let of_target = |target: &Value| Expression {
            place: format!("{file}: {}", text(&panel["title"])),
            expr: text(&target["expr"]),
            legend: text(&target["legendFormat"]),
        };
        targets.iter().map(of_target).collect()
    };
    let of_dashboard = |dashboard: Dashboard| -> Vec<Expression> {
        dashboard.panels().flat_map(|panel| of_panel(&dashboard.file, panel)).collect()
    };
    dashboards().into_iter().flat_map(of_dashboard).collect()
}

/// What the rules ask, in the order of the file: name and expression.
pub(crate) fn rules() -> Vec<(String, String)> {
    let text = fs::read_to_string(docs("prometheus/portcullis.rules.yml")).unwrap();
    let mut lines = text.lines().peekable();
    let mut rules: Vec<(String, String)> = Vec::new();
    while let Some(line) = lines.next() {
        let begins = line.trim_start().strip_prefix("- ").and_then(|rest| rest.split_once(": "));
        if let Some(("record" | "alert", name)) = begins {
            rules.push((name.to_owned(), String::new()));
        }
        if line.trim() == "expr: |" {
            let depth = line.len() - line.trim_start().len();
            let (_, expr) = rules.last_mut().expect("a rule has its name first");
            let inside = |line: &&str| line.len() - line.trim_start().len() > depth;
            while let Some(line) = lines.next_if(inside) {
                expr.push_str(line.trim());
                expr.push(' ');
            }
        }
    }
    for (name, expr) in &rules {
        assert!(!expr.is_empty(), "{name} has no expression");
    }
    rules
}

/// An expression as Grafana would send it, all that can be chosen being chosen.
pub(crate) fn substituted(expr: &str) -> String {
    let values =
        [("$__rate_interval", "20s"), ("$__range", "1m"), ("$job", ".+"), ("$target", ".*")];
    let expr = values.iter().fold(expr.to_owned(), |expr, (name, value)| expr.replace(name, value));
    assert!(!expr.contains('$'), "{expr}");
    expr
}

// ===== impl Dashboard =====

impl Dashboard {
    /// Its panels, rows left out.
    pub(crate) fn panels(&self) -> impl Iterator<Item = &Value> {
        self.json["panels"].as_array().into_iter().flatten().filter(|panel| panel["type"] != "row")
    }
}

#[test]
fn a_dashboard_can_be_imported_and_says_what_its_panels_answer() {
    let mut known = BTreeMap::new();
    for dashboard in dashboards() {
        let Dashboard { file, json } = &dashboard;
        assert!(json["schemaVersion"].as_u64() >= Some(39), "{file}");
        assert!(json["id"].is_null(), "{file}: an id is given by whoever imports it");
        let uid = json["uid"].as_str().unwrap().to_owned();
        assert_eq!(known.insert(uid, file.clone()), None, "{file}: its uid is another's");

        let variables = json["templating"]["list"].as_array().unwrap();
        let variable = |name: &str| variables.iter().find(|it| it["name"] == name).unwrap();
        assert_eq!(variable("datasource")["type"], "datasource");
        assert_eq!(variable("target")["multi"], true);
        let source = serde_json::json!({"type": "prometheus", "uid": "${datasource}"});

        let mut ids = Vec::new();
        for panel in json["panels"].as_array().unwrap() {
            let title = &panel["title"];
            ids.push(panel["id"].as_u64().unwrap());
            let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            assert!(place("x") + place("w") <= 24, "{file}: {title} is beyond the edge");
            let kind = panel["type"].as_str().unwrap();
            let built_in = ["heatmap", "row", "stat", "state-timeline", "table", "timeseries"];
            assert!(built_in.contains(&kind), "{file}: {title} is a {kind}, which is a plugin");
            if kind == "row" {
                continue;
            }
            assert_eq!(panel["datasource"], source, "{file}: {title}");
            let description = panel["description"].as_str().unwrap_or_default();
            assert!(description.ends_with('.'), "{file}: {title} is not described");
            let unit = &panel["fieldConfig"]["defaults"]["unit"];
            assert!(unit.is_string() || kind == "table" || kind == "heatmap", "{file}: {title}");
            for target in panel["targets"].as_array().unwrap() {
                assert_eq!(target["datasource"], source, "{file}: {title}");
            }
        }
        ids.sort_unstable();
        let all = ids.len();
        ids.dedup();
        assert_eq!(ids.len(), all, "{file}: two panels have one id");
    }
}

#[test]
fn panels_do_not_lie_on_each_other() {
    for Dashboard { file, json } in dashboards() {
        let mut taken = BTreeMap::new();
        for panel in json["panels"].as_array().unwrap() {
            let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            for x in place("x")..place("x") + place("w") {
                for y in place("y")..place("y") + place("h") {
                    let before = taken.insert((x, y), panel["title"].to_string());
                    assert_eq!(before, None, "{file}: {} lies on it", panel["title"]);
                }
            }
        }
    }
}
