//! Facts about types that the compiler checks. Each does nothing when run.

use std::fmt::Debug;

/// Compiles only for a `Send` type.
///
/// # Example
///
/// ```
/// use portcullis_testkit::{ScriptedService, assert_clone, assert_debug, assert_send, assert_sync};
///
/// assert_send::<ScriptedService<(), u32>>();
/// assert_sync::<ScriptedService<(), u32>>();
/// assert_clone::<ScriptedService<(), u32>>();
/// assert_debug::<ScriptedService<(), u32>>();
/// ```
///
/// ```compile_fail,E0277
/// portcullis_testkit::assert_send::<std::rc::Rc<u32>>();
/// ```
pub const fn assert_send<T: Send + ?Sized>() {}

/// Compiles only for a `Sync` type.
pub const fn assert_sync<T: Sync + ?Sized>() {}

/// Compiles only for an `Unpin` type.
pub const fn assert_unpin<T: Unpin + ?Sized>() {}

/// Compiles only for a `Clone` type.
pub const fn assert_clone<T: Clone>() {}

/// Compiles only for a `Debug` type.
pub const fn assert_debug<T: Debug + ?Sized>() {}

/// Compiles only for a `'static` type.
pub const fn assert_static<T: 'static + ?Sized>() {}

/// [`assert_send`] for a value whose type cannot be named, such as that of an `async` block.
///
/// # Example
///
/// ```
/// portcullis_testkit::assert_send_value(&async { 5 });
/// ```
pub const fn assert_send_value<T: Send + ?Sized>(_: &T) {}
