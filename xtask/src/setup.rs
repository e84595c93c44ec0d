//! Programs of the system that some steps need: installed on Debian and its like, where that is allowed.

use std::{
    env,
    ffi::OsStr,
    process::{Command, Stdio},
};

use crate::runner::{Outcome, status};

/// What is needed for something.
#[derive(Debug)]
pub(crate) struct Need {
    programs: &'static [&'static str],
    /// Debian's names.
    packages: &'static [&'static str],
    /// What is not looked at without them.
    purpose: &'static str,
}

/// What some tests need. Where the variable is `required`, they fail without; else they are skipped.
const TESTS: [(&str, Need); 2] = [
    (
        "PORTCULLIS_BROWSER",
        Need {
            programs: &["chromium", "chromedriver"],
            packages: &["chromium", "chromium-driver"],
            purpose: "the page in a browser",
        },
    ),
    (
        "PORTCULLIS_PROMETHEUS",
        Need {
            programs: &["prometheus", "promtool"],
            packages: &["prometheus"],
            purpose: "alerts and dashboards",
        },
    ),
];

/// What counting instructions needs.
pub(crate) const COUNTS: Need =
    Need { programs: &["valgrind"], packages: &["valgrind"], purpose: "counts" };

/// Installs the packages it is given. A service that comes with one of them is neither started, now or
/// with the machine, nor is anything asked; who does not get through to the archive soon gives up.
const INSTALL: &str = r#"
export DEBIAN_FRONTEND=noninteractive
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    trap 'rm -f $policy' EXIT
    printf '#!/bin/sh\nexit 101\n' > $policy && chmod 755 $policy
fi
options='-q -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20 -o Acquire::Retries=1
         -o DPkg::Lock::Timeout=120'
apt-get $options update
apt-get $options install -y --no-install-recommends "$@" || exit
for package; do
    systemctl --quiet disable "$package" 2>/dev/null || :
done
"#;

/// Sees to it that what tests need is there, and has `tests` insist on what is.
pub(crate) fn for_tests(tests: &mut Command) -> Outcome {
    let mut skipped = Vec::new();
    for (variable, need) in &TESTS {
        match need.provide() {
            Ok(()) => _ = tests.env(variable, "required"),
            Err(why) => skipped.push(why),
        }
    }
    match skipped.is_empty() {
        true => Outcome::Passed,
        false => Outcome::Skipped(skipped.join("; ")),
    }
}

// ===== impl Need =====

impl Need {
    /// Sees to it that everything is there.
    ///
    /// # Errors
    ///
    /// Says why it is not, and what would install it.
    pub(crate) fn provide(&self) -> Result<(), String> {
        let why = if self.is_met() { None } else { self.install() };
        match self.is_met() {
            true => Ok(()),
            false => Err(self.told(why.as_deref().unwrap_or("no package has it"))),
        }
    }

    fn is_met(&self) -> bool {
        let path = env::var_os("PATH").unwrap_or_default();
        self.programs.iter().all(|program| is_in(&path, program))
    }

    /// Why it could not be installed, if so.
    fn install(&self) -> Option<String> {
        let path = env::var_os("PATH").unwrap_or_default();
        if !is_in(&path, "apt-get") {
            return Some("this is no Debian".to_owned());
        }
        let mut shell = Command::new("sh");
        if !succeeds(Command::new("test").args(["-w", "/usr/sbin"])) {
            if !succeeds(Command::new("sudo").args(["-n", "true"])) {
                return Some("that takes root".to_owned());
            }
            shell = Command::new("sudo");
            shell.args(["-n", "sh"]);
        }
        eprintln!("installing {}", self.packages.join(" and "));
        match status(shell.args(["-c", INSTALL, "install"]).args(self.packages)) {
            Outcome::Failed(why) => Some(format!("apt-get failed ({why})")),
            _ => None,
        }
    }

    fn told(&self, why: &str) -> String {
        let (programs, packages) = (self.programs.join(" and "), self.packages.join(" "));
        let purpose = self.purpose;
        format!("{purpose}: no {programs}; `apt-get install {packages}` was not possible, {why}")
    }
}

fn is_in(path: &OsStr, program: &str) -> bool {
    env::split_paths(path).any(|folder| folder.join(program).is_file())
}

fn succeeds(command: &mut Command) -> bool {
    status(command.stdout(Stdio::null()).stderr(Stdio::null())) == Outcome::Passed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::root;

    #[test]
    fn a_program_is_looked_for_in_every_folder_of_the_path() {
        let path = env::join_paths([root().join("docs"), root().join(".ci")]).unwrap();
        assert!(is_in(&path, "run"));
        assert!(!is_in(&path, "prometheus"));
        assert!(!is_in(OsStr::new(""), "run"));
    }

    #[test]
    fn what_is_skipped_is_told_with_the_reason_and_the_remedy() {
        assert_eq!(
            TESTS[0].1.told("that takes root"),
            "the page in a browser: no chromium and chromedriver; `apt-get install chromium \
             chromium-driver` was not possible, that takes root"
        );
    }
}
