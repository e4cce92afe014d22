//! The stored format of a queue.

use std::time::Duration;

use tepal_shared::queue::{
    error::{StoreError, WrongTopology},
    keys::{Keys, STORED_FORMAT},
    link::{ConnectionSettings, Redis},
};
use tepal_tests::{redis::RedisServer, wait::eventually};

const SOON: Duration = Duration::from_secs(30);

/// A connection as the services make it.
fn connect(redis: &RedisServer, partitions: u16) -> Redis {
    let settings = ConnectionSettings::new(&redis.url()).unwrap();
    Redis::open(settings.for_queue(&Keys::new("q"), partitions)).unwrap()
}

async fn format_is_written(redis: &RedisServer) {
    let written = async || redis.cli(&["GET", "{q:0}:format"]) == STORED_FORMAT.to_string();
    eventually(SOON, "the number of the format", written).await;
}

#[tokio::test]
async fn whoever_first_connects_to_an_empty_queue_writes_the_format_also_after_a_flush() {
    let redis = RedisServer::shipped().start().await;
    let connection = connect(&redis, 1);
    connection.up().await;
    format_is_written(&redis).await;

    redis.cli(&["FLUSHALL"]);
    redis.cli(&["XADD", &Keys::new("q").former_streams(0)[0], "*", "id", "1"]);
    format_is_written(&redis).await;

    connect(&redis, 1).up().await;
}

#[tokio::test]
async fn a_queue_of_another_format_is_refused_with_what_to_do() {
    let redis = RedisServer::shipped().start().await;
    redis.cli(&["SET", "{q:0}:format", "3"]);
    let connection = connect(&redis, 1);

    let refused = connection.refused_format().await;

    assert_eq!(
        refused.to_string(),
        "the queue has jobs of the stored format 3, but this version reads and writes format 2"
    );
    assert!(refused.fix().starts_with("start the version that wrote the queue"), "{}", refused.fix());
    assert!(matches!(connection.down(), Some(StoreError::WrongTopology(_))), "{:?}", connection.down());
    assert_eq!(redis.cli(&["GET", "{q:0}:format"]), "3");
}

#[tokio::test]
async fn jobs_without_a_number_are_of_format_1_until_they_have_ended() {
    let redis = RedisServer::shipped().start().await;
    let stream = Keys::new("q").former_streams(1)[2].clone();
    let entry = redis.cli(&["XADD", &stream, "*", "id", "1"]);

    let connection = connect(&redis, 2);
    let refused = connection.refused_format().await;
    assert_eq!(refused, WrongTopology::StoredFormat { found: "1".to_owned() });
    assert_eq!(redis.cli(&["EXISTS", "{q:0}:format"]), "0");

    redis.cli(&["XDEL", &stream, &entry]);
    connection.up().await;
    format_is_written(&redis).await;
}

#[tokio::test]
async fn a_connection_to_a_queue_that_changes_its_format_is_given_up() {
    let redis = RedisServer::shipped().start().await;
    let connection = connect(&redis, 1);
    connection.up().await;

    redis.cli(&["SET", "{q:0}:format", "3"]);

    let refused = async || matches!(connection.down(), Some(StoreError::WrongTopology(_)));
    eventually(SOON, "the connection to be refused", refused).await;
}
