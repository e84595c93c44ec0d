//! Settings by the name of the operation.

use std::{collections::BTreeMap, fmt};

use crate::Call;

/// What is set for operations, by the name that callers give them: `call::with().name("search")`.
///
/// A name that ends in a slash stands for all the operations of a group: `shop.Cart/` for
/// `shop.Cart/Add` and every other one whose name is the same up to its last slash. What is set for the
/// operation itself comes before what is set for its group.
///
/// ```
/// use portcullis_core::Operations;
///
/// let limits = Operations::from_iter([("shop.Cart/", 3), ("shop.Cart/Add", 1)]);
/// assert_eq!(limits.get("shop.Cart/Add"), Some(&1));
/// assert_eq!(limits.get("shop.Cart/List"), Some(&3));
/// assert_eq!(limits.get("shop.Stock/List"), None);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Operations<T> {
    by_name: BTreeMap<Box<str>, T>,
}

// ===== impl Operations =====

impl<T> Operations<T> {
    /// Whether nothing is set for any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// What is set for the operation called `name`, or for its group.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&T> {
        self.by_name.get(name).or_else(|| {
            let group = name.rfind('/')? + 1;
            self.by_name.get(&name[..group])
        })
    }

    /// What is set for the operation that a call is of.
    #[must_use]
    pub fn of(&self, call: &Call) -> Option<&T> {
        self.get(call.orders()?.name.as_deref()?)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.by_name.iter().map(|(name, set)| (&**name, set))
    }
}

impl<T> Default for Operations<T> {
    fn default() -> Self {
        Self { by_name: BTreeMap::new() }
    }
}

impl<N: Into<Box<str>>, T> FromIterator<(N, T)> for Operations<T> {
    fn from_iter<I: IntoIterator<Item = (N, T)>>(operations: I) -> Self {
        let by_name = operations.into_iter().map(|(name, set)| (name.into(), set)).collect();
        Self { by_name }
    }
}

impl<T: fmt::Debug> fmt::Debug for Operations<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call;

    #[tokio::test]
    async fn a_call_has_what_is_set_for_its_name_else_for_its_group() {
        let set = Operations::from_iter([("search", 1), ("a.B/", 2), ("a.B/C", 3), ("/", 4)]);
        let of = async |name: &str| {
            call::with().name(name).run(async { set.of(&Call::current()).copied() }).await
        };
        for (name, expected) in [
            ("search", Some(1)),
            ("a.B/C", Some(3)),
            ("a.B/D", Some(2)),
            ("a.B/", Some(2)),
            ("/D", Some(4)),
            ("a.B", None),
            ("a.B/C/D", None),
            ("", None),
        ] {
            assert_eq!(of(name).await, expected, "{name:?}");
        }
        assert_eq!(set.of(&Call::new()), None);
    }
}
