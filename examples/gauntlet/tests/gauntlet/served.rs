//! A gauntlet that serves, and what is asked of it.

use std::{
    io::{BufRead, BufReader, Lines, Read},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use ureq::{Agent, Body, BodyReader, http::Response};

/// What changes something has to show this.
pub(crate) const TOKEN: &str = "a-token-for-this-test";

/// Longer than anything here takes, even on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(60);

/// A gauntlet that serves. It is killed when this is dropped.
pub(crate) struct Served {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// The page's, ending in a slash.
    pub(crate) url: String,
    agent: Agent,
    _folder: TempDir,
}

/// What it tells as it happens.
pub(crate) struct Events(Lines<BufReader<BodyReader<'static>>>);

/// One of them: its kind and its data.
pub(crate) type Told = (String, Value);

// ===== impl Served =====

impl Served {
    /// Starts one with laps of so many seconds, and waits until it says where it is.
    pub(crate) fn start(seconds: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_gauntlet"))
            .args(["--serve", "127.0.0.1:0", "--token", TOKEN, "--json"])
            .args(["--seconds", &seconds.to_string(), "--traces"])
            .arg(folder.path().join("traces.db"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut told = |wanted: &str| {
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            let told = line.strip_prefix(wanted).map(|rest| rest.trim().to_owned());
            told.unwrap_or_else(|| panic!("no {wanted} in {line:?}"))
        };
        let url = told("page ");
        assert_eq!(told("metrics "), format!("{url}metrics"));
        assert_eq!(told("token "), TOKEN);
        assert!(told("traces ").ends_with("traces.db"));
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .build()
            .into();
        Self { child, stdout, url, agent, _folder: folder }
    }

    pub(crate) fn get(&self, path: &str) -> Response<Body> {
        self.agent.get(format!("{}{path}", self.url)).call().unwrap()
    }

    pub(crate) fn text(&self, path: &str) -> String {
        let mut response = self.get(path);
        assert_eq!(response.status(), 200, "{path}");
        response.body_mut().read_to_string().unwrap()
    }

    pub(crate) fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.text(path)).unwrap()
    }

    /// Asks for a change, with this token if any; the status, and what came back.
    pub(crate) fn post(&self, path: &str, token: Option<&str>) -> (u16, Value) {
        let request = self.agent.post(format!("{}{path}", self.url));
        let request = match token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        };
        let mut response = request.send_empty().unwrap();
        let text = response.body_mut().read_to_string().unwrap();
        (response.status().as_u16(), serde_json::from_str(&text).unwrap_or_default())
    }

    /// Listens to what happens from now on.
    pub(crate) fn events(&self) -> Events {
        let response = self.get("api/events");
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Events(BufReader::new(response.into_body().into_reader()).lines())
    }

    /// Asks it to end, as the system would; how it ended, and the summary.
    pub(crate) fn terminate(mut self) -> (ExitStatus, Value) {
        let id = self.child.id().to_string();
        let kill = Command::new("kill").args(["-TERM", &id]).status().unwrap();
        assert!(kill.success());
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        let status = self.child.wait().unwrap();
        let summary = serde_json::from_str(rest.lines().last().unwrap_or_default());
        (status, summary.unwrap_or_else(|error| panic!("{error}: {rest}")))
    }
}

// ===== impl Events =====

impl Iterator for Events {
    type Item = Told;

    fn next(&mut self) -> Option<Told> {
        let mut kind = String::new();
        loop {
            let line = self.0.next()?.unwrap();
            if let Some(name) = line.strip_prefix("event:") {
                kind = name.trim().to_owned();
            } else if let Some(data) = line.strip_prefix("data:") {
                return Some((kind, serde_json::from_str(data).unwrap()));
            }
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It has ended already, unless a test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
