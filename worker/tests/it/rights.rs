//! The commands that the doctor tries are those that the worker and its scripts call, on the same kinds of keys.

use std::{collections::BTreeSet, time::Duration};

use tepal_shared::{
    job::{Charge, Idempotency, NewJob, Priority},
    queue::{doctor::Service, keys::Keys},
};
use tepal_tests::{
    model_server::{Behaviour, ModelServer, ServerSpec},
    redis::{RedisServer, rights},
    wait::eventually,
};
use tonic::Code;

use crate::{
    flowers::{input, input_of_rows},
    queue::{Queue, SOON, model, new_job, stream},
    settings::Settings,
};

/// Only the doctor needs it.
const BY_THE_DOCTOR: &str = "PING";
/// Called only when a take has read more than a batch may hold, which the tests of `take` show; on an empty queue; and a day
/// after a model was served last.
const RARE: [&str; 3] = ["XGROUP SETID $stream", "SET $format", "HDEL $models"];
/// `MONITOR` does not show them.
const NOT_SHOWN: [&str; 2] = ["ACL DRYRUN", "CLIENT UNBLOCK"];
/// Commands of the connection itself: every user may run them, or works without them.
const CONNECTING: [&str; 3] = ["HELLO", "AUTH", "CLIENT SETINFO"];

/// The beginning of the keys of all models, from the key of one.
fn any_model(key: String) -> String {
    key.trim_end_matches(model().as_str()).to_owned()
}

/// The beginnings of a partition's keys and what they are.
fn kinds(keys: &Keys) -> Vec<(String, &'static str)> {
    let mut kinds = vec![
        (keys.job_prefix(0), "$job"),
        (keys.input_prefix(0), "$input"),
        (keys.quota_prefix(0), "$quota"),
        (keys.log(0), "$log"),
        (any_model(keys.dead(0, model())), "$dead"),
        (any_model(keys.alone(0, model())), "$alone"),
        (keys.format(), "$format"),
        (keys.idempotency(0, ""), "$idem"),
        (keys.models(), "$models"),
        (keys.workers(), "$workers"),
        (keys.stream_prefix(0), "$stream"),
    ];
    // At the start, those of the partitions that the process does not use.
    kinds.extend((1..=u8::MAX).map(|partition| (keys.log(partition), "$log")));
    kinds
}

/// The state that a worker finds when it starts after others died.
async fn leave_behind(queue: &Queue) {
    let dead = queue.submit(input(5.1)).await;
    queue.take_for_a_dead_worker(dead).await;
    queue.lapse(dead);
    let lost = queue.submit(input(5.1)).await;
    let entry = &queue.hash(lost)["entry"];
    queue.redis.cli(&["XDEL", &queue.store.queue.keys().stream(0, stream(Priority::Normal)), entry]);
    let late = NewJob { max_queue: Some(Duration::from_millis(1)), ..new_job(input(5.1)) };
    queue.submit_job(0, late).await;
    // A group that was removed, and the heartbeat of a worker that died long ago.
    queue.redis.cli(&[
        "XGROUP",
        "DESTROY",
        &queue.store.queue.keys().stream(0, stream(Priority::Low)),
        "workers",
    ]);
    queue.redis.cli(&["HSET", &queue.store.queue.keys().workers(), "dead", "1700000000000 {}"]);
}

/// Large jobs, of which one completes and one fails, and a charge that stays.
async fn exercise_quota(queue: &Queue, server: &ModelServer) {
    let charge = Some(Charge { payer: "a:x".into(), most_bytes: 0 });
    for behaviour in [Behaviour::Normal, Behaviour::Status(Code::InvalidArgument, String::new())] {
        server.script_next(1, behaviour);
        let job = NewJob { charge: charge.clone(), ..new_job(input_of_rows(600)) };
        let id = queue.submit_job(0, job).await;
        let has_ended =
            async || queue.store.views.job(id).await.unwrap().is_none_or(|job| job.status.is_terminal());
        eventually(SOON, "a large job to end", has_ended).await;
    }
    let [charges, ..] = queue.store.queue.keys().quota(0);
    queue.redis.cli(&["ZADD", &charges, "0", "9999999999998 id 9000 a:x"]);
}

/// Jobs that end in every way. Their records expire at once, with the idempotency key of one.
async fn exercise(queue: &Queue, server: &ModelServer) {
    let key = Idempotency { key_hash: "aa".to_owned(), fingerprint: "bb".to_owned() };
    queue.submit_job(0, NewJob { idempotency: Some(key), ..new_job(input(5.1)) }).await;
    for behaviour in [
        Behaviour::Status(Code::Internal, String::new()),
        Behaviour::Status(Code::InvalidArgument, String::new()),
        Behaviour::Delay(Duration::from_millis(600)),
    ] {
        server.script_next(1, behaviour);
        let calls = server.call_count();
        queue.submit(input(5.1)).await;
        eventually(SOON, "the call", async || server.call_count() > calls).await;
    }
    // Several, so that one waits for another's call.
    server.set_behaviour(Behaviour::CrashOnRowsOver(9.0));
    for killer in queue.submit_all((0..4).map(|_| input(9.9))).await {
        let has_ended =
            async || queue.store.views.job(killer).await.unwrap().is_none_or(|job| job.status.is_terminal());
        eventually(SOON, "a job that kills the server to end", has_ended).await;
    }
}

#[tokio::test]
async fn the_doctor_tries_what_the_worker_calls_and_nothing_else() {
    let (queue, server) =
        (Queue::on(RedisServer::start().await), ModelServer::start(ServerSpec::iris()).await);
    queue.redis.cli(&["ACL", "SETUSER", "tepal-worker", "on", ">secret", "~*", "&*", "+@all"]);
    leave_behind(&queue).await;
    let monitor = queue.redis.monitor();
    let url = format!("redis://tepal-worker:secret@{}", queue.redis.addr());
    let settings = Settings::serving(&server).with_lease_ms(300).with("RETRY_BASE_MS", 1);
    let _worker = queue.worker(settings.with("RESULT_TTL_SECONDS", 1).with("REDIS_URL", url)).await;
    exercise(&queue, &server).await;
    server.set_behaviour(Behaviour::Normal);
    exercise_quota(&queue, &server).await;

    let kinds = kinds(queue.store.queue.keys());
    let needs = Service::Worker.needs(queue.store.queue.keys(), 0);
    let tried = rights(needs.iter().map(Vec::as_slice), &kinds);
    // Some commands come with the janitor's rounds.
    eventually(2 * SOON, "the same commands", async || {
        let clients = queue.redis.clients_of("tepal-worker");
        let executed = monitor.executed();
        let of_worker = executed.iter().filter(|executed| clients.contains(&executed.by));
        let mut called = rights(of_worker.map(|executed| executed.words.as_slice()), &kinds);
        called.retain(|command| !CONNECTING.contains(&command.as_str()));
        called.extend([BY_THE_DOCTOR].into_iter().chain(NOT_SHOWN).chain(RARE).map(str::to_owned));
        let difference = |a: &BTreeSet<String>, b| a.difference(b).cloned().collect::<Vec<_>>();
        let [unchecked, needless] = [difference(&called, &tried), difference(&tried, &called)];
        if unchecked.is_empty() && needless.is_empty() {
            Ok(())
        } else {
            Err(format!("called and not tried: {unchecked:?}; tried and not called: {needless:?}"))
        }
    })
    .await;
}
