//! A browser without a window, and what is done with the page in it.

use std::{env, io::Write, sync::Arc};

use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::driver::{Driver, Programs};

/// Says that a missing browser is a failure.
const REQUIRED: &str = "PORTCULLIS_BROWSER";
/// How long a condition may take to come about, in ms: more than any of them, on the slowest machine.
const PATIENCE_MS: u32 = 30_000;

/// A browser without a window. It ends with this, on a panic as well.
#[derive(Clone, Debug)]
pub struct Chrome {
    driver: Arc<Driver>,
}

// ===== impl Chrome =====

impl Chrome {
    /// Starts it, if it is installed; says so where it is not.
    ///
    /// # Panics
    ///
    /// If it does not start, or if it is not installed and `PORTCULLIS_BROWSER` is `required`.
    pub async fn start() -> Option<Self> {
        let programs = match Programs::find() {
            Ok(programs) => programs,
            Err(missing) => {
                let required = env::var_os(REQUIRED).is_some_and(|value| value == "required");
                assert!(!required, "{missing} is not installed");
                // Not by a macro of the test harness's, which would keep it from being seen.
                let _ = writeln!(
                    std::io::stderr(),
                    "SKIPPED: {missing} is not installed, so the page is not tried in a browser \
                     (Debian: apt-get install chromium chromium-driver)"
                );
                return None;
            }
        };
        let driver = tokio::task::spawn_blocking(move || Driver::start(&programs)).await;
        let driver = driver.expect("the driver starts without a panic");
        Some(Self { driver: Arc::new(driver.expect("the browser starts")) })
    }

    async fn try_command(&self, path: &'static str, body: Value) -> anyhow::Result<Value> {
        let driver = self.driver.clone();
        tokio::task::spawn_blocking(move || driver.command(path, &body)).await?
    }

    async fn command(&self, path: &'static str, body: Value) -> Value {
        match self.try_command(path, body).await {
            Ok(value) => value,
            Err(error) => panic!("the browser refuses: {error:#}"),
        }
    }

    async fn developer(&self, command: &str, params: Value) -> Value {
        self.command("goog/cdp/execute", json!({ "cmd": command, "params": params })).await
    }

    /// Gives it a window of this size, and what its user prefers: `light` or `dark`.
    pub async fn resize(&self, width: u32, height: u32, scheme: &str) {
        // Below some width it is a telephone.
        let metrics = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600,
        });
        self.developer("Emulation.setDeviceMetricsOverride", metrics).await;
        let prefers = json!({ "features": [
            { "name": "prefers-color-scheme", "value": scheme },
            { "name": "prefers-reduced-motion", "value": "reduce" },
        ] });
        self.developer("Emulation.setEmulatedMedia", prefers).await;
    }

    /// Goes to an address.
    pub async fn open(&self, url: &str) {
        self.command("url", json!({ "url": url })).await;
    }

    /// What a script in the page returns.
    pub async fn run(&self, script: &str) -> Value {
        self.command("execute/sync", json!({ "script": script, "args": [] })).await
    }

    /// Waits until an expression is true in the page, and returns what it has become.
    ///
    /// # Panics
    ///
    /// If it is not within half a minute.
    pub async fn until(&self, expression: &str) -> Value {
        let script = format!(
            "const done = arguments[0], began = performance.now();
             (function look() {{
               let value, error = null;
               try {{ value = {expression}; }} catch (thrown) {{ error = String(thrown); }}
               if (value) return done({{ value }});
               if (performance.now() - began > {PATIENCE_MS})
                 return done({{ error, at: location.href, seen: document.querySelector('main').innerText.slice(-600) }});
               setTimeout(look, 25);
             }})()"
        );
        let mut answer =
            self.command("execute/async", json!({ "script": script, "args": [] })).await;
        match answer.get_mut("value") {
            Some(value) => value.take(),
            None => panic!("it never came about that {expression}: {answer:#}"),
        }
    }

    /// Waits until the text of the first element that matches has this in it.
    pub async fn sees(&self, selector: &str, words: &str) {
        let [selector, words] = [selector, words].map(|text| Value::from(text).to_string());
        self.until(&format!(
            "[...document.querySelectorAll({selector})].some((it) => it.innerText?.includes({words}))"
        ))
        .await;
    }

    /// The texts of all elements that match.
    pub async fn texts(&self, selector: &str) -> Vec<String> {
        let selector = Value::from(selector).to_string();
        let script = format!(
            "return [...document.querySelectorAll({selector})].map((it) => it.textContent)"
        );
        let texts = self.run(&script).await;
        texts
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    }

    /// Clicks on the first element that matches, as a person would: where it is, if nothing is over it.
    pub async fn click(&self, selector: &str) {
        let element = self.element(selector).await;
        // In the middle: not below what stands still while the page scrolls.
        let quoted = Value::from(selector).to_string();
        self.run(&format!(
            "document.querySelector({quoted}).scrollIntoView({{ block: 'center' }})"
        ))
        .await;
        let driver = self.driver.clone();
        let clicked = tokio::task::spawn_blocking(move || {
            driver.command(&format!("element/{element}/click"), &json!({}))
        });
        let clicked = clicked.await.expect("no panic");
        clicked.unwrap_or_else(|error| panic!("{selector} cannot be clicked: {error:#}"));
    }

    async fn element(&self, selector: &str) -> String {
        let quoted = Value::from(selector).to_string();
        self.until(&format!("document.querySelector({quoted})?.checkVisibility()")).await;
        let find = json!({ "using": "css selector", "value": selector });
        let found = self.command("element", find).await;
        let id = found.as_object().and_then(|object| object.values().next());
        id.and_then(Value::as_str).expect("an element has an id").to_owned()
    }

    /// Types into whatever has the focus. Keys without a character have their WebDriver codes, such as
    /// [`Chrome::TAB`].
    pub async fn press(&self, keys: &str) {
        let strokes = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key })));
        let strokes: Vec<Value> = strokes.collect();
        let actions =
            json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": strokes }] });
        self.command("actions", actions).await;
    }

    /// Moves the pointer to a place in the window.
    pub async fn point(&self, x: i64, y: i64) {
        let moved = json!({ "type": "pointerMove", "duration": 0, "x": x, "y": y });
        let actions = json!({ "actions": [{
            "type": "pointer", "id": "mouse", "parameters": { "pointerType": "mouse" },
            "actions": [moved],
        }] });
        self.command("actions", actions).await;
    }

    /// The tabulator.
    pub const TAB: &'static str = "\u{e004}";
    /// The enter key.
    pub const ENTER: &'static str = "\u{e007}";
    /// The escape key.
    pub const ESCAPE: &'static str = "\u{e00c}";
    /// The arrow down.
    pub const DOWN: &'static str = "\u{e015}";

    /// Goes back in the history.
    pub async fn back(&self) {
        self.command("back", json!({})).await;
    }

    /// Loads the page anew.
    pub async fn reload(&self) {
        self.command("refresh", json!({})).await;
    }

    /// What comes after the path in the address.
    pub async fn query(&self) -> String {
        self.run("return location.search").await.as_str().unwrap_or_default().to_owned()
    }

    /// What the browser had to complain about since it was last asked: errors, warnings, and whatever the
    /// policy of the page forbade.
    pub async fn complaints(&self) -> Vec<String> {
        let log = self.command("se/log", json!({ "type": "browser" })).await;
        let told = log.as_array().into_iter().flatten();
        let told =
            told.filter(|entry| matches!(entry["level"].as_str(), Some("SEVERE" | "WARNING")));
        told.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Whether a dialog of a script's is open, which none of ours ever is.
    pub async fn is_alerted(&self) -> bool {
        let driver = self.driver.clone();
        let answered =
            tokio::task::spawn_blocking(move || driver.command("alert/accept", &json!({})).is_ok());
        answered.await.unwrap_or(false)
    }

    /// By how many pixels the page is wider than its window.
    pub async fn overhang(&self) -> i64 {
        let script = "const it = document.documentElement; return it.scrollWidth - it.clientWidth";
        self.run(script).await.as_i64().expect("widths are numbers")
    }

    /// A picture of the page, as a PNG: as high as the window, or the first `height` pixels of the whole.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub async fn picture(&self, size: Option<(u32, u32)>) -> anyhow::Result<Vec<u8>> {
        let mut params = json!({ "format": "png" });
        if let Some((width, height)) = size {
            params["captureBeyondViewport"] = true.into();
            params["clip"] =
                json!({ "x": 0, "y": 0, "width": width, "height": height, "scale": 1 });
        }
        let picture = self.developer("Page.captureScreenshot", params).await;
        let data = picture["data"].as_str().context("a picture without data")?;
        Ok(STANDARD.decode(data)?)
    }
}
