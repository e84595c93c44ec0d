//! Who writes a call's record while the call runs.
//!
//! A call is run by one task at a time, and nearly all that the layers tell of it is told while its
//! future is polled. So whoever polls it has its buffer at hand, on the thread, and writes without a
//! lock. What is told of it from elsewhere goes into a second buffer behind a lock, and the two are
//! joined when the future is done.

use std::{cell::Cell, sync::Arc};

use portcullis_core::End;

use crate::{buffer::Buffer, live::Live, sync::local};

local! {
    /// The buffer of the call that this thread runs right now. Taken out to be written into, so that
    /// nothing can find it in use.
    static DESK: Cell<Option<Sheet>> = Cell::new(None);
}

/// A buffer, and the [place](Live::place) of the call whose it is.
struct Sheet {
    of: usize,
    buffer: Box<Buffer>,
}

/// A call's record in the hands of the future that runs the call.
pub(crate) struct Writing {
    /// `None` once it was put back.
    live: Option<Arc<Live>>,
    /// `None` if there was no room for a record, or while it is on the desk.
    buffer: Option<Box<Buffer>>,
}

/// Lets `f` write into the buffer of the call at this place, if this thread runs that call.
///
/// # Errors
///
/// `f` itself, if it does not.
#[inline]
pub(crate) fn write<R, F: FnOnce(&mut Buffer) -> R>(of: usize, f: F) -> Result<R, F> {
    // While a thread ends its locals are gone: nothing runs on it any more.
    let Ok(sheet) = DESK.try_with(Cell::take) else { return Err(f) };
    let Some(mut sheet) = sheet else { return Err(f) };
    let done = if sheet.of == of { Ok(f(&mut sheet.buffer)) } else { Err(f) };
    lay(Some(sheet));
    done
}

// ===== impl Writing =====

impl Writing {
    #[inline]
    pub(crate) fn new(live: Arc<Live>, buffer: Option<Box<Buffer>>) -> Self {
        Self { live: Some(live), buffer }
    }

    /// Runs a part of the call, with the record at hand.
    #[inline]
    pub(crate) fn run<R>(&mut self, f: impl FnOnce() -> R) -> R {
        let (Some(live), Some(buffer)) = (&self.live, self.buffer.take()) else { return f() };
        let mut sheet = Some(Sheet { of: live.place(), buffer });
        let Ok(before) = DESK.try_with(|desk| desk.replace(sheet.take())) else {
            // A local that is dropped with its thread may hold a call, and the desk may be gone before:
            // what is told then is written behind the lock.
            self.buffer = sheet.map(|sheet| sheet.buffer);
            return f();
        };
        let _turn = Turn { before, back: &mut self.buffer };
        f()
    }

    /// Notes the end of the call, and puts the record back.
    #[inline]
    pub(crate) fn finish(mut self, end: &End<'_>) {
        let Some(live) = self.live.take() else { return };
        let buffer = self.buffer.take();
        live.ended(buffer, end);
    }

    /// Puts the record back: from now on it is written behind its lock.
    #[inline]
    pub(crate) fn put_back(mut self) -> Option<Arc<Live>> {
        let live = self.live.take()?;
        if let Some(buffer) = self.buffer.take() {
            live.take_back(buffer);
        }
        Some(live)
    }
}

impl Drop for Writing {
    #[inline]
    fn drop(&mut self) {
        if let (Some(live), Some(buffer)) = (&self.live, self.buffer.take()) {
            live.take_back(buffer);
        }
    }
}

/// Restores what lay on the desk before, also after a panic.
struct Turn<'a> {
    before: Option<Sheet>,
    back: &'a mut Option<Box<Buffer>>,
}

impl Drop for Turn<'_> {
    #[inline]
    fn drop(&mut self) {
        *self.back = lay(self.before.take()).map(|sheet| sheet.buffer);
    }
}

/// Puts a sheet on the desk, which is there, and takes what lay there.
#[inline]
fn lay(sheet: Option<Sheet>) -> Option<Sheet> {
    DESK.with(|desk| desk.replace(sheet))
}
