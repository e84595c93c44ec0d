//! An [`Admin`] in the making.

use std::{fmt, sync::Arc};

use portcullis_core::{Invalid, Registry};
use portcullis_trace::TraceStore;

use crate::{
    Admin,
    admin::{Check, Shared, Text},
    figures::Figures,
    gate::Gate,
    live::Live,
    token::Token,
};

/// An [`Admin`] in the making: see [`Admin::builder`].
#[must_use = "a builder does nothing until `build`"]
pub struct AdminBuilder {
    title: String,
    registry: Registry,
    store: Option<Arc<dyn TraceStore>>,
    token: Option<String>,
    prometheus: Option<Text>,
    ready: Vec<(String, Check)>,
    targets: usize,
    keys: usize,
}

/// Names and keys that may have figures of their own, at most: a megabyte and a half for a thousand.
const MOST: usize = 100_000;

// ===== impl AdminBuilder =====

impl AdminBuilder {
    pub(crate) fn new() -> Self {
        Self {
            title: "Portcullis".to_owned(),
            registry: Registry::new(),
            store: None,
            token: None,
            prometheus: None,
            ready: Vec::new(),
            targets: 128,
            keys: 1024,
        }
    }

    /// What the page is headed with; `Portcullis` unless set.
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.title = title.into();
        self
    }

    /// Where breakers, limits, budgets and recorders are found, at each request. None unless set.
    pub fn registry(mut self, registry: &Registry) -> Self {
        self.registry = registry.clone();
        self
    }

    /// Where traces are read. None are shown unless it is set.
    pub fn store(self, store: impl TraceStore) -> Self {
        self.shared_store(Arc::new(store))
    }

    /// The same for a store that is shared, such as [`Recorder::store`](portcullis_trace::Recorder::store).
    pub fn shared_store(mut self, store: Arc<dyn TraceStore>) -> Self {
        self.store = Some(store);
        self
    }

    /// What whoever changes something has to show, as `Authorization: Bearer …`: visible characters of
    /// ASCII, 1 to 4096 of them. Unless it is set nothing can be changed over HTTP.
    ///
    /// What is only read takes no token: whoever reaches the router may read.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// The metrics as text for Prometheus, made whenever they are asked for, on a thread that may
    /// block. With `portcullis-otel` that is `move || telemetry.prometheus()`.
    pub fn prometheus(mut self, text: impl Fn() -> Option<String> + Send + Sync + 'static) -> Self {
        self.prometheus = Some(Arc::new(text));
        self
    }

    /// A check that has to say yes for the program to be ready. Every request to `/health/ready` asks
    /// all of them, on the runtime's thread: they are to be quick.
    ///
    /// ```
    /// use portcullis_admin::Admin;
    /// use std::sync::{Arc, atomic::{AtomicBool, Ordering}};
    ///
    /// let warm = Arc::new(AtomicBool::new(false));
    /// let is_warm = warm.clone();
    /// let admin = Admin::builder().ready("cache", move || is_warm.load(Ordering::Relaxed)).build()?;
    /// # let _ = admin;
    /// # Ok::<_, portcullis_core::Invalid>(())
    /// ```
    pub fn ready(
        mut self,
        name: impl Into<String>,
        check: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        self.ready.push((name.into(), Box::new(check)));
        self
    }

    /// Targets that have figures of their own, 1 to 100 000, 128 unless set; those beyond are counted
    /// together as `_OTHER`. Each takes 12 KB.
    pub fn targets(mut self, most: usize) -> Self {
        self.targets = most;
        self
    }

    /// Keys of breakers, of all names together, whose last minute is counted, 0 to 100 000, 1024 unless
    /// set. Each takes 1.5 KB.
    pub fn keys(mut self, most: usize) -> Self {
        self.keys = most;
        self
    }

    /// The whole of it.
    ///
    /// # Errors
    ///
    /// The first setting that is out of its range.
    pub fn build(self) -> Result<Admin, Invalid> {
        let Self { title, registry, store, token, prometheus, ready, targets, keys } = self;
        if targets == 0 || targets > MOST {
            return Err(Invalid::new("targets", targets, format!("1 to {MOST}")));
        }
        if keys > MOST {
            return Err(Invalid::new("keys", keys, format!("0 to {MOST}")));
        }
        let token = token.as_deref().map(Token::new).transpose()?;
        let figures = Figures::new(targets, keys);
        let live = Arc::new(Live::new(figures.began()));
        Ok(Admin(Arc::new(Shared {
            title,
            registry,
            store,
            token,
            prometheus,
            ready,
            figures,
            live,
            traces: Gate::new(),
            metrics: Gate::new(),
        })))
    }
}

impl fmt::Debug for AdminBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminBuilder")
            .field("title", &self.title)
            .field("registry", &self.registry)
            .field("targets", &self.targets)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}
