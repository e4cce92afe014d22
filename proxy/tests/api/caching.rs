//! Validators and freshness of `GET /job/{id}`.

use tepal_tests::http::{Answer, Method};

use crate::site::Site;

async fn get(site: &Site, id: &str, tag: &str) -> Answer {
    site.client.request(Method::GET, &format!("/job/{id}"), &[("if-none-match", tag)], "").await
}

#[tokio::test]
async fn an_unchanged_job_is_not_sent_again() {
    let site = Site::start(&[]).await;
    let id = site.submit().await;
    let first = site.client.get(&format!("/job/{id}")).await;
    let tag = first.header("etag").unwrap().to_owned();
    assert_eq!(first.header("cache-control"), Some("private, no-cache"));
    assert_eq!(first.header("retry-after"), Some("1"));
    assert_eq!(first.header("vary"), Some("accept, prefer"));

    let same = get(&site, &id, &tag).await;
    assert_eq!((same.status, same.body.len()), (304, 0));
    assert_eq!(same.header("etag"), Some(tag.as_str()));
    assert_eq!(same.header("content-type"), None);

    site.complete_one().await;
    let changed = get(&site, &id, &tag).await;
    assert_eq!(changed.status, 200);
    assert_ne!(changed.header("etag"), Some(tag.as_str()));
}

#[tokio::test]
async fn a_finished_job_may_be_kept_for_an_hour_but_not_longer_than_we_keep_it() {
    for (ttl, expected) in [("86400", 3590..=3600), ("600", 590..=600)] {
        let site = Site::start(&[("RESULT_TTL_SECONDS", ttl)]).await;
        let id = site.submit().await;
        site.complete_one().await;
        let answer = site.client.get(&format!("/job/{id}")).await;
        let control = answer.header("cache-control").unwrap();
        let max_age = control.strip_prefix("private, max-age=").unwrap().strip_suffix(", immutable").unwrap();
        assert!(expected.contains(&max_age.parse::<u64>().unwrap()), "{control}");
        assert_eq!(answer.header("retry-after"), None);
        let tag = answer.header("etag").unwrap().to_owned();
        assert_eq!(get(&site, &id, &tag).await.status, 304);
    }
}

#[tokio::test]
async fn nothing_else_may_be_stored() {
    let site = Site::start(&[]).await;
    for path in ["/jobs", "/job/none", "/health", "/nowhere"] {
        assert_eq!(site.client.get(path).await.header("cache-control"), Some("no-store"), "{path}");
    }
}

#[tokio::test]
async fn a_client_that_accepts_no_json_is_rejected_before_anything_happens() {
    let site = Site::start(&[]).await;
    let headers = [("accept", "text/html"), ("content-type", "application/json")];
    let body = r#"{"data": [[5.1, 3.5, 1.4, 0.2]]}"#;
    let answer = site.client.request(Method::POST, "/predict", &headers, body).await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (406, Some("not_acceptable")));
    assert_eq!(site.client.get("/jobs").await.json()["jobs"], serde_json::json!([]));
    let metrics = site.client.request(Method::GET, "/metrics", &[("accept", "text/plain")], "").await;
    assert_eq!(metrics.status, 200);
}
