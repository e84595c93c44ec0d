//! Programs of the system that some tests need: installed on Debian and its like, where that is allowed.

use std::{
    env,
    ffi::OsStr,
    process::{Command, Stdio},
};

use crate::runner::{Outcome, status};

/// What a group of tests needs.
#[derive(Debug)]
struct Need {
    programs: &'static [&'static str],
    /// Debian's names.
    packages: &'static [&'static str],
    /// Where it is `required`, the tests fail without the programs; else they are skipped.
    variable: &'static str,
    /// What is not tested without them.
    tests: &'static str,
}

const NEEDS: [Need; 2] = [
    Need {
        programs: &["chromium", "chromedriver"],
        packages: &["chromium", "chromium-driver"],
        variable: "PORTCULLIS_BROWSER",
        tests: "the page in a browser",
    },
    Need {
        programs: &["prometheus", "promtool"],
        packages: &["prometheus"],
        variable: "PORTCULLIS_PROMETHEUS",
        tests: "alerts and dashboards",
    },
];

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

/// Sees to it that everything is there, and has `tests` insist on what is.
pub(crate) fn provide(tests: &mut Command) -> Outcome {
    let mut skipped = Vec::new();
    for need in &NEEDS {
        let why = if need.is_met() { None } else { need.install() };
        if need.is_met() {
            tests.env(need.variable, "required");
        } else {
            let why = why.unwrap_or_else(|| "the packages do not have them".to_owned());
            skipped.push(need.told(&why));
        }
    }
    match skipped.is_empty() {
        true => Outcome::Passed,
        false => Outcome::Skipped(skipped.join("; ")),
    }
}

// ===== impl Need =====

impl Need {
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
        let mut shell = match () {
            () if succeeds(Command::new("test").args(["-w", "/usr/sbin"])) => Command::new("sh"),
            () if succeeds(Command::new("sudo").args(["-n", "true"])) => {
                let mut shell = Command::new("sudo");
                shell.args(["-n", "sh"]);
                shell
            }
            () => return Some("it takes root to install them".to_owned()),
        };
        eprintln!("installing {}", self.packages.join(" and "));
        match status(shell.args(["-c", INSTALL, "install"]).args(self.packages)) {
            Outcome::Failed(why) => Some(format!("apt-get could not install them ({why})")),
            _ => None,
        }
    }

    fn told(&self, why: &str) -> String {
        let (tests, programs) = (self.tests, self.programs.join(" and "));
        let packages = self.packages.join(" ");
        format!(
            "{tests}: {programs} are not there, and {why}; `apt-get install {packages}` installs them"
        )
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
            NEEDS[0].told("it takes root to install them"),
            "the page in a browser: chromium and chromedriver are not there, and it takes root to \
             install them; `apt-get install chromium chromium-driver` installs them"
        );
    }
}
