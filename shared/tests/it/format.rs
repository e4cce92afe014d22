//! The stored format of a queue.

use std::time::Duration;

use tepal_shared::queue::{
    error::{StoreError, WrongTopology},
    keys::{Keys, STORED_FORMAT},
    link::{ConnectionSettings, Redis},
};
use tepal_tests::{
    redis::{Deployment, RedisServer},
    wait::eventually,
};

const SOON: Duration = Duration::from_secs(30);

/// A queue of two partitions, and its Redis as it is shipped.
struct Queue {
    servers: Deployment,
    keys: Keys,
}

impl Queue {
    async fn start() -> Self {
        let servers = Deployment::start(&RedisServer::shipped()).await;
        let keys = if servers.is_cluster() { Keys::in_cluster("q") } else { Keys::new("q") };
        Self { servers, keys }
    }

    async fn alone() -> Self {
        Self {
            servers: Deployment::Standalone(Box::new(RedisServer::shipped().start().await)),
            keys: Keys::new("q"),
        }
    }

    /// A connection as the services make it.
    fn connect(&self) -> Redis {
        let settings = ConnectionSettings::new(&self.servers.url()).unwrap();
        Redis::open(settings.for_queue(&self.keys, 2)).unwrap()
    }

    /// Runs a command whose second word is a key.
    fn cli(&self, command: &[&str]) -> String {
        self.servers.owner(command[1]).cli(command)
    }

    async fn format_is_written(&self) {
        let written = async || self.cli(&["GET", &self.keys.format()]) == STORED_FORMAT.to_string();
        eventually(SOON, "the number of the format", written).await;
    }
}

#[tokio::test]
async fn whoever_first_connects_to_an_empty_queue_writes_the_format_also_after_a_flush() {
    let queue = Queue::start().await;
    let connection = queue.connect();
    connection.up().await;
    queue.format_is_written().await;

    let format = queue.keys.format();
    queue.servers.owner(&format).cli(&["FLUSHALL"]);
    queue.cli(&["XADD", &queue.keys.former_streams(0)[0], "*", "id", "1"]);
    queue.format_is_written().await;

    queue.connect().up().await;
}

#[tokio::test]
async fn a_queue_of_another_format_is_refused_with_what_to_do() {
    let queue = Queue::start().await;
    queue.cli(&["SET", &queue.keys.format(), "3"]);
    let connection = queue.connect();

    let refused = connection.refused_format().await;

    assert_eq!(
        refused.to_string(),
        "the queue has jobs of the stored format 3, but this version reads and writes format 2"
    );
    assert!(refused.fix().starts_with("start the version that wrote the queue"), "{}", refused.fix());
    assert!(matches!(connection.down(), Some(StoreError::WrongTopology(_))), "{:?}", connection.down());
    assert_eq!(queue.cli(&["GET", &queue.keys.format()]), "3");
}

#[tokio::test]
async fn a_connection_to_a_queue_that_changes_its_format_is_given_up() {
    let queue = Queue::start().await;
    let connection = queue.connect();
    connection.up().await;

    queue.cli(&["SET", &queue.keys.format(), "3"]);

    let refused = async || matches!(connection.down(), Some(StoreError::WrongTopology(_)));
    eventually(SOON, "the connection to be refused", refused).await;
}

/// No version without a number could use a cluster.
mod one_server {
    use super::*;

    #[tokio::test]
    async fn jobs_without_a_number_are_of_format_1_until_they_have_ended() {
        let queue = Queue::alone().await;
        let stream = queue.keys.former_streams(1)[2].clone();
        let entry = queue.cli(&["XADD", &stream, "*", "id", "1"]);

        let connection = queue.connect();
        let refused = connection.refused_format().await;
        assert_eq!(refused, WrongTopology::StoredFormat { found: "1".to_owned() });
        assert_eq!(queue.cli(&["EXISTS", &queue.keys.format()]), "0");

        queue.cli(&["XDEL", &stream, &entry]);
        connection.up().await;
        queue.format_is_written().await;
    }
}
