//! Jobs of one owner do not exist for another.

use serde_json::{Value, json};
use tepal_shared::job::JobId;
use tepal_tests::http::{Answer, Method};

use crate::{
    expect::job_not_found,
    gateway::{FLOWER, Gateway, JSON, accepted},
    keys::Keys,
};

const EVERYBODY: &str = "[anonymous]\nscopes = [\"read\", \"submit\"]\n";

/// A gateway with keys of Ann and Bob, and one with the scope admin.
async fn gateway(settings: &[(&str, &str)]) -> (Gateway, [String; 3]) {
    let keys = Keys::with(EVERYBODY);
    let holders = ["--owner ann", "--owner bob", "--scope admin"].map(|flags| keys.add(flags));
    (keys.gateway(settings).await, holders)
}

/// The ids of a listing, over all its pages.
pub(crate) async fn listed(gateway: &Gateway, key: &str, query: &str) -> Vec<String> {
    let (mut ids, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = gateway.as_key(key, Method::GET, &format!("/jobs?{query}{cursor}"), "").await.json();
        let jobs = page["jobs"].as_array().unwrap_or_else(|| panic!("{page}")).iter();
        ids.extend(jobs.map(|job| job["job_id"].as_str().unwrap().to_owned()));
        let Some(next) = page["next_cursor"].as_str() else { return ids };
        cursor = format!("&cursor={next}");
    }
}

/// Status, headers but the date, and body.
pub(crate) type Comparable = (u16, Vec<(String, String)>, String);

/// Everything that can be asked about one job, and the answers.
async fn all_about(gateway: &Gateway, key: &str, id: &str) -> Vec<Answer> {
    let path = format!("/job/{id}");
    let mut answers = Vec::new();
    for (method, path) in [
        (Method::GET, path.clone()),
        (Method::HEAD, path.clone()),
        (Method::DELETE, path.clone()),
        (Method::POST, format!("{path}/retry")),
    ] {
        answers.push(gateway.as_key(key, method, &path, "").await);
    }
    for more in [("prefer", "wait=60"), ("accept", "text/event-stream"), ("if-none-match", "*")] {
        let with_key = [more, ("x-api-key", key)];
        let headers = if key.is_empty() { &with_key[..1] } else { &with_key };
        answers.push(gateway.send(Method::GET, &path, headers, "").await);
    }
    let body = json!({"job_ids": [id]}).to_string();
    answers.push(gateway.as_key(key, Method::POST, "/jobs/lookup", &body).await);
    answers
}

/// The answers without the date and the id.
fn comparable(answers: Vec<Answer>, id: &str) -> Vec<Comparable> {
    let headers = |answer: &Answer| {
        let all = answer.headers.iter().filter(|(name, _)| *name != "date");
        all.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
    };
    let all = answers.iter();
    all.map(|answer| (answer.status, headers(answer), answer.text().replace(id, "<id>"))).collect()
}

/// For the key, the job does not exist: every operation answers as for an unknown id and changes nothing.
pub(crate) async fn assert_hidden(gateway: &Gateway, key: &str, id: &str) {
    let stored = gateway.keys();
    let none = JobId::new(0).to_string();
    let expected = comparable(all_about(gateway, key, &none).await, &none);
    let answers = all_about(gateway, key, id).await;
    job_not_found().assert(&answers[0], &format!("/job/{id}"), "Job not found");
    assert_eq!(comparable(answers, id), expected);
    assert_eq!(gateway.keys(), stored);
}

#[tokio::test]
async fn a_job_of_another_is_answered_exactly_as_one_that_does_not_exist() {
    let (gateway, [ann, bob, _]) = gateway(&[]).await;
    let pending = gateway.submit_as(&ann).await;
    let cancelled = gateway.submit_as(&ann).await;
    gateway.as_key(&ann, Method::DELETE, &format!("/job/{cancelled}"), "").await;
    let nobodys = gateway.submit_as("").await;
    for (key, id) in [(&bob, &pending), (&bob, &cancelled), (&bob, &nobodys), (&String::new(), &pending)] {
        assert_hidden(&gateway, key, id).await;
    }
    let state = gateway.as_key(&ann, Method::GET, &format!("/job/{pending}"), "").await.json();
    assert_eq!(state["status"], "pending");
}

#[tokio::test]
async fn a_listing_shows_the_callers_own_jobs() {
    let (gateway, [ann, bob, admin]) = gateway(&[("PARTITIONS", "2")]).await;
    let mut of = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..7 {
        for (jobs, key) in of.iter_mut().zip([&ann, &bob, &String::new()]) {
            jobs.insert(0, gateway.submit_as(key).await);
        }
    }
    let sorted = |mut ids: Vec<String>| {
        ids.sort();
        ids
    };
    for query in ["", "limit=2", "status=pending&limit=3"] {
        for (jobs, key) in of.iter().zip([&ann, &bob, &String::new()]) {
            assert_eq!(sorted(listed(&gateway, key, query).await), sorted(jobs.clone()), "{query}");
        }
        assert_eq!(sorted(listed(&gateway, &admin, query).await), sorted(of.concat()), "{query}");
    }
    // A few among many of others are found, too.
    let gateway_store_only = async || gateway.store_job(tepal_shared::job::Priority::Normal).await;
    for _ in 0..1100 {
        gateway_store_only().await;
    }
    assert_eq!(sorted(listed(&gateway, &ann, "limit=5").await), sorted(of[0].clone()));
}

#[tokio::test]
async fn keys_of_one_owner_see_the_same_jobs_so_that_a_key_can_be_changed() {
    let keys = Keys::with("");
    let (old, new, other) = (keys.add("--owner shop"), keys.add("--owner shop"), keys.add(""));
    let gateway = keys.gateway(&[]).await;
    let id = gateway.submit_as(&old).await;
    let get = async |key: &str| gateway.as_key(key, Method::GET, &format!("/job/{id}"), "").await;
    let (of_old, of_new) = (get(&old).await, get(&new).await);
    assert_eq!((of_old.status, of_old.text()), (200, of_new.text()));
    assert_eq!(of_new.header("vary"), Some("accept, prefer, x-api-key"));
    assert_eq!(get(&other).await.status, 404);
    assert_eq!(gateway.as_key(&new, Method::DELETE, &format!("/job/{id}"), "").await.status, 200);
}

#[tokio::test]
async fn an_admin_sees_and_does_everything_and_a_repeated_job_stays_its_owners() {
    let (gateway, [ann, bob, admin]) = gateway(&[]).await;
    let id = gateway.submit_as(&ann).await;
    assert_eq!(gateway.as_key(&admin, Method::DELETE, &format!("/job/{id}"), "").await.status, 200);
    let again = accepted(&gateway.as_key(&admin, Method::POST, &format!("/job/{id}/retry"), "").await);
    let status =
        async |key: &str| gateway.as_key(key, Method::GET, &format!("/job/{again}"), "").await.status;
    assert_eq!(
        [status(&ann).await, status(&admin).await, status(&bob).await, status("").await],
        [200, 200, 404, 404]
    );
    assert_eq!(listed(&gateway, &ann, "").await, [again.to_string(), id]);
    // What an admin submits is its own.
    let own = gateway.submit_as(&admin).await;
    let answer = gateway.as_key(&ann, Method::GET, &format!("/job/{own}"), "").await;
    assert_eq!(answer.status, 404);
}

#[tokio::test]
async fn idempotency_keys_belong_to_their_owner() {
    let (gateway, [ann, bob, _]) = gateway(&[]).await;
    let submit = async |key: &str, path: &str, body: &str| -> Value {
        let headers = [JSON, ("idempotency-key", "order-1"), ("x-api-key", key)];
        gateway
            .send(Method::POST, path, if key.is_empty() { &headers[..2] } else { &headers }, body)
            .await
            .json()
    };
    for (path, body) in [("/predict", FLOWER.to_owned()), ("/predict/batch", format!("[{FLOWER}]"))] {
        let first =
            [submit(&ann, path, &body).await, submit(&bob, path, &body).await, submit("", path, &body).await];
        assert!(first[0] != first[1] && first[0] != first[2] && first[1] != first[2], "{first:?}");
        for (key, job) in [&ann, &bob, &String::new()].into_iter().zip(first) {
            assert_eq!(submit(key, path, &body).await, job);
        }
    }
    assert_eq!(gateway.log_length(), 6);
}
