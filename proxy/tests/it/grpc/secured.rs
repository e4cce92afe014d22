use std::fs;

use tepal_proto::open_inference::{
    ServerLiveRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
};
use tepal_tests::{
    certificates::{Authority, Pair},
    ports::free_port,
    process::Proxy,
    redis::RedisServer,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

use crate::gateway::SOON;

/// A proxy that speaks gRPC with the certificate of an authority.
struct Site {
    authority: Authority,
    addr: String,
    proxy: Proxy,
    _redis: RedisServer,
}

impl Site {
    async fn start(client_auth: Option<&str>) -> Self {
        let (redis, authority) = (RedisServer::shipped().start().await, Authority::new());
        let pair = authority.issue(&["127.0.0.1"]);
        let addr = format!("127.0.0.1:{}", free_port());
        let mut settings = vec![("GRPC_LISTEN_ADDR", addr.as_str())];
        let trusted = authority.certificate().display().to_string();
        if let Some(word) = client_auth {
            settings.extend([("TLS_CLIENT_CA_FILE", trusted.as_str()), ("TLS_CLIENT_AUTH", word)]);
        }
        let proxy = Proxy::start_secured(&redis.proxy_url(), &pair, &authority, &settings).await;
        Self { authority, addr, proxy, _redis: redis }
    }

    /// Whether a client with this certificate is answered.
    async fn lets_in(&self, identity: Option<&Pair>) -> bool {
        let read = |path: &std::path::Path| fs::read(path).unwrap();
        let trusted = Certificate::from_pem(read(&self.authority.certificate()));
        let tls = ClientTlsConfig::new().ca_certificate(trusted);
        let tls = match identity {
            Some(pair) => tls.identity(Identity::from_pem(read(&pair.certificate), read(&pair.key))),
            None => tls,
        };
        let endpoint = Channel::from_shared(format!("https://{}", self.addr)).unwrap();
        let channel = endpoint.tls_config(tls).unwrap().connect_lazy();
        GrpcInferenceServiceClient::new(channel).server_live(ServerLiveRequest {}).await.is_ok()
    }
}

#[tokio::test]
async fn calls_are_answered_over_tls() {
    let site = Site::start(None).await;
    assert!(site.lets_in(None).await);
    let listening = site.proxy.wait_for_log(r#""scheme":"grpcs""#, SOON).await;
    assert!(listening.contains(&site.addr), "{listening}");
}

#[tokio::test]
async fn only_clients_with_a_certificate_of_the_authority_can_connect() {
    let site = Site::start(Some("required")).await;
    assert!(site.lets_in(Some(&site.authority.issue(&["client"]))).await);
    let other = Authority::new();
    let stranger = other.issue(&["client"]);
    for refused in [None, Some(&stranger)] {
        assert!(!site.lets_in(refused).await, "{refused:?}");
    }
}

#[tokio::test]
async fn a_client_of_another_protocol_is_not_served() {
    let site = Site::start(None).await;
    // The authority's own client offers no protocol: it would speak HTTP/1.1.
    let mut connection = site.authority.connect(&site.addr).await;
    connection.write_all(b"GET /livez HTTP/1.1\r\nhost: tepal\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(SOON, connection.read_to_end(&mut answer)).await.unwrap();
    assert!(!answer.starts_with(b"HTTP/1.1"), "{}", String::from_utf8_lossy(&answer));
}
