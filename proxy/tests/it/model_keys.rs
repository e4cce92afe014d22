//! Jobs of other models do not exist for a key that is limited to models.

use serde_json::json;
use tempfile::TempDir;
use tepal_tests::{http::Method, process::Proxy, wait::eventually};

use crate::{
    cursors::remaining,
    gateway::{FLOWER, Gateway, SOON},
    keys::Keys,
    models::{TOY, repository},
    owners::{assert_hidden, listed},
};

/// A gateway with two models, and keys of one owner: for all models and for one of them; and an admin's key for that one.
async fn gateway(settings: &[(&str, &str)]) -> (Gateway, [String; 3], TempDir) {
    let folder = repository();
    let keys = Keys::with("");
    let holders = ["--owner ann", "--owner ann --model iris", "--scope admin --model iris"];
    let holders = holders.map(|flags| keys.add(flags));
    let models = [("MODELS_DIR", folder.path().to_str().unwrap())];
    (keys.gateway(&[&models[..], settings].concat()).await, holders, folder)
}

async fn submit(gateway: &Gateway, key: &str, body: &str) -> String {
    let answer = gateway.as_key(key, Method::POST, "/predict", body).await;
    answer.json()["job_id"].as_str().unwrap_or_else(|| panic!("{}", answer.text())).to_owned()
}

#[tokio::test]
async fn a_job_of_another_model_is_answered_exactly_as_one_that_does_not_exist() {
    let (gateway, [all, iris, admin], _folder) = gateway(&[]).await;
    let pending = submit(&gateway, &all, TOY).await;
    let cancelled = submit(&gateway, &all, TOY).await;
    gateway.as_key(&all, Method::DELETE, &format!("/job/{cancelled}"), "").await;
    for (key, id) in [(&iris, &pending), (&iris, &cancelled), (&admin, &pending), (&admin, &cancelled)] {
        assert_hidden(&gateway, key, id).await;
    }
    let state = gateway.as_key(&all, Method::GET, &format!("/job/{pending}"), "").await.json();
    assert_eq!(state["status"], "pending");
}

#[tokio::test]
async fn jobs_of_the_models_of_a_key_can_be_read_and_changed_with_it() {
    let (gateway, [all, iris, admin], _folder) = gateway(&[]).await;
    for key in [&iris, &admin] {
        let id = submit(&gateway, &all, FLOWER).await;
        let path = format!("/job/{id}");
        let statuses = [
            gateway.as_key(key, Method::GET, &path, "").await.status,
            gateway.as_key(key, Method::DELETE, &path, "").await.status,
            gateway.as_key(key, Method::POST, &format!("{path}/retry"), "").await.status,
        ];
        assert_eq!(statuses, [200, 200, 202]);
        let body = json!({"job_ids": [id]}).to_string();
        let found = gateway.as_key(key, Method::POST, "/jobs/lookup", &body).await.json();
        assert_eq!(found["jobs"][0]["job_id"], id);
    }
}

#[tokio::test]
async fn a_listing_shows_the_jobs_of_the_models_of_a_key() {
    let (gateway, [all, iris, admin], _folder) = gateway(&[("PARTITIONS", "2")]).await;
    let (mut irises, mut both) = (Vec::new(), Vec::new());
    for _ in 0..7 {
        irises.push(submit(&gateway, &all, FLOWER).await);
        both.extend([irises[irises.len() - 1].clone(), submit(&gateway, &all, TOY).await]);
    }
    let sorted = |mut ids: Vec<String>| {
        ids.sort();
        ids
    };
    for query in ["", "limit=2", "status=pending&limit=3", "model=iris&limit=4"] {
        for key in [&iris, &admin] {
            assert_eq!(sorted(listed(&gateway, key, query).await), sorted(irises.clone()), "{query}");
        }
    }
    assert_eq!(sorted(listed(&gateway, &all, "limit=5").await), sorted(both));
    for key in [&iris, &admin] {
        assert_eq!(listed(&gateway, key, "model=toy").await, Vec::<String>::new());
    }
}

/// The cost of a page is in the RateLimit header.
#[tokio::test]
async fn what_a_page_costs_does_not_depend_on_the_jobs_that_it_hides() {
    let (gateway, [all, ..], _folder) = gateway(&[]).await;
    let keys = Keys::with("");
    let iris = keys.add("--owner ann --model iris --requests-per-minute 100");
    let proxy = [("API_KEYS_FILE", keys.path().to_str().unwrap().to_owned())];
    let proxy = Proxy::start(
        &gateway.redis.proxy_url(),
        &proxy.each_ref().map(|(name, value)| (*name, value.as_str())),
    )
    .await;
    let get = async |path: &str| proxy.client().request(Method::GET, path, &[("x-api-key", &iris)], "").await;
    let costs = async || {
        let before = remaining(&get("/job/none").await);
        before - remaining(&get("/jobs?limit=1&status=pending").await)
    };
    assert_eq!(costs().await, 2);
    for _ in 0..120 {
        submit(&gateway, &all, TOY).await;
    }
    assert_eq!(costs().await, 2);
}

#[tokio::test]
async fn only_a_key_with_models_costs_redis_another_command() {
    let (gateway, [all, iris, _], _folder) = gateway(&[]).await;
    let monitor = gateway.redis.monitor();
    let jobs = [submit(&gateway, &all, FLOWER).await, submit(&gateway, &all, FLOWER).await];
    for (key, id) in [&all, &iris].into_iter().zip(&jobs) {
        gateway.as_key(key, Method::DELETE, &format!("/job/{id}"), "").await;
    }
    let commands = |id: &String| {
        let key = gateway.store.queue.keys().job(id.parse().unwrap());
        let executed = monitor.executed().into_iter();
        // Other reads of a field are those of the probe.
        let is_counted =
            |words: &[String]| words[0] != "HGET" || words.last().is_some_and(|field| field == "m");
        let of_job = executed.filter(|command| {
            !command.is_in_script && command.words.contains(&key) && is_counted(&command.words)
        });
        of_job.map(|command| command.words[0].to_lowercase()).collect::<Vec<_>>()
    };
    let all_of_them = async || {
        let of_limited = commands(&jobs[1]);
        if of_limited == ["evalsha", "hget", "evalsha"] { Ok(()) } else { Err(format!("{of_limited:?}")) }
    };
    eventually(SOON, "the commands of the limited key", all_of_them).await;
    assert_eq!(commands(&jobs[0]), ["evalsha", "evalsha"]);
}

#[tokio::test]
async fn metadata_of_the_default_model_needs_a_key_for_it() {
    let folder = repository();
    let keys = Keys::with("");
    let toy = keys.add("--model toy");
    let gateway = keys.gateway(&[("MODELS_DIR", folder.path().to_str().unwrap())]).await;
    let answer = gateway.as_key(&toy, Method::GET, "/metadata", "").await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (403, Some("model_forbidden")));
}
