//! Tells whoever waits for a job that it has changed. All waiters of a process share one connection to Redis, which
//! follows the channels of exactly those jobs that somebody waits for. It never says what changed: the waiter reads
//! the job, so that a message lost with a connection costs nothing. Redis publishes nothing when a job is deleted or
//! flushed, so [`look_for_missing`] checks for that.

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
    process::{retry::Backoff, supervisor},
    queue::{error::StoreError, keys::Keys, link::Redis},
};

/// How often a silent connection is checked, so that a half-open one does not leave waiters without news.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often the watched jobs are checked for existence.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Most channels in one command: keeps a reconnection with thousands of waiters from blocking Redis.
const CHANNELS_A_COMMAND: usize = 500;
/// Leaving a channel that was never joined is always allowed and always confirmed: a check of the connection.
const NO_CHANNEL: &str = "-";

/// Watches jobs for any number of waiters. Clones share one connection; it is made when the first waiter comes.
#[derive(Clone, Debug)]
pub struct Notifier {
    shared: Arc<Shared>,
    _task: Arc<AbortOnDropHandle<()>>,
}

/// One waiter's view of one job. Dropping it ends the watch.
#[derive(Debug)]
pub struct Watch {
    channel: String,
    /// When the last news came.
    news: watch::Receiver<Instant>,
    since: Instant,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    keys: Keys,
    watched: Mutex<Watched>,
    /// Somebody began or ended a watch.
    stirred: Notify,
}

#[derive(Debug, Default)]
struct Watched {
    channels: HashMap<String, Channel>,
    /// Channels that got their first or lost their last waiter since the connection's task looked.
    stirred: Vec<String>,
}

#[derive(Debug)]
struct Channel {
    news: watch::Sender<Instant>,
    /// How many waiters there are. The receivers cannot be counted instead: one lives a little longer than its waiter.
    waiters: usize,
    /// Whether Redis has confirmed the subscription: from then on no change can be missed.
    is_followed: bool,
}

impl Notifier {
    /// Watches jobs of the queue that `keys` names; needs a tokio runtime.
    #[must_use]
    pub fn new(redis: Redis, keys: Keys) -> Self {
        let shared = Arc::new(Shared { keys, watched: Mutex::default(), stirred: Notify::new() });
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
            watched.stirred.push(channel.clone());
            self.shared.stirred.notify_one();
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
    /// Waits until the job may have changed: first when no later change can be missed any more, then at each change,
    /// and whenever changes may have been missed because the connection broke. Several changes may be reported as one. Returns
    /// the moment of the notification: a read that began then or later shows the change. All watches of the job get the same one.
    pub async fn changed(&mut self) -> Instant {
        if self.news.changed().await.is_err() {
            // The sender lives as long as this watch.
            std::future::pending::<()>().await;
        }
        // The last news may be older than this watch.
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
            watched.stirred.push(channel);
            self.shared.stirred.notify_one();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_watched(&self) -> bool {
        !self.lock().channels.is_empty()
    }

    fn channels(&self) -> Vec<String> {
        self.lock().channels.keys().cloned().collect()
    }

    /// A new connection follows nothing yet.
    fn start_over(&self) {
        let mut watched = self.lock();
        watched.stirred = watched.channels.keys().cloned().collect();
        watched.channels.values_mut().for_each(|channel| channel.is_followed = false);
        self.stirred.notify_one();
    }

    /// What to join and what to leave, given what is joined.
    fn differences(&self, joined: &HashSet<String>) -> (Vec<String>, Vec<String>) {
        let mut watched = self.lock();
        let (mut to_join, mut to_leave) = (Vec::new(), Vec::new());
        let mut stirred = std::mem::take(&mut watched.stirred);
        stirred.sort_unstable();
        stirred.dedup();
        for channel in stirred {
            match (watched.channels.get_mut(&channel), joined.contains(&channel)) {
                (Some(_), false) => to_join.push(channel),
                (None, true) => to_leave.push(channel),
                // Its last waiter left and another one came before this look.
                (Some(known), true) => known.is_followed_now(),
                (None, false) => {}
            }
        }
        (to_join, to_leave)
    }

    fn tell(&self, channel: &str, joined: bool) {
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

/// How well following jobs goes: what is logged of it, and the pauses between tries.
struct Contact<'a> {
    address: &'a str,
    backoff: Backoff,
    is_failing: bool,
}

impl Contact<'_> {
    /// Redis has confirmed a subscription. A connection alone proves nothing: one can be made without the right to follow
    /// anything.
    fn works(&mut self) {
        self.backoff.reset();
        if std::mem::take(&mut self.is_failing) {
            info!(action = "watching_again", address = self.address);
        }
    }

    /// Gives the pause before the next try.
    fn failed(&mut self, error: &StoreError) -> Duration {
        if !std::mem::replace(&mut self.is_failing, true) {
            let error = crate::process::telemetry::chain(error);
            warn!(action = "watching_interrupted", address = self.address, error);
        }
        self.backoff.next_pause()
    }
}

/// Connects while somebody waits, follows, connects again.
async fn follow_for_ever(redis: Redis, shared: Arc<Shared>) {
    let backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    let mut contact = Contact { address: redis.address(), backoff, is_failing: false };
    loop {
        while !shared.is_watched() {
            shared.stirred.notified().await;
        }
        redis.up().await;
        let error = match redis.pubsub().await {
            Ok(connection) => follow(&redis, &shared, connection, &mut contact).await,
            Err(error) => error,
        };
        sleep(contact.failed(&error)).await;
    }
}

/// Follows what is watched until the connection fails.
async fn follow(redis: &Redis, shared: &Shared, connection: PubSub, contact: &mut Contact<'_>) -> StoreError {
    let (sink, mut messages) = connection.split();
    shared.start_over();
    let reading = async {
        while let Some(message) = messages.next().await {
            shared.tell(message.get_channel_name(), false);
        }
        StoreError::Disconnected
    };
    tokio::select! {
        error = reading => error,
        error = keep_joined(shared, sink, contact) => error,
        error = look_for_missing(redis, shared) => error,
    }
}

/// Wakes waiters whose job does not exist any more, since nobody publishes that. One command asks for up to
/// [`CHANNELS_A_COMMAND`] jobs how many of them exist; if any is missing, all of these are read. A Redis that does not answer
/// is left to the checks of the connections.
async fn look_for_missing(redis: &Redis, shared: &Shared) -> StoreError {
    loop {
        sleep(LOOK_INTERVAL).await;
        // A job's channel has the name of its hash.
        for jobs in shared.channels().chunks(CHANNELS_A_COMMAND) {
            let mut command = redis::cmd("EXISTS");
            command.arg(jobs);
            let Ok(reply) = redis.run(&command).await else { break };
            if usize::from_redis_value(reply).is_ok_and(|existing| existing < jobs.len()) {
                jobs.iter().for_each(|job| shared.tell(job, false));
            }
        }
    }
}

/// Joins and leaves channels as waiters come and go. While one command is under way further changes gather, so
/// thousands of waiters a second need few commands.
async fn keep_joined(shared: &Shared, mut sink: PubSubSink, contact: &mut Contact<'_>) -> StoreError {
    let mut joined = HashSet::new();
    loop {
        let is_check = timeout(CHECK_INTERVAL, shared.stirred.notified()).await.is_err();
        let (to_join, to_leave) = shared.differences(&joined);
        for channels in to_join.chunks(CHANNELS_A_COMMAND) {
            if let Err(error) = confirmed(sink.subscribe(channels)).await {
                return error;
            }
            contact.works();
            for channel in channels {
                joined.insert(channel.clone());
                shared.tell(channel, true);
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
