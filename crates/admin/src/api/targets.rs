//! Figures by target.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use portcullis_core::clock;
use portcullis_retry::Budget;
use serde::Serialize;

use crate::{
    admin::Shared, answer::Json, figures::OfTarget, params::Params, problem::Problem, words::date,
};

#[derive(Serialize)]
pub(crate) struct Targets {
    since: String,
    targets: Vec<OfTarget>,
}

pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    RawQuery(query): RawQuery,
) -> Result<Json<Targets>, Problem> {
    Params::parse(query.as_deref(), &[])?;
    let (since, mut targets) = shared.figures.look();
    let now = clock::now();
    for target in &mut targets {
        let budget = shared.registry.get::<Budget>(target.name());
        target.budget = budget.map(|budget| budget.balance(now));
    }
    Ok(Json(Targets { since: date(since), targets }))
}
