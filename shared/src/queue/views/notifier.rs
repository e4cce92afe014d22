//! Wakes the waiters of a job that changed. A notification is a message on the job's shard channel, which costs only the primary that
//! has the job. It does not contain the change: the waiter reads the job, so a lost message costs nothing. All waiters of a process
//! share one connection, in a cluster one for each partition, which follows the channels of exactly the jobs with waiters. Redis
//! publishes nothing when a job is deleted, so [`look_for_missing`] checks for that.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redis::{FromRedisValue as _, PushInfo, PushKind, RedisError, aio::MultiplexedConnection};
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc::UnboundedReceiver, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::{
    job::JobId,
    process::{retry::Backoff, supervisor, telemetry::chain},
    queue::{error::StoreError, keys::Keys, link::Redis},
};

/// How often a silent connection is checked, so that waiters do not hang on a half-open one.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often the existence of the watched jobs is checked.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Largest number of channels in one call, so that a reconnection with thousands of waiters does not block Redis.
const CHANNELS_A_CALL: usize = 500;

/// Wakes waiters. Clones share the connections. Each is opened for its first waiter.
#[derive(Clone, Debug)]
pub struct Notifier {
    redis: Redis,
    keys: Keys,
    /// Where the connections are served, whichever runtime a waiter uses.
    runtime: Handle,
    /// The connections: in a cluster by partition, since a shard channel is only at the primary that has the job.
    followers: Arc<Mutex<HashMap<Option<u8>, Follower>>>,
}

/// A connection.
#[derive(Debug)]
struct Follower {
    shared: Arc<Channels>,
    _task: AbortOnDropHandle<()>,
}

/// One waiter of one job. It ends when it is dropped.
#[derive(Debug)]
pub struct Watch {
    channel: String,
    /// Time of the last notification.
    news: watch::Receiver<Instant>,
    since: Instant,
    shared: Arc<Channels>,
}

#[derive(Debug, Default)]
struct Channels {
    watched: Mutex<ChannelTable>,
    /// A watch began or ended.
    changed: Notify,
}

#[derive(Debug, Default)]
struct ChannelTable {
    channels: HashMap<String, Channel>,
    /// Channels that gained their first waiter or lost their last one since the connection's task last checked.
    changed: Vec<String>,
}

#[derive(Debug)]
struct Channel {
    news: watch::Sender<Instant>,
    /// Number of waiters. The number of receivers would be wrong: a receiver lives a little longer than its waiter.
    waiters: usize,
    /// Whether Redis has confirmed the subscription. From then on, no change is missed.
    is_followed: bool,
}

impl Notifier {
    /// Watches jobs of the queue that `keys` names; needs a tokio runtime.
    #[must_use]
    pub fn new(redis: Redis, keys: Keys) -> Self {
        Self { redis, keys, runtime: Handle::current(), followers: Arc::default() }
    }

    /// Begins to watch a job. Read the job after each [`Watch::changed`].
    #[must_use]
    pub fn watch(&self, id: JobId) -> Watch {
        let (channel, since) = (self.keys.job(id), Instant::now());
        let shared = self.follower(id.partition());
        let mut watched = shared.lock();
        let news = if let Some(known) = watched.channels.get_mut(&channel) {
            known.waiters += 1;
            let mut news = known.news.subscribe();
            if known.is_followed {
                news.mark_changed();
            }
            news
        } else {
            let (sender, news) = watch::channel(since);
            watched
                .channels
                .insert(channel.clone(), Channel { news: sender, waiters: 1, is_followed: false });
            watched.changed.push(channel.clone());
            shared.changed.notify_one();
            news
        };
        drop(watched);
        Watch { channel, news, since, shared }
    }

    /// What follows the jobs of a partition.
    fn follower(&self, partition: u8) -> Arc<Channels> {
        let partition = self.redis.is_cluster().then_some(partition);
        let mut followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        let follower = followers.entry(partition).or_insert_with(|| {
            let redis = self.redis.of_key(&self.keys.log(partition.unwrap_or_default()));
            let shared = Arc::<Channels>::default();
            let watched = Arc::clone(&shared);
            let follow = move || follow_for_ever(redis.clone(), Arc::clone(&watched));
            let task = self.runtime.spawn(supervisor::keep("job_watcher", follow));
            Follower { shared, _task: AbortOnDropHandle::new(task) }
        });
        Arc::clone(&follower.shared)
    }
}

impl Watch {
    /// Waits until the job may have changed. Returns first when the subscription is confirmed, then at each change, and after each
    /// reconnection, since changes may have been missed. Several changes may cause one notification. Returns the time of the
    /// notification, which is the same for all watches of the job. A read that began then or later shows the change.
    pub async fn changed(&mut self) -> Instant {
        if self.news.changed().await.is_err() {
            // The sender lives as long as this watch.
            std::future::pending::<()>().await;
        }
        // The last notification may be older than this watch.
        self.since.max(*self.news.borrow_and_update())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watched = self.shared.lock();
        let Some(known) = watched.channels.get_mut(&self.channel) else { return };
        known.waiters -= 1;
        let is_last = known.waiters == 0;
        if is_last {
            watched.channels.remove(&self.channel);
            let channel = std::mem::take(&mut self.channel);
            watched.changed.push(channel);
            self.shared.changed.notify_one();
        }
    }
}

impl Channels {
    fn lock(&self) -> MutexGuard<'_, ChannelTable> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_watched(&self) -> bool {
        !self.lock().channels.is_empty()
    }

    fn channels(&self) -> Vec<String> {
        self.lock().channels.keys().cloned().collect()
    }

    /// Marks all channels to be joined: a new connection follows none.
    fn start_over(&self) {
        let mut watched = self.lock();
        watched.changed = watched.channels.keys().cloned().collect();
        watched.channels.values_mut().for_each(|channel| channel.is_followed = false);
        self.changed.notify_one();
    }

    /// The channels to join and to leave, given those that are joined.
    fn differences(&self, joined: &HashSet<String>) -> (Vec<String>, Vec<String>) {
        let mut watched = self.lock();
        let (mut to_join, mut to_leave) = (Vec::new(), Vec::new());
        let mut changed = std::mem::take(&mut watched.changed);
        changed.sort_unstable();
        changed.dedup();
        for channel in changed {
            match (watched.channels.get_mut(&channel), joined.contains(&channel)) {
                (Some(_), false) => to_join.push(channel),
                (None, true) => to_leave.push(channel),
                // Its last waiter left and a new one came since the last check.
                (Some(known), true) => known.is_followed_now(),
                (None, false) => {}
            }
        }
        (to_join, to_leave)
    }

    /// Whether the channel has waiters that rely on its messages.
    fn is_followed(&self, channel: &str) -> bool {
        self.lock().channels.get(channel).is_some_and(|known| known.is_followed)
    }

    fn notify(&self, channel: &str, joined: bool) {
        if let Some(known) = self.lock().channels.get_mut(channel) {
            if joined { known.is_followed_now() } else { known.has_news() }
        }
    }
}

impl Channel {
    fn is_followed_now(&mut self) {
        self.is_followed = true;
        self.has_news();
    }

    fn has_news(&self) {
        self.news.send_replace(Instant::now());
    }
}

/// Success or failure of the connection: what is logged, and the pauses between tries.
struct Contact<'a> {
    address: &'a str,
    backoff: Backoff,
    is_failing: bool,
}

impl Contact<'_> {
    /// Redis has confirmed a subscription. A connection alone proves nothing: the user may lack the right to subscribe.
    fn works(&mut self) {
        self.backoff.reset();
        if std::mem::take(&mut self.is_failing) {
            info!(action = "watching_again", address = self.address);
        }
    }

    /// Logs the first failure. Returns the pause before the next try.
    fn failed(&mut self, error: &StoreError) -> Duration {
        if !std::mem::replace(&mut self.is_failing, true) {
            let error = chain(error);
            warn!(action = "watching_interrupted", address = self.address, error);
        }
        self.backoff.next_pause()
    }
}

/// Connects while there are waiters, and reconnects.
async fn follow_for_ever(redis: Redis, shared: Arc<Channels>) {
    let backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    let mut contact = Contact { address: redis.address(), backoff, is_failing: false };
    loop {
        while !shared.is_watched() {
            shared.changed.notified().await;
        }
        redis.up().await;
        let error = match redis.subscriber().await {
            Ok((connection, pushes)) => follow(&redis, &shared, connection, pushes, &mut contact).await,
            Err(error) => error,
        };
        sleep(contact.failed(&error)).await;
    }
}

/// Follows the watched jobs until the connection fails.
async fn follow(
    redis: &Redis,
    shared: &Channels,
    connection: MultiplexedConnection,
    pushes: UnboundedReceiver<PushInfo>,
    contact: &mut Contact<'_>,
) -> StoreError {
    shared.start_over();
    tokio::select! {
        error = read(shared, pushes) => error,
        error = keep_joined(shared, connection, contact) => error,
        error = look_for_missing(redis, shared) => error,
    }
}

/// Reads messages until the connection is closed, or Redis ends a subscription: then the slot has moved to another primary.
async fn read(shared: &Channels, mut pushes: UnboundedReceiver<PushInfo>) -> StoreError {
    while let Some(PushInfo { kind, mut data }) = pushes.recv().await {
        let channel = data.drain(..).next().and_then(|channel| String::from_redis_value(channel).ok());
        match (kind, channel) {
            (PushKind::SMessage, Some(channel)) => shared.notify(&channel, false),
            (PushKind::SUnsubscribe, Some(channel)) if shared.is_followed(&channel) => break,
            (PushKind::Disconnection, _) => break,
            _ => {}
        }
    }
    StoreError::Disconnected
}

/// Wakes waiters whose job does not exist any more, which nobody publishes. One command counts how many of up to
/// [`CHANNELS_A_CALL`] jobs exist; if one is missing, the waiters of all of them are woken. Whether Redis answers at all is
/// checked elsewhere.
async fn look_for_missing(redis: &Redis, shared: &Channels) -> StoreError {
    loop {
        sleep(LOOK_INTERVAL).await;
        // The channel of a job has the name of its hash.
        let mut jobs = shared.channels();
        jobs.sort_unstable();
        let of_a_partition = jobs.chunk_by(|one, next| tag(one) == tag(next));
        for jobs in of_a_partition.flat_map(|jobs| jobs.chunks(CHANNELS_A_CALL)) {
            let mut command = redis::cmd("EXISTS");
            command.arg(jobs);
            let Some(first) = jobs.first() else { continue };
            let Ok(reply) = redis.of_key(first).run(&command).await else { continue };
            if usize::from_redis_value(reply).is_ok_and(|existing| existing < jobs.len()) {
                jobs.iter().for_each(|job| shared.notify(job, false));
            }
        }
    }
}

/// What the keys of a partition begin with.
fn tag(key: &str) -> &str {
    key.split_inclusive('}').next().unwrap_or(key)
}

/// Joins and leaves channels as waiters come and go. Changes accumulate while a call runs, so thousands of waiters a second need few
/// calls.
async fn keep_joined(
    shared: &Channels,
    mut connection: MultiplexedConnection,
    contact: &mut Contact<'_>,
) -> StoreError {
    let mut joined = HashSet::new();
    loop {
        let is_check = timeout(CHECK_INTERVAL, shared.changed.notified()).await.is_err();
        let (to_join, to_leave) = shared.differences(&joined);
        for channels in to_join.chunks(CHANNELS_A_CALL) {
            if let Err(error) = call(&mut connection, "SSUBSCRIBE", channels).await {
                return error;
            }
            contact.works();
            for channel in channels {
                joined.insert(channel.clone());
                shared.notify(channel, true);
            }
        }
        for channels in to_leave.chunks(CHANNELS_A_CALL) {
            if let Err(error) = call(&mut connection, "SUNSUBSCRIBE", channels).await {
                return error;
            }
            for channel in channels {
                joined.remove(channel);
            }
        }
        let ping = redis::cmd("PING");
        if is_check && let Err(error) = confirmed(ping.exec_async(&mut connection)).await {
            return error;
        }
    }
}

/// Runs the command for each channel by itself: the client library counts one confirmation for a command.
async fn call(
    connection: &mut MultiplexedConnection,
    command: &str,
    channels: &[String],
) -> Result<(), StoreError> {
    let mut calls = redis::pipe();
    for channel in channels {
        calls.cmd(command).arg(channel);
    }
    confirmed(calls.exec_async(connection)).await
}

async fn confirmed(call: impl Future<Output = Result<(), RedisError>>) -> Result<(), StoreError> {
    match timeout(CONFIRM_TIMEOUT, call).await {
        Ok(outcome) => outcome.map_err(StoreError::from),
        Err(_) => Err(StoreError::Disconnected),
    }
}
