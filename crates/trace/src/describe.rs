//! What a call was about: words taken from its request.

use std::{borrow::Cow, fmt};

use crate::buffer::Buffer;

/// Says what a call is about, from its request.
///
/// Any `Fn(&Req, &mut About<'_>)` is one; [`Undescribed`] says nothing.
pub trait Describe<Req> {
    /// Notes words about `req`. It runs on the call's path: pass on what is there, build no texts.
    fn describe(&self, req: &Req, about: &mut About<'_>);
}

/// Takes the words down: see [`Describe`]. What is too long is cut.
#[derive(Debug)]
pub struct About<'a> {
    buffer: &'a mut Buffer,
}

/// Says nothing of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Undescribed;

/// Takes what comes out of a call from its response's head.
///
/// Any `Fn(&Res) -> Option<Cow<'_, str>>` is one, within [`CaptureFn`]; [`NoCapture`] takes nothing.
pub trait Capture<Res> {
    /// Whether it ever takes anything. What never does is not even asked.
    const TAKES: bool = true;

    /// The text to keep; `None` for none.
    fn capture<'a>(&self, response: &'a Res) -> Option<Cow<'a, str>>;
}

/// Captures nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCapture;

/// Captures by a closure.
#[derive(Clone, Copy)]
pub struct CaptureFn<F>(pub(crate) F);

// ===== impl About =====

impl<'a> About<'a> {
    pub(crate) fn new(buffer: &'a mut Buffer) -> Self {
        Self { buffer }
    }

    /// What is asked for: a method, the name of a tool. In place of the name that the caller gave
    /// the operation.
    pub fn operation(&mut self, operation: &str) -> &mut Self {
        self.buffer.operation = self.buffer.notes.keep(operation);
        self
    }

    /// Whom it is asked: a host, a queue. No credentials: a target is stored and shown.
    pub fn target(&mut self, target: &str) -> &mut Self {
        self.buffer.target = self.buffer.notes.keep(target);
        self
    }

    /// The key it is asked under: a tenant, a user.
    pub fn key(&mut self, key: &str) -> &mut Self {
        self.buffer.key = self.buffer.notes.keep(key);
        self
    }
}

// ===== impl Describe =====

impl<Req> Describe<Req> for Undescribed {
    #[inline]
    fn describe(&self, _: &Req, _: &mut About<'_>) {}
}

impl<Req, F: Fn(&Req, &mut About<'_>)> Describe<Req> for F {
    #[inline]
    fn describe(&self, req: &Req, about: &mut About<'_>) {
        self(req, about);
    }
}

// ===== impl Capture =====

impl<Res> Capture<Res> for NoCapture {
    const TAKES: bool = false;

    #[inline]
    fn capture<'a>(&self, _: &'a Res) -> Option<Cow<'a, str>> {
        None
    }
}

impl<Res, F> Capture<Res> for CaptureFn<F>
where
    F: for<'a> Fn(&'a Res) -> Option<Cow<'a, str>>,
{
    fn capture<'a>(&self, response: &'a Res) -> Option<Cow<'a, str>> {
        (self.0)(response)
    }
}

impl<F> fmt::Debug for CaptureFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaptureFn").finish_non_exhaustive()
    }
}
