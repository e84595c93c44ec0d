//! An [`Admin`] in the making.

use std::{fmt, sync::Arc};

use portcullis_core::{Invalid, Registry};
use portcullis_trace::TraceStore;

use crate::{
    Admin,
    admin::{Shared, Text},
};

/// An [`Admin`] in the making: see [`Admin::builder`].
#[must_use = "a builder does nothing until `build`"]
pub struct AdminBuilder {
    title: String,
    registry: Registry,
    store: Option<Arc<dyn TraceStore>>,
    token: Option<String>,
    prometheus: Option<Text>,
}

// ===== impl AdminBuilder =====

impl AdminBuilder {
    pub(crate) fn new() -> Self {
        Self {
            title: "Portcullis".to_owned(),
            registry: Registry::new(),
            store: None,
            token: None,
            prometheus: None,
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

    /// What whoever changes something has to show, as `Authorization: Bearer …`. Unless it is set nothing
    /// can be changed.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// The metrics as text for Prometheus, made whenever they are asked for.
    pub fn prometheus(mut self, text: impl Fn() -> Option<String> + Send + Sync + 'static) -> Self {
        self.prometheus = Some(Box::new(text));
        self
    }

    /// The whole of it.
    ///
    /// # Errors
    ///
    /// If a setting is out of its range.
    pub fn build(self) -> Result<Admin, Invalid> {
        let Self { title, registry, store, token, prometheus } = self;
        Ok(Admin(Arc::new(Shared { title, registry, store, token, prometheus })))
    }
}

impl fmt::Debug for AdminBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminBuilder")
            .field("title", &self.title)
            .field("registry", &self.registry)
            .finish_non_exhaustive()
    }
}
