//! The storage quota: who pays for a large job, and how much a payer may keep in Redis. The scripts count the bytes, see
//! `shared/src/queue/lua/quota.lua`. Small jobs are never charged.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use clap::Args;
use tepal_shared::{
    job::{Charge, LARGE_BYTES},
    process::settings::Mistakes,
};

use super::submission::Submission;
use crate::{
    http::peer::Client,
    jobs::store::Store,
    secret::{Pseudonym, Secret, SecretError},
};

/// Flags and environment variables.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "HTTP")]
pub(crate) struct QuotaArgs {
    /// Most bytes of inputs and results above 8 KiB that an owner may keep in Redis, or an address if jobs have no owner; 0 = no
    /// limit. By default a quarter of the maxmemory of Redis
    #[arg(long, env, value_name = "BYTES")]
    owner_max_bytes: Option<String>,
}

impl QuotaArgs {
    /// Most bytes that a payer may keep, 0 = any number; `None` when it is not given.
    pub(crate) fn check(&self, mistakes: &mut Mistakes) -> Option<u64> {
        let text = self.owner_max_bytes.as_deref()?;
        // The scripts count up to 2^53.
        Some(mistakes.number("OWNER_MAX_BYTES", text, 0..=1 << 50))
    }
}

/// The memory of Redis is still unknown.
const UNKNOWN: u64 = u64::MAX;
/// Without a setting, a payer may keep this part of the memory of Redis.
const PART: u64 = 4;

/// How much a payer may keep.
pub(crate) struct Quota {
    /// All partitions together; `None` = a part of the memory of Redis.
    setting: Option<u64>,
    /// Whether addresses have a quota, as owners have.
    limits_addresses: bool,
    partitions: u64,
    /// The memory limit of Redis as it was last read; 0 = no limit.
    max_memory: AtomicU64,
}

/// Who pays for large jobs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Payer<'a> {
    /// The owner of the jobs.
    Owner(&'a str),
    /// The address that the request comes from, if it is known.
    Address(Option<IpAddr>),
}

/// Charges large jobs to their payers.
pub(crate) struct Charges {
    pub(crate) quota: Quota,
    pub(crate) store: Store,
    /// For the pseudonyms of addresses.
    pub(crate) secret: Arc<Secret>,
}

impl Quota {
    /// Without a rate limit, one address may represent many callers. Then an address has a quota only if one is set.
    pub(crate) fn new(setting: Option<u64>, has_rate_limit: bool, partitions: u16) -> Self {
        Self {
            setting,
            limits_addresses: has_rate_limit || setting.is_some(),
            partitions: u64::from(partitions.max(1)),
            max_memory: AtomicU64::new(UNKNOWN),
        }
    }

    /// Notes the memory limit of Redis.
    pub(crate) fn saw(&self, max_memory_bytes: u64) {
        self.max_memory.store(max_memory_bytes, Ordering::Relaxed);
    }

    /// Most bytes that a payer may keep in a partition, 0 = any number; `None` = nobody pays.
    fn most_bytes(&self) -> Option<u64> {
        let all = match (self.setting, self.max_memory.load(Ordering::Relaxed)) {
            (Some(0), _) | (None, 0) => return None,
            (Some(bytes), _) => bytes,
            // Redis itself rejects jobs if it has no memory.
            (None, UNKNOWN) => return Some(0),
            (None, memory) => memory / PART,
        };
        Some((all / self.partitions).max(1))
    }
}

/// Whether the job's input or result may count.
fn is_large(submission: &Submission) -> bool {
    submission.input.len() > LARGE_BYTES || submission.rows > submission.model.small_rows
}

impl Charges {
    /// Charges the large ones of these submissions to the payer, which is determined only if there are any.
    pub(crate) async fn charge<'a>(
        &self,
        payer: impl FnOnce() -> Payer<'a>,
        submissions: impl IntoIterator<Item = &mut Submission>,
    ) -> Result<(), SecretError> {
        let mut large: Vec<_> = submissions.into_iter().filter(|submission| is_large(submission)).collect();
        if !large.is_empty() {
            let charge = self.charge_to(payer()).await?;
            large.iter_mut().for_each(|submission| submission.charge.clone_from(&charge));
        }
        Ok(())
    }

    /// The charge of a large job to this payer, with the payer's quota; `None` = there is no quota.
    pub(crate) async fn charge_to(&self, payer: Payer<'_>) -> Result<Option<Charge>, SecretError> {
        let Some(most_bytes) = self.quota.most_bytes() else { return Ok(None) };
        let payer = match payer {
            Payer::Owner(owner) => format!("o:{owner}"),
            Payer::Address(_) if !self.quota.limits_addresses => return Ok(None),
            Payer::Address(address) => {
                let keys = self.secret.keys(&self.store).await?;
                format!("a:{}", pseudonym(&keys.addresses, address))
            }
        };
        Ok(Some(Charge { payer: payer.into(), most_bytes }))
    }
}

/// `Retry-After` in seconds, from the time until the payer may have room.
pub(crate) fn retry_after(room_in: Option<Duration>) -> u64 {
    match room_in {
        // The payer has room as soon as one of its jobs ends.
        Some(Duration::ZERO) => 5,
        Some(time) => time.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX),
        None => 60,
    }
}

/// The pseudonym of an address. As for the rate limit, an IPv6 address counts as its /64.
fn pseudonym(key: &Pseudonym, address: Option<IpAddr>) -> String {
    match address.map(Client::of) {
        None => key.of(&[]),
        Some(Client::V4(bits)) => key.of(&bits.to_be_bytes()),
        Some(Client::V6(bits) | Client::Bucket(bits)) => key.of(&bits.to_be_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{jobs::models::iris, secret::Keys};

    fn quota(setting: Option<u64>, partitions: u16) -> Quota {
        Quota::new(setting, true, partitions)
    }

    #[test]
    fn a_payer_may_keep_a_quarter_of_the_memory_or_what_the_setting_says() {
        let most = |setting, memory, partitions| {
            let quota = quota(setting, partitions);
            quota.saw(memory);
            quota.most_bytes()
        };
        assert_eq!(quota(None, 1).most_bytes(), Some(0), "nobody is refused before the memory is known");
        assert_eq!(most(None, 4000, 1), Some(1000));
        assert_eq!(most(None, 4000, 10), Some(100));
        assert_eq!(most(None, 0, 1), None);
        assert_eq!(most(Some(0), 4000, 1), None);
        assert_eq!(most(Some(500), 0, 2), Some(250));
        assert_eq!(most(Some(1), 4000, 256), Some(1), "0 would be no limit");
    }

    #[test]
    fn a_job_is_large_by_its_input_or_by_the_result_that_it_may_have() {
        let is_large = |bytes, rows| {
            let input = vec![1; bytes];
            is_large(&Submission { input, rows, ..Submission::new(iris()) })
        };
        assert!(!is_large(LARGE_BYTES, 1) && is_large(LARGE_BYTES + 1, 1));
        assert!(!is_large(20, 40) && is_large(2000, 100));
    }

    #[test]
    fn addresses_of_one_network_pay_together() {
        let key = Keys::derive(&[1; 32]).unwrap().addresses;
        let of = |address: &str| pseudonym(&key, Some(address.parse::<IpAddr>().unwrap()));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff::2"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert!(!of("192.0.2.1").contains("192"));
    }
}
