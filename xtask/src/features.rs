//! Each library alone: in a build of the whole workspace a crate sees the features its neighbours asked
//! for. Alone it sees its own.

use crate::{
    house::Member,
    runner::{Outcome, cargo, status},
};

/// Builds a library without features, with each of them alone and with all. What is unused under one
/// of them is an error too.
pub(crate) fn alone(library: &Member) -> Outcome {
    for features in choices(&library.features) {
        let mut clippy = cargo(["clippy", "--quiet", "--package", &library.name]);
        clippy.args(&features).args(["--", "-D", "warnings"]);
        if let Outcome::Failed(why) = status(&mut clippy) {
            return Outcome::Failed(format!("{}: {why}", features.join(" ")));
        }
    }
    Outcome::Passed
}

/// What cargo is told of the features, a build each.
fn choices(features: &[String]) -> Vec<Vec<&str>> {
    let none = vec!["--no-default-features"];
    let each = features.iter().map(|one| vec!["--no-default-features", "--features", one]);
    let all = (features.len() > 1).then(|| vec!["--all-features"]);
    std::iter::once(none).chain(each).chain(all).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_each_and_all_are_built_and_nothing_twice() {
        let none: &[&str] = &["--no-default-features"];
        assert_eq!(choices(&[]), [none]);
        let one = |name| vec!["--no-default-features", "--features", name];
        assert_eq!(choices(&["serde".to_owned()]), [none.to_vec(), one("serde")]);
        assert_eq!(
            choices(&["default".to_owned(), "serde".to_owned()]),
            [none.to_vec(), one("default"), one("serde"), vec!["--all-features"]]
        );
    }
}
