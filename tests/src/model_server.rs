//! A real gRPC server that answers as TensorFlow Serving does, and as a server of the Open Inference Protocol, for tests. It serves
//! one version of one model, records every call of it, and can fail in many ways on demand. It never reads files and knows nothing
//! about jobs.
//!
//! The server runs on a thread of its own. Stopping it closes every connection at once, as a killed process
//! would.

mod behaviour;
mod calls;
mod describe;
mod open_inference;
mod reply;
mod request;
mod service;
mod spec;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};

use tokio::runtime;
use tokio::sync::oneshot;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

pub use self::behaviour::Behaviour;
pub use self::calls::{CallOutcome, CallRecord};
pub use self::spec::{AnswerStyle, Compute, OpenInferenceSpec, ServerSpec, TensorSpec};

use self::service::{Service, Shared};
use crate::certificates::{Authority, Pair};

/// A running model server. Dropping it stops it.
#[derive(Debug)]
pub struct ModelServer {
    addr: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ModelServer {
    /// Starts a server on a free port of 127.0.0.1. It accepts connections when this returns.
    ///
    /// A server that shall come back on its port is better started with [`Self::start_on`] and a port from
    /// [`crate::ports::free_port`]: the kernel may lend this one to a client while the server is down.
    ///
    /// # Panics
    /// When no port can be opened.
    pub async fn start(spec: ServerSpec) -> Self {
        Self::start_on((Ipv4Addr::LOCALHOST, 0).into(), spec).await
    }

    /// Starts a server on this address. It remembers nothing of a server that ran there before.
    ///
    /// # Panics
    /// When the port cannot be opened.
    pub async fn start_on(addr: SocketAddr, spec: ServerSpec) -> Self {
        Self::launch(addr, spec, None).await
    }

    /// Starts a server that serves TLS only: it shows `pair`, and clients must show a certificate from
    /// `authority`.
    ///
    /// # Panics
    /// When no port can be opened.
    pub async fn start_secured(spec: ServerSpec, pair: &Pair, authority: &Authority) -> Self {
        let read = |path| std::fs::read(path).expect("a certificate of the harness");
        let identity = Identity::from_pem(read(&pair.certificate), read(&pair.key));
        let clients = Certificate::from_pem(read(&authority.certificate()));
        let tls = ServerTlsConfig::new().identity(identity).client_ca_root(clients);
        Self::launch((Ipv4Addr::LOCALHOST, 0).into(), spec, Some(tls)).await
    }

    async fn launch(addr: SocketAddr, spec: ServerSpec, tls: Option<ServerTlsConfig>) -> Self {
        let shared = Arc::new(Shared::new(spec));
        let (stop, stopped) = oneshot::channel();
        let (started, start) = oneshot::channel();
        let service = Service::new(Arc::clone(&shared));
        let thread = thread::Builder::new()
            .name("model-server".to_owned())
            .spawn(move || run(addr, tls, &service, started, stopped))
            .expect("a thread for the model server");
        let addr = start
            .await
            .expect("the model server's thread lives")
            .unwrap_or_else(|error| panic!("model server cannot listen on {addr}: {error}"));
        Self { addr, shared, stop: Some(stop), thread: Some(thread) }
    }

    /// Where the server listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What every Predict from now on does, unless something was scripted for it. Calls that run already, and
    /// the other calls of the API, are not changed.
    pub fn set_behaviour(&self, behaviour: Behaviour) {
        self.shared.script().always = behaviour;
    }

    /// Scripts the next `count` Predict calls, after those scripted before.
    pub fn script_next(&self, count: usize, behaviour: Behaviour) {
        self.shared.script().next.extend(std::iter::repeat_n(behaviour, count));
    }

    /// Removes the script of future calls.
    pub fn script_nothing(&self) {
        self.shared.script().next.clear();
    }

    /// Whether the model is loaded, as it is at the start. While it is not, GetModelStatus reports `LOADING`
    /// and the other calls are answered `NOT_FOUND`.
    pub fn set_available(&self, available: bool) {
        self.shared.set_available(available);
    }

    /// Serves this from now on, as when the server loads another version of its model. Limits of the connection stay.
    pub fn set_spec(&self, spec: ServerSpec) {
        self.shared.set_spec(spec);
    }

    /// Every Predict call so far, in the order of arrival.
    #[must_use]
    pub fn calls(&self) -> Vec<CallRecord> {
        self.shared.log.records()
    }

    /// Number of Predict calls so far.
    #[must_use]
    pub fn call_count(&self) -> usize {
        self.shared.log.count()
    }

    /// Number of GetModelStatus and ModelReady calls so far, including those not answered yet.
    #[must_use]
    pub fn probe_count(&self) -> usize {
        self.shared.probes.load(Ordering::Relaxed)
    }

    /// Stops the server and waits until its port is free. Returns every Predict call that it had.
    pub async fn stop(mut self) -> Vec<CallRecord> {
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || self.shut_down()).await.expect("the model server stopped");
        shared.log.records()
    }

    fn shut_down(&mut self) {
        self.shared.log.close();
        self.stop = None; // the thread sees its channel close
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !thread::panicking()
        {
            panic!("the model server's thread panicked");
        }
    }
}

impl Drop for ModelServer {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// The server's thread. Each life has a runtime of its own; every connection and every call is dropped with it.
fn run(
    addr: SocketAddr,
    tls: Option<ServerTlsConfig>,
    service: &Service,
    started: oneshot::Sender<io::Result<SocketAddr>>,
    mut stop: oneshot::Receiver<()>,
) {
    let mut started = Some(started);
    let mut addr = addr;
    loop {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let crashed = runtime.block_on(async {
            let incoming = match listen(addr) {
                Ok((bound, incoming)) => {
                    addr = bound;
                    incoming
                }
                Err(error) => {
                    let started = started.take().unwrap_or_else(|| panic!("cannot listen again: {error}"));
                    let _ = started.send(Err(error));
                    return false;
                }
            };
            if let Some(started) = started.take() {
                let _ = started.send(Ok(addr));
            }
            serve(incoming, tls.clone(), service, &mut stop).await
        });
        if !crashed {
            return;
        }
        service.shared().log.close();
        drop(runtime);
        service.shared().log.reopen();
    }
}

/// Serves until the server is stopped or crashes; whether it crashed.
async fn serve(
    incoming: TcpIncoming,
    tls: Option<ServerTlsConfig>,
    service: &Service,
    stop: &mut oneshot::Receiver<()>,
) -> bool {
    let mut builder = Server::builder();
    if let Some(age) = service.shared().spec().max_connection_age {
        builder = builder.max_connection_age(age);
    }
    if let Some(tls) = tls {
        builder = builder.tls_config(tls).expect("certificates of the harness");
    }
    let server = builder
        .add_service(service.clone().into_prediction_service())
        .add_service(service.clone().into_model_service())
        .add_service(service.clone().into_open_inference())
        .serve_with_incoming(incoming);
    tokio::select! {
        result = server => result.map(|()| false).expect("the model server accepts connections"),
        _ = stop => false,
        () = service.shared().crash.notified() => true,
    }
}

fn listen(addr: SocketAddr) -> io::Result<(SocketAddr, TcpIncoming)> {
    let incoming = TcpIncoming::bind(addr)?.with_nodelay(Some(true));
    Ok((incoming.local_addr()?, incoming))
}
