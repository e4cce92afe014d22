//! The storage quota: which payer a large job is charged to, and how much that payer may keep in Redis. The scripts count the
//! bytes, see `shared/src/queue/lua/quota.lua`. Small jobs are never charged.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::http::request::Parts;
use ipnet::IpNet;
use tepal_shared::{
    job::{Charge, LARGE_BYTES},
    model::Model,
    queue::error::StoreError,
};

use crate::{
    edge::{
        access::Caller,
        rate_limit::{self, Client, Peer},
    },
    error::ApiError,
    jobs::submission::Submission,
    secret::Pseudonym,
    state::App,
};

/// The memory of Redis is not known yet.
const UNKNOWN: u64 = u64::MAX;
/// Without a setting, a payer may keep this part of the memory of Redis.
const PART: u64 = 4;

/// How much a payer may keep.
pub(crate) struct Quota {
    /// All partitions together; `None` = a part of the memory of Redis.
    setting: Option<u64>,
    partitions: u64,
    /// As Redis was seen last; 0 = no limit.
    max_memory: AtomicU64,
    /// A job of more rows may have a large result.
    small_rows: usize,
    trusted_proxies: Arc<[IpNet]>,
}

impl Quota {
    pub(crate) fn new(
        setting: Option<u64>,
        partitions: u16,
        model: &Model,
        trusted_proxies: Arc<[IpNet]>,
    ) -> Self {
        Self {
            setting,
            partitions: u64::from(partitions.max(1)),
            max_memory: AtomicU64::new(UNKNOWN),
            small_rows: model.rows_within(LARGE_BYTES),
            trusted_proxies,
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
            // Redis refuses jobs by itself if there is no room.
            (None, UNKNOWN) => return Some(0),
            (None, memory) => memory / PART,
        };
        Some((all / self.partitions).max(1))
    }

    /// Whether the job may keep something that counts.
    pub(crate) fn is_large(&self, submission: &Submission) -> bool {
        submission.input.len() > LARGE_BYTES || submission.rows > self.small_rows
    }
}

/// Charges the large ones of these submissions. For small ones the payer is not even looked up.
pub(crate) async fn charge(
    app: &App,
    caller: &Caller,
    request: &Parts,
    submissions: impl IntoIterator<Item = &mut Submission>,
) -> Result<(), ApiError> {
    let mut large: Vec<_> =
        submissions.into_iter().filter(|submission| app.quota.is_large(submission)).collect();
    if !large.is_empty() {
        let charge = charge_of(app, caller, request).await.map_err(ApiError::Store)?;
        large.iter_mut().for_each(|submission| submission.charge.clone_from(&charge));
    }
    Ok(())
}

/// The payer for large jobs of this request and its quota; `None` = there is no quota.
pub(crate) async fn charge_of(
    app: &App,
    caller: &Caller,
    request: &Parts,
) -> Result<Option<Charge>, StoreError> {
    let Some(most_bytes) = app.quota.most_bytes() else { return Ok(None) };
    let payer = match caller.owner() {
        Some(owner) => format!("o:{owner}"),
        None => {
            let keys = app.secret.keys(&app.store).await?;
            format!("a:{}", address(&keys.addresses, &app.quota.trusted_proxies, request))
        }
    };
    Ok(Some(Charge { payer: payer.into(), most_bytes }))
}

/// `Retry-After` in seconds, from the time until the payer may have room.
pub(crate) fn retry_after(room_in: Option<Duration>) -> u64 {
    match room_in {
        // As soon as one of its jobs ends.
        Some(Duration::ZERO) => 5,
        Some(time) => time.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX),
        None => 60,
    }
}

/// The pseudonym of a request's address: as for the rate limit, an IPv6 address counts as its /64.
fn address(key: &Pseudonym, trusted: &[IpNet], request: &Parts) -> String {
    let Some(Peer(peer)) = request.extensions.get() else { return key.of(&[]) };
    match Client::of(rate_limit::origin(trusted, peer.to_canonical(), &request.headers)) {
        Client::V4(bits) => key.of(&bits.to_be_bytes()),
        Client::V6(bits) | Client::Bucket(bits) => key.of(&bits.to_be_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, path::Path};

    use axum::http::Request;

    use super::*;
    use crate::secret::Keys;

    fn quota(setting: Option<u64>, partitions: u16) -> Quota {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose/models");
        Quota::new(setting, partitions, &Model::load(&models, "iris").unwrap(), Arc::new([]))
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
            let input = "1".repeat(bytes);
            quota(None, 1).is_large(&Submission { input, rows, ..Submission::default() })
        };
        assert!(!is_large(LARGE_BYTES, 1) && is_large(LARGE_BYTES + 1, 1));
        assert!(!is_large(20, 40) && is_large(2000, 100));
    }

    #[test]
    fn addresses_of_one_network_pay_together() {
        let key = Keys::derive(&[1; 32]).unwrap().addresses;
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        let of = |peer: &str, forwarded: &'static str| {
            let peer = Peer(peer.parse::<IpAddr>().unwrap());
            let request = Request::builder().header("x-forwarded-for", forwarded).extension(peer);
            address(&key, &trusted, &request.body(()).unwrap().into_parts().0)
        };
        assert_eq!(of("192.0.2.1", ""), of("::ffff:192.0.2.1", "198.51.100.7"));
        assert_ne!(of("192.0.2.1", ""), of("192.0.2.2", ""));
        assert_eq!(of("2001:db8:0:1::1", ""), of("2001:db8:0:1:ffff::2", ""));
        assert_ne!(of("2001:db8:0:1::1", ""), of("2001:db8:0:2::1", ""));
        assert_eq!(of("10.0.0.1", "192.0.2.1"), of("192.0.2.1", ""));
        assert!(!of("192.0.2.1", "").contains("192"));
    }
}
