//! The named handles of what was built.

use std::{
    any::{Any, TypeId},
    collections::BTreeMap,
    fmt,
    sync::Arc,
};

use crate::sync::Mutex;

/// Named handles of what was built: breakers, budgets, limits. A value, not a global; clones share
/// their contents.
///
/// Handles are kept by type and name, so a breaker and a limit may share a name.
///
/// ```
/// use portcullis_core::Registry;
/// use std::sync::{Arc, atomic::AtomicU32};
///
/// let registry = Registry::new();
/// let counter = registry.get_or_insert_with("calls", || Arc::new(AtomicU32::new(0)));
/// counter.store(7, std::sync::atomic::Ordering::Relaxed);
///
/// let again: Arc<AtomicU32> = registry.get("calls").unwrap();
/// assert!(Arc::ptr_eq(&counter, &again));
/// ```
#[derive(Clone, Default)]
pub struct Registry {
    entries: Arc<Mutex<Entries>>,
}

type Entries = BTreeMap<(TypeId, Arc<str>), Box<dyn Any + Send + Sync>>;

// ===== impl Registry =====

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Files a handle under a name. Returns the one of the same type that had the name before.
    pub fn insert<T>(&self, name: impl Into<Arc<str>>, handle: T) -> Option<T>
    where
        T: Any + Send + Sync,
    {
        let before = self.entries.lock().insert(key::<T>(name.into()), Box::new(handle))?;
        before.downcast().ok().map(|handle| *handle)
    }

    /// The handle of type `T` with this name.
    #[must_use]
    pub fn get<T>(&self, name: &str) -> Option<T>
    where
        T: Any + Clone + Send + Sync,
    {
        self.entries.lock().get(&key::<T>(name.into()))?.downcast_ref().cloned()
    }

    /// The handle with this name, made if there is none yet.
    ///
    /// Of several callers at once all get the same one. `make` runs outside the lock; what it made is
    /// dropped if another was faster.
    pub fn get_or_insert_with<T>(&self, name: impl Into<Arc<str>>, make: impl FnOnce() -> T) -> T
    where
        T: Any + Clone + Send + Sync,
    {
        let make = || Ok::<_, std::convert::Infallible>(make());
        let Ok(handle) = self.get_or_try_insert_with(name, make);
        handle
    }

    /// The handle with this name, made if there is none yet.
    ///
    /// # Errors
    ///
    /// That of `make`; nothing is filed then.
    pub fn get_or_try_insert_with<T, E>(
        &self,
        name: impl Into<Arc<str>>,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E>
    where
        T: Any + Clone + Send + Sync,
    {
        let name = name.into();
        if let Some(handle) = self.get(&name) {
            return Ok(handle);
        }
        let made = make()?;
        let mut entries = self.entries.lock();
        let entry = entries.entry(key::<T>(name)).or_insert_with(|| Box::new(made.clone()));
        Ok(entry.downcast_ref().cloned().unwrap_or(made))
    }

    /// Takes the handle of type `T` with this name out.
    #[must_use]
    pub fn remove<T: Any + Send + Sync>(&self, name: &str) -> Option<T> {
        let handle = self.entries.lock().remove(&key::<T>(name.into()))?;
        handle.downcast().ok().map(|handle| *handle)
    }

    /// All handles of type `T`, by name.
    #[must_use]
    pub fn all<T>(&self) -> Vec<(Arc<str>, T)>
    where
        T: Any + Clone + Send + Sync,
    {
        let entries = self.entries.lock();
        let handles = entries.iter().filter_map(|((_, name), handle)| {
            Some((name.clone(), handle.downcast_ref::<T>()?.clone()))
        });
        handles.collect()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.entries.lock();
        f.debug_set().entries(entries.keys().map(|(_, name)| name)).finish()
    }
}

fn key<T: Any>(name: Arc<str>) -> (TypeId, Arc<str>) {
    (TypeId::of::<T>(), name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_kept_by_type_and_name() {
        let registry = Registry::new();
        registry.insert("a", 1_u32);
        registry.insert("a", "one");
        assert_eq!(registry.get::<u32>("a"), Some(1));
        assert_eq!(registry.get::<&str>("a"), Some("one"));
        assert_eq!(registry.insert("a", 2_u32), Some(1));
        assert_eq!(registry.all::<u32>(), [("a".into(), 2)]);
        assert_eq!(registry.remove::<u32>("a"), Some(2));
        assert_eq!(registry.get::<u32>("a"), None);
    }

    #[test]
    fn a_failed_make_files_nothing() {
        let registry = Registry::new();
        assert_eq!(registry.get_or_try_insert_with("a", || Err::<u32, _>("no")), Err("no"));
        assert_eq!(registry.get_or_insert_with("a", || 3_u32), 3);
        assert_eq!(registry.get_or_insert_with("a", || 4_u32), 3);
    }
}
