//! Prometheus itself: whether it takes the rules, and whether the panels show something once it has
//! scraped a gauntlet.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Write, stderr},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use portcullis_core::clock;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{task::spawn_blocking, time::sleep};
use ureq::Agent;

use crate::{
    pages::{Dashboard, Expression, asked_by_panels, dashboards, docs, rules, substituted},
    promql::asked,
    served::Served,
};

/// With this set to `required`, a machine without Prometheus is a failure.
const REQUIRED: &str = "PORTCULLIS_PROMETHEUS";

/// What never happens in a gauntlet, and why.
const RARE: [(&str, &str); 5] = [
    ("rpc_client_call_duration_seconds", "nobody speaks gRPC"),
    (
        "portcullis_retry_resent_total",
        "every request is read by the upstream, or no connection is made",
    ),
    ("portcullis_breaker_would_reject_total", "no breaker is disabled"),
    ("portcullis_key_overflowed_total", "there is one host"),
    ("portcullis_span_exported_total", "there is no collector"),
];

/// Until everything has happened: some laps, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(120);

/// A Prometheus that scrapes one program. It is killed when this is dropped.
struct Prometheus {
    child: Child,
    url: String,
    agent: Agent,
    _folder: TempDir,
}

/// Whether both of its programs are there; says so aloud if not.
fn is_installed() -> bool {
    let runs = |program: &str| {
        let mut command = Command::new(program);
        command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let there = runs("prometheus") && runs("promtool");
    let required = std::env::var(REQUIRED).is_ok_and(|value| value == "required");
    assert!(there || !required, "prometheus and promtool are to be there, and are not");
    if !there {
        // Not captured, as what tests print is.
        let _ = writeln!(
            stderr(),
            "SKIPPED: prometheus and promtool are not installed (Debian's package `prometheus`)"
        );
    }
    there
}

fn promtool(words: &[&str]) -> String {
    let folder = docs("prometheus");
    let done = Command::new("promtool").args(words).current_dir(folder).output().unwrap();
    let told = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "promtool {words:?}: {told}");
    told.into_owned()
}

// ===== impl Prometheus =====

impl Prometheus {
    /// Starts one on a free port, which scrapes `target` every second.
    fn start(target: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("prometheus.yml");
        fs::write(&config, Self::config(target)).unwrap();
        let mut child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .args(["--web.listen-address=127.0.0.1:0", "--log.format=json"])
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut told = Vec::new();
        let address = log.by_ref().map_while(Result::ok).find_map(|line| {
            let entry: Value = serde_json::from_str(&line).unwrap_or_default();
            told.push(line);
            let listens = entry["msg"] == "Listening on";
            listens.then(|| entry["address"].as_str().unwrap_or_default().to_owned())
        });
        let address = address.unwrap_or_else(|| panic!("it does not listen: {told:#?}"));
        // What it goes on to say must be read, or it would wait.
        std::thread::spawn(move || log.for_each(drop));
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(30)))
            .build()
            .into();
        Self { child, url: format!("http://{address}"), agent, _folder: folder }
    }

    fn config(target: &str) -> String {
        let rules = docs("prometheus/portcullis.rules.yml");
        let rules = fs::canonicalize(rules).unwrap();
        format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
             rule_files: ['{}']\n\
             scrape_configs:\n\
             - {{job_name: gauntlet, static_configs: [{{targets: ['{target}']}}]}}\n",
            rules.display()
        )
    }

    fn get(&self, path: &str, query: &[(&str, &str)]) -> Value {
        let asked = self.agent.get(format!("{}{path}", self.url));
        let asked = query.iter().fold(asked, |asked, (key, value)| asked.query(key, value));
        let Ok(mut answer) = asked.call() else { return Value::Null };
        serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap_or_default()
    }

    /// What an expression comes to now: whether anything that is a number.
    ///
    /// # Panics
    ///
    /// If it is no expression.
    fn shows(&self, expr: &str) -> bool {
        let answer = self.get("/api/v1/query", &[("query", expr)]);
        assert_ne!(answer["errorType"], "bad_data", "{expr}: {answer}");
        let series = answer["data"]["result"].as_array();
        series.into_iter().flatten().any(|it| it["value"][1].as_str().is_some_and(|it| it != "NaN"))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_rules_are_sound_and_fire_when_they_must() {
    if !is_installed() {
        return;
    }
    let checked = promtool(&["check", "rules", "portcullis.rules.yml"]);
    assert!(checked.contains(&format!("{} rules found", rules().len())), "{checked}");
    promtool(&["test", "rules", "portcullis.test.yml"]);
}

#[test]
fn every_alert_is_tested() {
    let tests = fs::read_to_string(docs("prometheus/portcullis.test.yml")).unwrap();
    for (name, _) in rules() {
        let tested = match name.contains(':') {
            true => tests.contains(&format!("{name}{{")) || tests.contains(&format!("{name})")),
            false => tests.contains(&format!("alertname=\"{name}\"")),
        };
        assert!(tested, "{name} is not tested");
    }
}

#[test]
fn the_page_speaks_of_every_alert_and_every_panel() {
    let page = fs::read_to_string(docs("dashboards.md")).unwrap();
    for (name, _) in rules().iter().filter(|(name, _)| !name.contains(':')) {
        assert!(page.contains(&format!("`{name}`")), "{name} is not in the page");
    }
    let boards = dashboards();
    let panels = boards.iter().flat_map(Dashboard::panels);
    let titles: BTreeSet<_> = panels.map(|panel| panel["title"].as_str().unwrap()).collect();
    let rows = page.lines().filter(|line| line.starts_with('|'));
    let named: BTreeSet<_> = rows.flat_map(|row| row.split('*').skip(1).step_by(2)).collect();
    assert_eq!(named, titles);
}

/// Why there is nothing to see for an expression, if that is as it should be.
fn rare(expression: &Expression) -> Option<&'static str> {
    let selectors = asked(&expression.expr).selectors;
    let of = |metric: &str| selectors.iter().any(|selector| selector.name.starts_with(metric));
    RARE.iter().find(|(metric, _)| of(metric)).map(|(_, why)| *why)
}

#[tokio::test]
async fn a_gauntlet_fills_every_panel() {
    if !is_installed() {
        return;
    }
    let (gauntlet, prometheus) = spawn_blocking(|| {
        let gauntlet = Served::start(10);
        let target = gauntlet.url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        (gauntlet, Prometheus::start(&target))
    })
    .await
    .unwrap();

    let until = clock::now() + PATIENCE;
    let (rare, mut empty): (Vec<_>, Vec<_>) =
        asked_by_panels().into_iter().partition(|panel| rare(panel).is_some());
    assert!(empty.len() > 3 * rare.len());
    empty = shown(&prometheus, empty, until).await;
    assert!(empty.is_empty(), "nothing to see for {empty:#?}");
    // What never happens is asked in words that Prometheus understands, all the same.
    for panel in rare {
        assert!(!prometheus.shows(&substituted(&panel.expr)), "{panel:?} is not rare");
    }

    let targets = prometheus.get("/api/v1/label/portcullis_target/values", &[]);
    assert_eq!(targets["data"], serde_json::json!(["convert", "render", "upstream"]));
    let all = prometheus.get("/api/v1/rules", &[]);
    let groups = all["data"]["groups"].as_array().unwrap().iter();
    let all: Vec<_> = groups.flat_map(|group| group["rules"].as_array().unwrap()).collect();
    assert_eq!(all.len(), rules().len());
    for rule in all {
        assert_eq!(rule["health"], "ok", "{rule}");
        if rule["type"] == "alerting" {
            assert!(
                ["critical", "warning", "info"]
                    .map(Value::from)
                    .contains(&rule["labels"]["severity"])
            );
            for text in ["summary", "description"] {
                assert!(
                    rule["annotations"][text].as_str().is_some_and(|it| it.len() > 20),
                    "{rule}"
                );
            }
        }
    }
    assert_eq!(spawn_blocking(|| gauntlet.terminate()).await.unwrap().0.code(), Some(0));
}

/// What is left of these once each was looked at until it showed something, or the time was up.
async fn shown(
    prometheus: &Prometheus,
    mut empty: Vec<Expression>,
    until: Instant,
) -> Vec<Expression> {
    while !empty.is_empty() && clock::now() < until {
        // It scrapes once a second.
        sleep(Duration::from_millis(500)).await;
        empty.retain(|panel| !prometheus.shows(&substituted(&panel.expr)));
    }
    empty
}
