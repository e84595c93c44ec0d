//! Breakers with small and large windows, new and long in use: what a call costs should not depend
//! on either.

use std::{hint::black_box, time::Duration};

use benches::{
    inner::{AtOnce, call},
    scenario::breaker,
};
use failsafe::CircuitBreaker;
use portcullis::breaker::Window;
use tower::{Layer, Service};

use super::Plan;
use crate::{
    measure::{Contest, Effort, Side},
    peers::{self, Failsafe},
    table::number,
};

const GROUP: &str = "windows";
/// Calls of ours before it is measured.
const USED: u64 = 1_000_000;
/// Calls of the peer whose every call looks at all calls in the window: more would take minutes.
const USED_BY_SCAN: u64 = 20_000;

const WINDOWS: [(&str, Window); 4] = [
    ("10 s", Window::Time(Duration::from_secs(10))),
    ("10 min", Window::Time(Duration::from_secs(600))),
    ("100 calls", Window::Count(100)),
    ("100 000 calls", Window::Count(100_000)),
];

pub(super) fn plans() -> Vec<Plan> {
    let new = WINDOWS.map(|(name, window)| {
        Plan::new(GROUP, format!("breaker, {name}, new"), move |_| new(window))
    });
    let used = WINDOWS.map(|(name, window)| {
        Plan::new(GROUP, format!("breaker, {name}, long in use"), move |effort| {
            used(window, effort)
        })
    });
    new.into_iter().zip(used).flat_map(|(new, used)| [new, used]).collect()
}

/// The first 1000 calls of a new breaker.
fn new(window: Window) -> Contest {
    let ours = Side::first_calls("ours", move || calls(breaker(window).layer(AtOnce)));
    let resilience = Side::first_calls("tower-resilience", move || {
        calls(peers::resilience_broken(window, AtOnce))
    });
    let function = match window {
        Window::Time(time) => {
            Side::first_calls("failsafe", move || by_failsafe(peers::failsafe(time)))
        }
        Window::Count(size) => {
            Side::first_calls("recloser", move || by_recloser(peers::recloser(size)))
        }
    };
    Contest::new(ours, [resilience, function]).noted("the first 1000 calls")
}

/// After a million calls.
fn used(window: Window, effort: Effort) -> Contest {
    let mut ours = calls(breaker(window).layer(AtOnce));
    let mut resilience = calls(peers::resilience_broken(window, AtOnce));
    let mut function: Box<dyn FnMut()> = match window {
        Window::Time(time) => Box::new(by_failsafe(peers::failsafe(time))),
        Window::Count(size) => Box::new(by_recloser(peers::recloser(size))),
    };
    let function_name = match window {
        Window::Time(_) => "failsafe",
        Window::Count(_) => "recloser",
    };
    let scans = matches!(window, Window::Time(_));
    let before = effort.fill(USED, &mut ours);
    let resilience_before = effort.fill(if scans { USED_BY_SCAN } else { USED }, &mut resilience);
    let function_before = effort.fill(USED, &mut function);
    Contest::new(
        Side::new("ours", ours),
        [Side::new("tower-resilience", resilience), Side::new(function_name, function)],
    )
    .noted(format!(
        "after {} calls of ours, {} of tower-resilience's and {} of {function_name}'s",
        number(before as f64),
        number(resilience_before as f64),
        number(function_before as f64),
    ))
}

fn calls<S: Service<()>>(mut service: S) -> impl FnMut() {
    move || _ = black_box(call(&mut service, ()))
}

fn by_recloser(breaker: recloser::Recloser) -> impl FnMut() {
    move || _ = black_box(breaker.call(|| call(&mut AtOnce, ())))
}

fn by_failsafe(breaker: Failsafe) -> impl FnMut() {
    move || _ = black_box(breaker.call(|| call(&mut AtOnce, ())))
}
