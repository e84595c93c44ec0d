//! What is shown, and to whom it is told.

use std::{fmt, sync::Arc};

use axum::Router;
use portcullis_core::{Event, Observer, Registry, clock};
use portcullis_trace::{Recorder, TraceStore};

use crate::{AdminBuilder, figures::Figures, gate::Gate, live::Live, routes, token::Token};

/// What the layers do, over HTTP.
///
/// - [`router`](Self::router) is the API and the page, to nest anywhere.
/// - [`observer`](Self::observer) counts what layers tell, for it to be shown. Without one there are
///   breakers, limits and traces, but no figures of targets and no events.
///
/// Nothing runs in the background. What is read from a store is read by tokio's blocking threads, four at
/// a time.
///
/// # Clone
///
/// Clones are the same.
///
/// ```
/// use axum::Router;
/// use portcullis::{Invalid, Registry, Stack, admin::Admin};
///
/// # fn main() -> Result<(), Invalid> {
/// let registry = Registry::new();
/// let admin = Admin::builder().title("shop").registry(&registry).token("a-secret").build()?;
/// let payments = Stack::production("payments")
///     .register_in(&registry)
///     .observe(admin.observer())
///     .build()?;
/// let app: Router = Router::new().nest_service("/admin", admin.router());
/// # let _ = (payments, app);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Admin(pub(crate) Arc<Shared>);

/// Counts what layers tell, for an [`Admin`] to show: an [`Observer`] for a stack, or for any layer.
///
/// It counts every call, whatever is kept of traces. Once a target is known, an event costs a look-up of
/// its name and a few additions, and allocates nothing; a change of a breaker's state, and now and then
/// a call's end, is written down for those who read events, if there are any.
///
/// # Clone
///
/// Clones count together.
#[derive(Clone)]
pub struct AdminObserver(Arc<Shared>);

/// Makes the text of the metrics, or says that there are none.
pub(crate) type Text = Arc<dyn Fn() -> Option<String> + Send + Sync>;
/// Says whether all is well.
pub(crate) type Check = Box<dyn Fn() -> bool + Send + Sync>;

pub(crate) struct Shared {
    pub(crate) title: String,
    pub(crate) registry: Registry,
    pub(crate) store: Option<Arc<dyn TraceStore>>,
    pub(crate) token: Option<Token>,
    pub(crate) prometheus: Option<Text>,
    pub(crate) ready: Vec<(String, Check)>,
    pub(crate) figures: Figures,
    pub(crate) live: Arc<Live>,
    /// To the store, and to whoever makes the metrics: neither is to wait for the other.
    pub(crate) traces: Gate,
    pub(crate) metrics: Gate,
}

// ===== impl Admin =====

impl Admin {
    /// Begins one that shows nothing yet.
    pub fn builder() -> AdminBuilder {
        AdminBuilder::new()
    }

    /// The routes, to nest wherever they are wanted: all addresses in the page are relative. Nested by
    /// `nest_service` the page is at the folder's own address; axum's `nest` has no route there, and it
    /// is at `page.html`, where the folder's name without a slash leads to.
    ///
    /// It takes a tokio runtime, with its timer switched on, as `axum::serve` does.
    pub fn router(&self) -> Router {
        routes::router(self.0.clone())
    }

    /// Counts what layers tell: to be given to stacks, or to any layer.
    #[must_use]
    pub fn observer(&self) -> AdminObserver {
        AdminObserver(self.0.clone())
    }

    /// Sets the figures of targets and the last minutes of breakers to zero, as the API can: what is
    /// under way stays under way.
    pub fn reset_figures(&self) {
        self.0.figures.reset();
        self.0.touch();
    }

    /// Ends the connections of those who read events, and lets no other begin. A server that shuts down
    /// once all connections are done waits for them otherwise:
    ///
    /// ```
    /// use portcullis::admin::Admin;
    ///
    /// async fn serve(
    ///     listener: tokio::net::TcpListener,
    ///     admin: Admin,
    ///     stop: impl Future<Output = ()> + Send + 'static,
    /// ) -> std::io::Result<()> {
    ///     axum::serve(listener, admin.router())
    ///         .with_graceful_shutdown(async move {
    ///             stop.await;
    ///             admin.close_events();
    ///         })
    ///         .await
    /// }
    /// ```
    pub fn close_events(&self) {
        self.0.live.end();
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_as("Admin", f)
    }
}

// ===== impl AdminObserver =====

impl Observer for AdminObserver {
    fn on_event(&self, event: &Event<'_>) {
        let Shared { figures, live, .. } = &*self.0;
        if figures.on_event(event) {
            live.changed(event.at);
        }
        live.on_event(event);
    }
}

impl fmt::Debug for AdminObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_as("AdminObserver", f)
    }
}

// ===== impl Shared =====

impl Shared {
    /// All recorders that are registered, each once.
    pub(crate) fn recorders(&self) -> Vec<Recorder> {
        let mut all: Vec<Recorder> = Vec::new();
        for (_, recorder) in self.registry.all::<Recorder>() {
            if !all.iter().any(|other| other.is_same_as(&recorder)) {
                all.push(recorder);
            }
        }
        all
    }

    /// The share of remarkable-for-nothing traces that is kept, if all recorders keep the same.
    pub(crate) fn sampling_rate(&self) -> Option<f64> {
        let recorders = self.recorders();
        let rate = recorders.first()?.config().sample_rate;
        recorders.iter().all(|it| it.config().sample_rate == rate).then_some(rate)
    }

    /// Has those who read events look at the figures again.
    pub(crate) fn touch(&self) {
        self.live.changed(clock::now());
    }

    fn fmt_as(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(name)
            .field("title", &self.title)
            .field("registry", &self.registry)
            .field("figures", &self.figures)
            .finish_non_exhaustive()
    }
}
