//! The complete state of some jobs and of the streams in Redis, read at once and without the store.

use std::collections::{HashMap, HashSet};

use redis::{FromRedisValue, Pipeline, Value};
use tepal_shared::{
    job::{JobId, ModelName, Priority, Stream},
    queue::keys::GROUP,
};

use crate::queue::{Queue, all_streams, model, other};

type Hash = HashMap<String, String>;
type Entries = Vec<(String, Vec<(String, String)>)>;
type Pending = Vec<(String, String, u64, u64)>;

/// A word in the line of a state -> fields of the job hash. The word stands for at least one of them.
const WORDS: [(&str, &[&str]); 6] = [
    ("input", &["input"]),
    ("result", &["result"]),
    ("error", &["error", "error_code"]),
    ("next", &["next_attempt_at"]),
    ("limits", &["queue_deadline", "run_deadline", "timeout_ms"]),
    ("origin", &["request_id", "traceparent"]),
];

const MODELS: [fn() -> ModelName; 2] = [model, other];

/// See the module.
pub(crate) struct Snapshot {
    jobs: HashMap<JobId, (Hash, i64)>,
    /// The kept inputs, with the rest of their lifetimes, s.
    inputs: HashMap<JobId, (String, i64)>,
    /// (Stream, entry id) -> job id.
    entries: HashMap<(usize, String), String>,
    /// (Stream, entry id) -> the consumer whose pending list holds it.
    owners: HashMap<(usize, String), String>,
    /// (Job id, the model whose dead letters name it).
    dead: HashSet<(String, ModelName)>,
    result_ttl_s: u64,
    failed_input_ttl_s: u64,
}

impl Queue {
    /// The job's complete state as one line, see [`Snapshot::state`].
    pub(crate) async fn state(&self, id: JobId) -> String {
        Snapshot::read(self, &[id]).await.state(id)
    }

    /// Entries in all work streams, and how many of them are pending.
    pub(crate) async fn outstanding(&self) -> (u64, u64) {
        let snapshot = Snapshot::read(self, &[]).await;
        (snapshot.length(), snapshot.pending())
    }
}

impl Snapshot {
    /// Reads these jobs and all streams in one round trip.
    pub(crate) async fn read(queue: &Queue, ids: &[JobId]) -> Self {
        let keys = queue.store.queue.keys();
        let mut reads = Pipeline::new();
        reads.ignore_errors();
        for model in MODELS {
            reads.cmd("XRANGE").arg(keys.dead(0, model())).arg("-").arg("+");
        }
        for stream in all_streams() {
            let stream = keys.stream(0, stream);
            reads.cmd("XRANGE").arg(&stream).arg("-").arg("+");
            reads.cmd("XPENDING").arg(&stream).arg(GROUP).arg("-").arg("+").arg(100_000);
        }
        for id in ids {
            reads.cmd("HGETALL").arg(keys.job(*id)).cmd("TTL").arg(keys.job(*id));
            reads.cmd("GET").arg(keys.input(*id)).cmd("TTL").arg(keys.input(*id));
        }
        let replies: Vec<Value> = reads.query_async(&mut queue.connection()).await.unwrap();
        let mut replies = replies.into_iter();
        let mut dead = HashSet::new();
        for model in MODELS {
            let letters = parsed::<Entries>(replies.next());
            dead.extend(letters.iter().map(|letter| (job_of(letter), model())));
        }
        let (mut entries, mut owners) = (HashMap::new(), HashMap::new());
        for stream in 0..all_streams().len() {
            let (all, pending) = (parsed::<Entries>(replies.next()), replies.next());
            entries.extend(all.iter().map(|entry| ((stream, entry.0.clone()), job_of(entry))));
            // There may be no group yet.
            let pending = pending.filter(|reply| !matches!(reply, Value::ServerError(_)));
            let pending = pending.map(|reply| parsed::<Pending>(Some(reply))).unwrap_or_default();
            owners.extend(pending.into_iter().map(|(entry, owner, ..)| ((stream, entry), owner)));
        }
        let (mut jobs, mut inputs) = (HashMap::new(), HashMap::new());
        for id in ids {
            jobs.insert(*id, (parsed(replies.next()), parsed(replies.next())));
            let (input, ttl_s) = (parsed::<Option<String>>(replies.next()), parsed(replies.next()));
            inputs.extend(input.map(|input| (*id, (input, ttl_s))));
        }
        let [result_ttl_s, failed_input_ttl_s] =
            [queue.store.queue.policy().result_ttl, queue.store.queue.policy().failed_input_ttl]
                .map(|ttl| ttl.as_secs());
        Self { jobs, inputs, entries, owners, dead, result_ttl_s, failed_input_ttl_s }
    }

    /// Entries in all streams.
    pub(crate) fn length(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Pending entries of all streams.
    pub(crate) fn pending(&self) -> u64 {
        self.owners.len() as u64
    }

    /// A field of a job's hash.
    pub(crate) fn field(&self, id: JobId, field: &str) -> Option<&str> {
        self.jobs[&id].0.get(field).map(String::as_str)
    }

    /// The input of a job that failed or was cancelled.
    pub(crate) fn kept_input(&self, id: JobId) -> Option<&str> {
        self.inputs.get(&id).map(|(input, _)| input.as_str())
    }

    /// `status attempt/released/lost place words`. The place is `new` (in the stream, never delivered), a consumer
    /// (in its pending list), `-` (nowhere), or a fault. The words show which fields the hash has, whether the key
    /// has the TTL of a terminal job, whether there is a dead letter, and whether the input is kept apart with its own TTL.
    pub(crate) fn state(&self, id: JobId) -> String {
        let (hash, ttl_s) = &self.jobs[&id];
        let place = self.place(id);
        if hash.is_empty() {
            return if place == "-" { "missing".to_owned() } else { format!("missing {place}") };
        }
        let text = |field: &str, absent: &'static str| hash.get(field).map_or(absent, String::as_str);
        let counters = ["attempt", "released", "lost"].map(|field| text(field, "0")).join("/");
        let mut words = vec![text("status", "statusless").to_owned(), counters, place];
        let has = |fields: &[&str]| fields.iter().any(|field| hash.contains_key(*field));
        words.extend(WORDS.iter().filter(|(_, fields)| has(fields)).map(|(word, _)| (*word).to_owned()));
        words.extend((*ttl_s >= 0).then(|| lifetime("ttl", *ttl_s, self.result_ttl_s)));
        for (_, model) in self.dead.iter().filter(|(dead, _)| *dead == id.to_string()) {
            let is_own = hash.get("m").is_some_and(|own| own == model.as_str());
            words.push(if is_own { "dead" } else { "dead-elsewhere" }.to_owned());
        }
        let kept = self.inputs.get(&id);
        words.extend(kept.map(|(_, ttl_s)| lifetime("kept", *ttl_s, self.failed_input_ttl_s)));
        words.join(" ")
    }

    /// Whether the job belongs into this stream.
    fn is_of(&self, id: JobId, stream: Stream) -> bool {
        let priority = self.field(id, "priority").unwrap_or(Priority::Normal.as_str());
        self.field(id, "m") == Some(stream.model.as_str()) && priority == stream.priority.as_str()
    }

    fn place(&self, id: JobId) -> String {
        let text = id.to_string();
        let mut places = self.entries.iter().filter(|(_, job)| **job == text).map(|(place, _)| place);
        let expected = self.field(id, "entry");
        match (places.next(), places.next()) {
            (None, _) if expected.is_none() => "-".to_owned(),
            (None, _) => "entry-gone".to_owned(),
            (Some(_), Some(_)) => "two-entries".to_owned(),
            (Some(place), None) if expected != Some(place.1.as_str()) => "wrong-entry".to_owned(),
            (Some((stream, _)), None) if !self.is_of(id, all_streams()[*stream]) => "wrong-stream".to_owned(),
            (Some(place), None) => self.owners.get(place).map_or("new", String::as_str).to_owned(),
        }
    }
}

/// The word alone if about so much of a life is left.
fn lifetime(word: &str, left_s: i64, whole_s: u64) -> String {
    let is_whole = u64::try_from(left_s).is_ok_and(|left_s| left_s + 60 > whole_s && left_s <= whole_s);
    if is_whole { word.to_owned() } else { format!("{word}={left_s}") }
}

fn parsed<T: FromRedisValue>(reply: Option<Value>) -> T {
    redis::from_redis_value(reply.unwrap()).unwrap()
}

fn job_of(entry: &(String, Vec<(String, String)>)) -> String {
    entry.1.iter().find(|(field, _)| field == "id").unwrap().1.clone()
}
