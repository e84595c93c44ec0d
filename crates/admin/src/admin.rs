//! What is shown, and to whom it is told.

use std::{fmt, sync::Arc};

use axum::Router;
use portcullis_core::{Event, Observer, Registry};
use portcullis_trace::TraceStore;

use crate::{AdminBuilder, routes};

/// What the layers do, over HTTP. Clones are the same.
#[derive(Clone)]
pub struct Admin(pub(crate) Arc<Shared>);

/// Counts what layers tell, for an [`Admin`] to show: give it to stacks, or to any layer. Clones count
/// together.
#[derive(Clone)]
pub struct AdminObserver(#[expect(dead_code)] Arc<Shared>);

/// The text of the metrics, or `None` if there are none.
pub(crate) type Text = Box<dyn Fn() -> Option<String> + Send + Sync>;

pub(crate) struct Shared {
    pub(crate) title: String,
    pub(crate) registry: Registry,
    pub(crate) store: Option<Arc<dyn TraceStore>>,
    pub(crate) token: Option<String>,
    pub(crate) prometheus: Option<Text>,
}

// ===== impl Admin =====

impl Admin {
    /// Begins one that shows nothing yet.
    pub fn builder() -> AdminBuilder {
        AdminBuilder::new()
    }

    /// The routes, to nest wherever they are wanted. All addresses in the page are relative.
    pub fn router(&self) -> Router {
        routes::router(self.0.clone())
    }

    /// Counts what layers tell: to be given to stacks, or to any layer.
    #[must_use]
    pub fn observer(&self) -> AdminObserver {
        AdminObserver(self.0.clone())
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin")
            .field("title", &self.0.title)
            .field("registry", &self.0.registry)
            .field("token", &self.0.token.is_some())
            .finish_non_exhaustive()
    }
}

// ===== impl AdminObserver =====

impl Observer for AdminObserver {
    fn on_event(&self, _event: &Event<'_>) {}
}

impl fmt::Debug for AdminObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminObserver").finish_non_exhaustive()
    }
}
