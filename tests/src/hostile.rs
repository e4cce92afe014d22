//! Attacks on a proxy as it is shipped, beside honest clients. They show whether a client can take resources of others.
//!
//! Each attack has a stack of its own. Honest clients are measured three times: alone, beside the attack, and beside a control
//! program that uses as much processor time as the attack took of all processes. Attackers, control program and services are
//! processes of their own; the honest clients are this one.
//!
//! | module | owns |
//! | --- | --- |
//! | `stack`, `held` | the services, and the jobs that attackers read |
//! | `attacks`, `field`, `wire` | the attacks, their addresses and connections |
//! | `tally` | the answers to attackers |
//! | `honest` | the honest clients |
//! | `usage`, `burner` | processor time and memory; the control program |
//! | `round`, `verdict` | one attack, and the rules |
//! | [`Report`] | the table |

mod attacks;
mod burner;
mod field;
mod held;
mod honest;
mod report;
mod round;
mod stack;
mod tally;
mod usage;
mod verdict;
mod wire;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use report::Report;

use attacks::Attack;
use round::Round;

/// The longest that clients are measured alone, s.
const MOST_QUIET: f64 = 5.0;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long each attack lasts, s.
    pub seconds: f64,
    /// Whether no attack may last longer. Then a limit of a minute is not observed.
    pub is_short: bool,
    /// Names of the attacks; empty for all.
    pub only: Vec<String>,
    /// The proxy's `MAX_BODY_BYTES`, one after the other.
    pub bodies: Vec<usize>,
    /// Jobs in the queue before an attack, which a listing scans.
    pub small_jobs: usize,
    /// Jobs of honest clients, a second.
    pub rate: f64,
    /// The program that plays the other parts: `tepal-hostile`.
    pub program: PathBuf,
    /// Command, machine and date, for the report.
    pub made: String,
}

impl Options {
    fn quiet(&self) -> Duration {
        Duration::from_secs_f64(self.seconds.min(MOST_QUIET))
    }

    /// The attacks.
    ///
    /// # Errors
    /// When no attack has one of the names.
    fn attacks(&self) -> Result<Vec<Attack>, String> {
        let known: Vec<_> = Attack::all().map(Attack::name).collect();
        if let Some(unknown) = self.only.iter().find(|name| !known.contains(name)) {
            return Err(format!("there is no attack {unknown}, but {}", known.join(", ")));
        }
        let is_wanted = |attack: &Attack| self.only.is_empty() || self.only.contains(&attack.name());
        Ok(Attack::all().filter(is_wanted).collect())
    }
}

/// The names of the attacks with their descriptions.
#[must_use]
pub fn attacks() -> Vec<(String, String)> {
    Attack::all().map(|attack| (attack.name(), attack.what())).collect()
}

/// Runs the attacks one after the other; `progress` gets the report of each.
///
/// # Errors
/// When there is no such attack.
///
/// # Panics
/// When the harness itself fails: a process that cannot be started, a file that cannot be written.
pub async fn run(options: &Options, mut progress: impl FnMut(&Report)) -> Result<Report, String> {
    let mut report = Report { made: options.made.clone(), measured: Vec::new() };
    for attack in options.attacks()? {
        for largest_body in &options.bodies {
            let measured = Round::start(options, attack, *largest_body).await.run().await;
            progress(&Report { made: String::new(), measured: vec![measured.clone()] });
            report.measured.push(measured);
        }
    }
    Ok(report)
}

/// The part of an attacker's process: carries out the orders in a file, and writes the outcome into another.
///
/// # Panics
/// When the files cannot be read or written, or have unexpected contents.
pub async fn attack(orders: &Path, summary: &Path) {
    let orders = std::fs::read_to_string(orders).expect("orders");
    let orders = serde_json::from_str(&orders).expect("orders are JSON");
    let text = serde_json::to_string(&attacks::attack(&orders).await).expect("a summary is JSON");
    std::fs::write(summary, text).expect("the summary can be written");
}

/// The part of the control program: uses the processor time of the profiles in a file.
///
/// # Panics
/// When the file has no profiles.
pub fn burn(profiles: &Path) {
    let profiles = std::fs::read_to_string(profiles).expect("profiles");
    burner::burn(&serde_json::from_str::<Vec<usage::Profile>>(&profiles).expect("profiles are JSON"));
}
