//! Honest clients. They submit Iris jobs at a steady rate, however slow the answers are, and read the outcomes. Each job has a
//! new connection, because a client without a connection is not served.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::wire::{Answer, Wire, get, post};

/// How long a client waits for the outcome of a job, and for any answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// Requests for each job. Each counts once.
const REQUESTS: f64 = 3.0;
/// Requests of the clients of one address in a minute, less than the limit of 100.
const A_MINUTE: f64 = 60.0;
/// Rows with their classes.
const FLOWERS: [(&str, &str); 3] = [
    ("[5.1,3.5,1.4,0.2]", "setosa"),
    ("[5.9,3.0,4.2,1.5]", "versicolor"),
    ("[6.3,3.3,6.0,2.5]", "virginica"),
];

/// Clients on addresses of their own, as many as their rate needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Honest {
    pub(super) target: SocketAddr,
    /// Jobs a second.
    pub(super) rate: f64,
}

/// The service that the clients got.
#[derive(Clone, Debug, Default)]
pub(super) struct Served {
    pub(super) jobs: usize,
    /// Times from the scheduled submission, or from the sent read, to the whole answer.
    pub(super) latencies: Vec<Duration>,
    /// Reasons why jobs were not accepted, not read or not completed.
    pub(super) failures: Vec<String>,
}

impl Served {
    /// The quantile of the latency for this share.
    pub(super) fn quantile(&self, share: f64) -> Duration {
        let mut sorted = self.latencies.clone();
        sorted.sort();
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }
}

impl Honest {
    /// Submits for this long and waits for the outcomes.
    pub(super) async fn run(self, length: Duration) -> Served {
        let (start, mut jobs, mut served) = (Instant::now(), JoinSet::new(), Served::default());
        for number in 0.. {
            let due = start + Duration::from_secs_f64(f64::from(number) / self.rate);
            if due >= start + length {
                break;
            }
            sleep_until(due).await;
            jobs.spawn(self.job(number, due));
        }
        while let Some(job) = jobs.join_next().await {
            served.jobs += 1;
            match job.expect("a client does not panic") {
                Ok(latencies) => served.latencies.extend(latencies),
                Err(why) => served.failures.push(why),
            }
        }
        served
    }

    async fn job(self, number: u32, due: Instant) -> Result<[Duration; 2], String> {
        let from = self.address(number);
        let (row, class) = FLOWERS[number as usize % FLOWERS.len()];
        let mut wire = within("to connect", Wire::open(from, self.target)).await?;
        let body = format!(r#"{{"data":[{row}]}}"#);
        let accepted = ask(&mut wire, "POST", &post("/predict", body.as_bytes()), 202).await?;
        let submitted = due.elapsed();
        let id = accepted["job_id"].as_str().unwrap_or_default();
        let path = format!("/job/{id}");
        let job = ask(&mut wire, "GET with a wait", &get(&path, "prefer: wait=10\r\n"), 200).await?;
        if job["status"] != "completed" || job["result"]["class_name"] != class {
            return Err(format!("the outcome of a job: {job}"));
        }
        let asked = Instant::now();
        let again = ask(&mut wire, "GET", &get(&path, ""), 200).await?;
        let read = asked.elapsed();
        if again == job { Ok([submitted, read]) } else { Err(format!("another outcome: {again}")) }
    }

    /// The clients take turns.
    fn address(self, number: u32) -> Ipv4Addr {
        let clients = (self.rate * 60.0 * REQUESTS / A_MINUTE).ceil().clamp(1.0, 250.0) as u32;
        Ipv4Addr::new(127, 0, 0, 2 + (number % clients) as u8)
    }
}

async fn ask(wire: &mut Wire, what: &str, request: &[u8], status: u16) -> Result<Value, String> {
    let exchange = async {
        wire.send(request).await?;
        wire.answer().await
    };
    let answer: Answer = within(what, exchange).await?;
    let text = String::from_utf8_lossy(&answer.body);
    if answer.status != status {
        return Err(format!("{what}: {} {text}", answer.status));
    }
    serde_json::from_str(&text).map_err(|error| format!("{what}: {error}: {text}"))
}

async fn within<T>(what: &str, work: impl Future<Output = std::io::Result<T>>) -> Result<T, String> {
    match timeout(PATIENCE, work).await {
        Ok(done) => done.map_err(|error| format!("{what}: {error}")),
        Err(_) => Err(format!("{what}: nothing within {PATIENCE:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_a_latency_that_was_measured() {
        let latencies = (1..=200).rev().map(Duration::from_millis).collect();
        let served = Served { latencies, ..Served::default() };
        assert_eq!(served.quantile(0.99), Duration::from_millis(198));
        assert_eq!(served.quantile(0.5), Duration::from_millis(100));
        assert_eq!(Served::default().quantile(0.99), Duration::ZERO);
    }

    #[test]
    fn each_address_keeps_to_its_limit() {
        let honest = Honest { target: ([127, 0, 0, 1], 1).into(), rate: 20.0 };
        let first = (0..20 * 60).filter(|number| honest.address(*number) == honest.address(0)).count();
        assert_eq!(first, 20);
    }
}
