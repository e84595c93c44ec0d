//! A browser's driver: a program that is told over HTTP what the browser shall do.

use std::{
    env,
    ffi::OsStr,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, anyhow};
use serde_json::{Value, json};
use tempfile::TempDir;

/// No command takes as long, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(90);
/// What the driver may take to end its browser.
const PARTING: Duration = Duration::from_secs(10);

/// What the browser is started with: nothing that has to do with a person, or with the outside.
const FLAGS: [&str; 10] = [
    "--headless=new",
    // In a container there may be little shared memory.
    "--disable-dev-shm-usage",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    // It ends with its driver, whatever that dies of.
    "--remote-debugging-pipe",
];

/// A driver and the one browser that it drives. Both end with it.
#[derive(Debug)]
pub(crate) struct Driver {
    process: Child,
    url: String,
    session: String,
    agent: ureq::Agent,
    profile: TempDir,
    /// Who writes to a pipe that nobody holds is killed.
    _output: Option<BufReader<ChildStdout>>,
}

/// The programs that it takes.
#[derive(Debug)]
pub(crate) struct Programs {
    driver: PathBuf,
    browser: PathBuf,
}

// ===== impl Programs =====

impl Programs {
    /// Where they are, or which is missing.
    pub(crate) fn find() -> Result<Self, &'static str> {
        let driver = on_path("chromedriver").ok_or("chromedriver")?;
        let browsers = ["chromium", "chromium-browser", "google-chrome"];
        let browser = browsers.into_iter().find_map(on_path).ok_or("chromium")?;
        Ok(Self { driver, browser })
    }
}

fn on_path(program: impl AsRef<OsStr>) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let mut places = env::split_paths(&path).map(|folder| folder.join(program.as_ref()));
    places.find(|place| place.is_file())
}

// ===== impl Driver =====

impl Driver {
    /// Starts them, on a port that is free.
    pub(crate) fn start(programs: &Programs) -> anyhow::Result<Self> {
        let profile = tempfile::tempdir()?;
        let mut process = Command::new(&programs.driver)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("{} does not start", programs.driver.display()))?;
        let mut output = process.stdout.take().map(BufReader::new);
        let port = output.as_mut().and_then(port);
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .http_status_as_error(false);
        let agent = config.build().into();
        let url = format!("http://127.0.0.1:{}", port.unwrap_or_default());
        let session = String::new();
        // From here on its end is seen to.
        let mut driver = Self { process, url, session, agent, profile, _output: output };
        port.context("the driver does not say which port it is at")?;
        driver.session = driver.begin(programs)?;
        Ok(driver)
    }

    fn begin(&self, programs: &Programs) -> anyhow::Result<String> {
        let profile = format!("--user-data-dir={}", self.profile.path().display());
        let flags: Vec<&str> = FLAGS.into_iter().chain([profile.as_str()]).collect();
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "timeouts": { "script": 60_000, "pageLoad": 60_000 },
            "unhandledPromptBehavior": "ignore",
            "goog:loggingPrefs": { "browser": "ALL" },
            "goog:chromeOptions": { "binary": programs.browser, "args": flags },
        } } });
        let session = self.send("/session", &wanted)?;
        let id = session["sessionId"].as_str().context("a session without an id")?;
        Ok(id.to_owned())
    }

    /// Has the session do something; `path` is within it.
    pub(crate) fn command(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.send(&format!("/session/{}/{path}", self.session), body)
    }

    fn send(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let request = self.agent.post(format!("{}{path}", self.url));
        let mut response = request
            .header("content-type", "application/json")
            .send(body.to_string())
            .with_context(|| format!("no answer to {path}"))?;
        let text = response.body_mut().with_config().limit(64 << 20).read_to_string()?;
        let mut answer: Value = serde_json::from_str(&text)?;
        let value = answer["value"].take();
        match value["error"].as_str() {
            Some(error) => {
                let message = value["message"].as_str().unwrap_or_default();
                Err(anyhow!("{path}: {error}: {message}"))
            }
            None => Ok(value),
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Asked to, it ends its browser first. What it does not do in time is done to it.
        let farewell = self.agent.get(format!("{}/shutdown", self.url));
        let asked = farewell.config().timeout_global(Some(PARTING)).build().call();
        if asked.is_err() {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}

/// The port that a driver says it is at.
fn port(output: &mut BufReader<ChildStdout>) -> Option<u16> {
    let told =
        output.lines().map_while(Result::ok).find(|line| line.contains("successfully on port"))?;
    told.trim_end_matches('.').rsplit(' ').next()?.parse().ok()
}
