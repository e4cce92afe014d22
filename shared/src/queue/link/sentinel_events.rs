//! Events of Sentinels: a failover is about to replace the primary, or has. In an orderly failover the primary goes on accepting jobs
//! for seconds that are lost when it becomes a replica, so the question once a second comes too late.

use std::{convert::Infallible, sync::Once, time::Duration};

use futures_util::{StreamExt as _, future::select_all};
use redis::{Client, ConnectionInfo, ErrorKind, RedisError};
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::{
    process::telemetry,
    queue::{
        error::StoreError,
        link::{place::NodeAddress, sentinel::Sentinels},
    },
};

/// A replica will be promoted, after a tenth of a second or two. `master NAME IP PORT`: the present primary.
const BEGINS: &str = "+failover-state-select-slave";
/// There is another primary. `NAME IP PORT IP PORT`: the former and the new one.
const SWITCHED: &str = "+switch-master";

/// A connection that broke unnoticed reports nothing, so each is replaced after this time.
const LONGEST_SUBSCRIPTION: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_secs(1);

static FORBIDDEN: Once = Once::new();

impl Sentinels {
    /// Waits until a Sentinel reports that the primary at this address is being replaced. Reports may be missed.
    pub(super) async fn report_replacement_of(&self, address: &str) {
        let reports = self.addresses.iter().map(|sentinel| Box::pin(self.report(sentinel, address)));
        let reports: Vec<_> = reports.collect();
        if reports.is_empty() {
            return std::future::pending().await;
        }
        select_all(reports).await;
    }

    async fn report(&self, sentinel: &ConnectionInfo, address: &str) {
        loop {
            match timeout(LONGEST_SUBSCRIPTION, self.listen(sentinel, address)).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => {
                    let error = StoreError::from(error);
                    if matches!(error, StoreError::Forbidden(_)) {
                        match forbidden(&error).await {}
                    }
                    sleep(PAUSE).await;
                }
                Err(_) => {}
            }
        }
    }

    async fn listen(&self, sentinel: &ConnectionInfo, address: &str) -> Result<(), RedisError> {
        let mut pubsub = Client::open(sentinel.clone())?.get_async_pubsub().await?;
        pubsub.subscribe(&[BEGINS, SWITCHED]).await?;
        let mut messages = pubsub.on_message();
        while let Some(message) = messages.next().await {
            let event: String = message.get_payload()?;
            if replaced(message.get_channel_name(), &event, &self.name).is_some_and(|of| of == address) {
                return Ok(());
            }
        }
        Err(RedisError::from((ErrorKind::Io, "a Sentinel closed the connection")))
    }
}

/// The user of the Sentinels may not subscribe. Sentinels are still asked once a second.
async fn forbidden(error: &StoreError) -> Infallible {
    FORBIDDEN.call_once(|| {
        warn!(action = "sentinel_events_forbidden", error = telemetry::chain(error));
    });
    std::future::pending().await
}

/// The primary of the group that this event replaces.
fn replaced(channel: &str, event: &str, name: &str) -> Option<String> {
    let of_group = match channel {
        SWITCHED => event,
        BEGINS => event.strip_prefix("master ")?,
        _ => return None,
    };
    let mut words = of_group.split(' ').filter(|word| !word.is_empty());
    if words.next() != Some(name) {
        return None;
    }
    let (host, port) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
    Some(NodeAddress { host, port }.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_the_group_name_the_former_primary() {
        let switched = |event| replaced(SWITCHED, event, "main");
        assert_eq!(switched("main 10.0.0.1 6379 10.0.0.2 6380").as_deref(), Some("10.0.0.1:6379"));
        assert_eq!(switched("main ::1 6379 ::2 6379").as_deref(), Some("[::1]:6379"));
        assert_eq!(switched("other 10.0.0.1 6379 10.0.0.2 6380"), None);
        assert_eq!(switched("main"), None);
        let begins = "master main 10.0.0.1 6379";
        assert_eq!(replaced(BEGINS, begins, "main").as_deref(), Some("10.0.0.1:6379"));
        assert_eq!(replaced(BEGINS, begins, "other"), None);
        assert_eq!(replaced("+sdown", begins, "main"), None);
    }
}
