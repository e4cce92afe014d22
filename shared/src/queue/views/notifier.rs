//! Wakes the waiters of a job that changed. All waiters of a process share one connection to Redis, which follows the channels of
//! exactly the jobs with waiters. A notification does not contain the change: the waiter reads the job, so a lost message costs
//! nothing. Redis publishes nothing when a job is deleted, so [`look_for_missing`] checks for that.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::StreamExt as _;
use redis::{
    FromRedisValue as _, RedisError,
    aio::{PubSub, PubSubSink},
};
use tokio::{
    sync::{Notify, watch},
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
/// Largest number of channels in one command, so that a reconnection with thousands of waiters does not block Redis.
const CHANNELS_A_COMMAND: usize = 500;
/// A channel that is never joined. To leave it is always allowed and always confirmed, so it serves as a check of the connection.
const NO_CHANNEL: &str = "-";

/// Wakes waiters. Clones share one connection, which is opened for the first waiter.
#[derive(Clone, Debug)]
pub struct Notifier {
    shared: Arc<Channels>,
    _task: Arc<AbortOnDropHandle<()>>,
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

#[derive(Debug)]
struct Channels {
    keys: Keys,
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
        let shared = Arc::new(Channels { keys, watched: Mutex::default(), changed: Notify::new() });
        let watched = Arc::clone(&shared);
        let follow = move || follow_for_ever(redis.clone(), Arc::clone(&watched));
        let task = tokio::spawn(supervisor::keep("job_watcher", follow));
        Self { shared, _task: Arc::new(AbortOnDropHandle::new(task)) }
    }

    /// Begins to watch a job. Read the job after each [`Watch::changed`].
    #[must_use]
    pub fn watch(&self, id: JobId) -> Watch {
        let (channel, since) = (self.shared.keys.job(id), Instant::now());
        let mut watched = self.shared.lock();
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
            self.shared.changed.notify_one();
            news
        };
        drop(watched);
        Watch { channel, news, since, shared: Arc::clone(&self.shared) }
    }

    /// How many jobs are being watched.
    #[must_use]
    pub fn jobs(&self) -> usize {
        self.shared.lock().channels.len()
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
        let error = match redis.pubsub().await {
            Ok(connection) => follow(&redis, &shared, connection, &mut contact).await,
            Err(error) => error,
        };
        sleep(contact.failed(&error)).await;
    }
}

/// Follows the watched jobs until the connection fails.
async fn follow(
    redis: &Redis,
    shared: &Channels,
    connection: PubSub,
    contact: &mut Contact<'_>,
) -> StoreError {
    let (sink, mut messages) = connection.split();
    shared.start_over();
    let reading = async {
        while let Some(message) = messages.next().await {
            shared.notify(message.get_channel_name(), false);
        }
        StoreError::Disconnected
    };
    tokio::select! {
        error = reading => error,
        error = keep_joined(shared, sink, contact) => error,
        error = look_for_missing(redis, shared) => error,
    }
}

/// Wakes waiters whose job does not exist any more, which nobody publishes. One command counts how many of up to
/// [`CHANNELS_A_COMMAND`] jobs exist; if one is missing, the waiters of all of them are woken. Whether Redis answers at all is
/// checked elsewhere.
async fn look_for_missing(redis: &Redis, shared: &Channels) -> StoreError {
    loop {
        sleep(LOOK_INTERVAL).await;
        // The channel of a job has the name of its hash.
        let mut jobs = shared.channels();
        jobs.sort_unstable();
        let of_a_partition = jobs.chunk_by(|one, next| tag(one) == tag(next));
        for jobs in of_a_partition.flat_map(|jobs| jobs.chunks(CHANNELS_A_COMMAND)) {
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

/// Joins and leaves channels as waiters come and go. Changes accumulate while a command runs, so thousands of waiters a second need
/// few commands.
async fn keep_joined(shared: &Channels, mut sink: PubSubSink, contact: &mut Contact<'_>) -> StoreError {
    let mut joined = HashSet::new();
    loop {
        let is_check = timeout(CHECK_INTERVAL, shared.changed.notified()).await.is_err();
        let (to_join, to_leave) = shared.differences(&joined);
        for channels in to_join.chunks(CHANNELS_A_COMMAND) {
            if let Err(error) = confirmed(sink.subscribe(channels)).await {
                return error;
            }
            contact.works();
            for channel in channels {
                joined.insert(channel.clone());
                shared.notify(channel, true);
            }
        }
        for channels in to_leave.chunks(CHANNELS_A_COMMAND) {
            if let Err(error) = confirmed(sink.unsubscribe(channels)).await {
                return error;
            }
            for channel in channels {
                joined.remove(channel);
            }
        }
        if is_check && let Err(error) = confirmed(sink.unsubscribe(NO_CHANNEL)).await {
            return error;
        }
    }
}

async fn confirmed(command: impl Future<Output = Result<(), RedisError>>) -> Result<(), StoreError> {
    match timeout(CONFIRM_TIMEOUT, command).await {
        Ok(outcome) => outcome.map_err(StoreError::from),
        Err(_) => Err(StoreError::Disconnected),
    }
}
