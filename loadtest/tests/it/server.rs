//! A small real HTTP server with the Tepal API. The test chooses its misbehaviour.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// The behaviour of the server. Jobs and submissions are counted from 1.
#[derive(Clone, Debug, Default)]
pub(crate) struct Behaviour {
    /// From acceptance to completion.
    pub(crate) job_time: Duration,
    /// Hold the answers of `GET /job` as `Prefer: wait` asks.
    pub(crate) honours_wait: bool,
    /// From this submission on, no request is answered for this long.
    pub(crate) stall: Option<(u64, Duration)>,
    /// This job is accepted and then unknown.
    pub(crate) forgets: Option<u64>,
    /// This job is accepted and never ends.
    pub(crate) hangs: Option<u64>,
    /// This job's record changes after its first terminal read.
    pub(crate) changes: Option<u64>,
    /// An ended job is kept this long, and its answers say so; by default for ever.
    pub(crate) keeps: Option<Duration>,
    /// This job ends as failed.
    pub(crate) fails: Option<u64>,
    /// This job gets the id of the one before.
    pub(crate) repeats_id: Option<u64>,
    /// `(job, read)`: this read after the end of this job is answered with the record of the job before.
    pub(crate) mixes_up: Option<(u64, u64)>,
    /// The first submissions, this many, are refused with 429.
    pub(crate) refuses: u64,
    /// Submissions beyond this many within a second are answered 503.
    pub(crate) most_per_second: Option<usize>,
    /// The only key that is accepted.
    pub(crate) key: Option<&'static str>,
}

/// The requests that the server has received.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) submissions: u64,
    pub(crate) reads: u64,
    pub(crate) most_unfinished: usize,
}

#[derive(Debug, Default)]
struct State {
    seen: Seen,
    accepted: u64,
    jobs: HashMap<String, FakeJob>,
    stalled_until: Option<Instant>,
    recent: Vec<Instant>,
}

#[derive(Clone, Debug)]
struct FakeJob {
    number: u64,
    done_at: Instant,
    terminal_reads: u64,
}

/// A running server; it stops when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    _stop: oneshot::Sender<()>,
}

struct Shared {
    behaviour: Behaviour,
    state: Mutex<State>,
}

impl Server {
    /// Serves on a free port in its own thread, so that the test can block.
    pub(crate) fn start(behaviour: Behaviour) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { behaviour, state: Mutex::default() });
        let (stop, stopped) = oneshot::channel();
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    () = accept(listener, serving) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, shared, _stop: stop }
    }

    /// Waits until `condition` holds.
    pub(crate) fn wait_until(&self, condition: impl Fn(&Seen) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !condition(&self.seen()) {
            assert!(Instant::now() < deadline, "the condition did not come true: {:?}", self.seen());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn seen(&self) -> Seen {
        self.shared.state.lock().unwrap().seen.clone()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let shared = Arc::clone(&shared);
        let service = service_fn(move |request| {
            let shared = Arc::clone(&shared);
            async move { Ok::<_, Infallible>(shared.answer(request).await) }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

fn reply(status: u16, body: String) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::new(Bytes::from(body))).unwrap()
}

fn problem(status: u16) -> Response<Full<Bytes>> {
    let mut response = reply(status, format!(r#"{{"title":"no","status":{status}}}"#));
    response.headers_mut().insert("retry-after", "0".parse().unwrap());
    response
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let key = request.headers().get("x-api-key").map(|key| key.to_str().unwrap().to_owned());
        if request.uri().path() != "/health"
            && self.behaviour.key.is_some_and(|wanted| key.as_deref() != Some(wanted))
        {
            return problem(401);
        }
        let path = request.uri().path().to_owned();
        match (request.method().clone(), path.strip_prefix("/job/")) {
            (Method::GET, Some(id)) => {
                let wait = request.headers().get("prefer").map(|wait| wait.to_str().unwrap().to_owned());
                self.job(id, wait).await
            }
            (Method::POST, None) => self.submit(request).await,
            _ => self.health().await,
        }
    }

    async fn health(&self) -> Response<Full<Bytes>> {
        self.stall().await;
        reply(200, r#"{"status":"healthy","components":{"redis":"ok"}}"#.to_owned())
    }

    async fn stall(&self) {
        let until = self.state.lock().unwrap().stalled_until;
        if let Some(until) = until {
            tokio::time::sleep_until(until.into()).await;
        }
    }

    async fn submit(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let data: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert!(data["data"].is_array());
        let response = self.accept_job();
        self.stall().await;
        response
    }

    fn accept_job(&self) -> Response<Full<Bytes>> {
        let (state, behaviour) = (&mut *self.state.lock().unwrap(), &self.behaviour);
        let now = Instant::now();
        state.seen.submissions += 1;
        if let Some((_, length)) = behaviour.stall.filter(|(number, _)| *number == state.seen.submissions) {
            state.stalled_until = Some(now + length);
        }
        if state.seen.submissions <= behaviour.refuses {
            return problem(429);
        }
        state.recent.retain(|at| now - *at < Duration::from_secs(1));
        if behaviour.most_per_second.is_some_and(|most| state.recent.len() >= most) {
            return problem(503);
        }
        state.recent.push(now);
        state.accepted += 1;
        let number = state.accepted;
        let name = if behaviour.repeats_id == Some(number) { number - 1 } else { number };
        let job = FakeJob { number, done_at: now + behaviour.job_time, terminal_reads: 0 };
        state.jobs.insert(format!("job-{name}"), job);
        let unfinished = state.jobs.values().filter(|job| job.done_at > now).count();
        state.seen.most_unfinished = state.seen.most_unfinished.max(unfinished);
        reply(202, format!(r#"{{"job_id":"job-{name}","status":"pending"}}"#))
    }

    async fn job(&self, id: &str, wait: Option<String>) -> Response<Full<Bytes>> {
        self.stall().await;
        let Some(job) = self.find(id) else { return problem(404) };
        if let Some(wait) = wait.filter(|_| self.behaviour.honours_wait) {
            let seconds = wait.strip_prefix("wait=").unwrap().parse().unwrap();
            let limit = Instant::now() + Duration::from_secs(seconds);
            tokio::time::sleep_until(self.done_at(&job).min(limit).into()).await;
        }
        self.record(id)
    }

    fn find(&self, id: &str) -> Option<FakeJob> {
        let mut state = self.state.lock().unwrap();
        state.seen.reads += 1;
        let is_known = |job: &&FakeJob| {
            let is_kept = self.behaviour.keeps.is_none_or(|keeps| job.done_at.elapsed() <= keeps);
            is_kept && self.behaviour.forgets != Some(job.number)
        };
        state.jobs.get(id).filter(is_known).cloned()
    }

    fn done_at(&self, job: &FakeJob) -> Instant {
        let hangs = self.behaviour.hangs == Some(job.number);
        if hangs { job.done_at + Duration::from_secs(86_400) } else { job.done_at }
    }

    fn record(&self, id: &str) -> Response<Full<Bytes>> {
        let mut state = self.state.lock().unwrap();
        let job = state.jobs.get_mut(id).unwrap();
        if Instant::now() < self.done_at(job) {
            return reply(200, format!(r#"{{"job_id":"{id}","status":"processing"}}"#));
        }
        job.terminal_reads += 1;
        let mixed_up = self.behaviour.mixes_up == Some((job.number, job.terminal_reads));
        let id = if mixed_up { format!("job-{}", job.number - 1) } else { id.to_owned() };
        let changed = self.behaviour.changes == Some(job.number) && job.terminal_reads > 1;
        let outcome = if self.behaviour.fails == Some(job.number) {
            r#""status":"failed","error":"Model inference timeout","error_code":"timeout""#.to_owned()
        } else {
            format!(r#""status":"completed","result":{{"prediction":{}}}"#, u8::from(changed))
        };
        let times = r#""created_at":"2026-01-01T00:00:00.000Z","finished_at":"2026-01-01T00:00:00.250Z""#;
        let mut response = reply(200, format!(r#"{{"job_id":"{id}",{outcome},{times},"attempts":1}}"#));
        if let Some(keeps) = self.behaviour.keeps {
            let max_age = format!("private, max-age={}, immutable", keeps.as_secs());
            response.headers_mut().insert("cache-control", max_age.parse().unwrap());
        }
        response
    }
}
