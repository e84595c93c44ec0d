//! What is compared, row by row.

mod http;
mod layers;
pub(crate) mod limits;
mod observed;
mod pending;
mod refusals;
mod stacks;
mod traces;
mod windows;

pub(crate) use self::http::NO_STACK;
use crate::measure::{Contest, Effort};

/// A row, or a few with the same name, that can be made.
pub(crate) struct Plan {
    pub(crate) group: &'static str,
    pub(crate) name: String,
    pub(crate) make: Box<dyn FnOnce(Effort) -> Contest>,
}

impl Plan {
    fn new(
        group: &'static str,
        name: impl Into<String>,
        make: impl FnOnce(Effort) -> Contest + 'static,
    ) -> Self {
        Self { group, name: name.into(), make: Box::new(make) }
    }
}

/// All, in the order they are shown.
pub(crate) fn all() -> Vec<Plan> {
    let groups = [
        layers::plans(),
        stacks::plans(),
        observed::plans(),
        windows::plans(),
        limits::plans(),
        pending::plans(),
        refusals::plans(),
        traces::plans(),
        http::plans(),
    ];
    groups.into_iter().flatten().collect()
}
