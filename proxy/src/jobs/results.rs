//! Large results. A result is read once and held once, however many answers need it at the same time. Its memory is reserved
//! before it is read.

use std::{
    io::{self, Write as _},
    sync::Arc,
};

use axum::body::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture};
use tepal_shared::{
    content::{self, Content},
    job::{Job, JobId, JobResult},
    queue::error::StoreError,
    tensor::{View, open_inference::json, stored_outputs},
};

use super::single_flight::{Flight, SingleFlight};
use crate::{
    error::ApiError,
    http::{
        answer::{Blocks, held},
        budget::{Budget, Share},
        conversions::Conversions,
    },
    jobs::store::Store,
};

/// The large results of answers.
pub(crate) struct Results {
    store: Store,
    budget: Arc<Budget>,
    conversions: Conversions,
    /// Results as JSON.
    texts: SingleFlight<Read>,
    /// Results in their stored form.
    stored: SingleFlight<Read>,
}

/// The parts of a result; `None` if the job is gone.
type Read = Result<Option<Vec<Bytes>>, Unread>;

/// Why a result was not read.
#[derive(Clone, Debug)]
pub(crate) enum Unread {
    /// Memory for it is not available at present.
    NoRoom,
    /// Redis failed.
    Store(StoreError),
}

/// A part of a result whose read others can join as long as this is held.
struct Joined {
    part: Bytes,
    _read: Arc<Flight<Read>>,
}

impl Results {
    pub(crate) fn new(store: Store, budget: Arc<Budget>, conversions: Conversions) -> Self {
        Self { store, budget, conversions, texts: SingleFlight::default(), stored: SingleFlight::default() }
    }

    /// The job's large result as JSON, in parts; `None` if the job is gone.
    pub(crate) async fn json(&self, job: &Job) -> Read {
        let (store, budget, id) = (self.store.clone(), Arc::clone(&self.budget), job.id);
        match job.result {
            Some(JobResult::Large { bytes }) => {
                joined(&self.texts, id, || text(store, budget, id, bytes).boxed()).await
            }
            Some(JobResult::LargeTensors { bytes } | JobResult::LargeBytes { bytes, .. }) => {
                let conversions = self.conversions.clone();
                joined(&self.texts, id, || written(store, budget, conversions, id, bytes).boxed()).await
            }
            _ => Ok(None),
        }
    }

    /// Text about the tensors of a stored form. Its memory is reserved while it is written.
    pub(crate) async fn about(
        &self,
        form: Bytes,
        write: impl FnOnce(Vec<View<'_>>, &mut Blocks) -> io::Result<()> + Send + 'static,
    ) -> Result<Vec<Bytes>, Unread> {
        about_tensors(&self.conversions, Arc::clone(&self.budget), form, write).await
    }

    /// The stored form of the job's tensors or bytes, which is so large; `None` if the job is gone.
    pub(crate) async fn stored(&self, id: JobId, bytes: usize) -> Result<Option<Bytes>, Unread> {
        let (store, budget) = (self.store.clone(), Arc::clone(&self.budget));
        let begin = || async move {
            Ok(read(&store, &budget, id, bytes).await?.map(|(form, share)| vec![held(form, share)]))
        };
        let parts = joined(&self.stored, id, || begin().boxed()).await?;
        Ok(parts.and_then(|parts| parts.into_iter().next()))
    }
}

/// Writes text about the tensors of a stored form, away from the threads that serve other requests.
async fn about_tensors(
    conversions: &Conversions,
    budget: Arc<Budget>,
    form: impl AsRef<[u8]> + Send + 'static,
    write: impl FnOnce(Vec<View<'_>>, &mut Blocks) -> io::Result<()> + Send + 'static,
) -> Result<Vec<Bytes>, Unread> {
    let convert = move || {
        let tensors = stored_outputs::read(form.as_ref()).map_err(|damaged| Unread::Store(damaged.into()))?;
        let mut blocks = Blocks::new(&budget);
        write(tensors, &mut blocks).map_err(|_| Unread::NoRoom)?;
        Ok(blocks.finish())
    };
    conversions.run(convert).await
}

/// Bytes written as JSON, away from the threads that serve other requests.
async fn bytes_as_json(
    conversions: &Conversions,
    budget: Arc<Budget>,
    form: Bytes,
) -> Result<Vec<Bytes>, Unread> {
    let convert = move || {
        let content = Content::read(&form).map_err(|damaged| Unread::Store(damaged.into()))?;
        let mut blocks = Blocks::new(&budget);
        let written = match content {
            Content::Json(text) => blocks.write_all(text.as_bytes()),
            Content::Bytes { content_type, bytes } => content::write_json(content_type, bytes, &mut blocks),
        };
        written.map_err(|_| Unread::NoRoom)?;
        Ok(blocks.finish())
    };
    conversions.run(convert).await
}

/// Joins a read of this job's result, or begins one. A result never changes, so any read of it can be joined.
async fn joined(
    reads: &SingleFlight<Read>,
    id: JobId,
    begin: impl FnOnce() -> BoxFuture<'static, Read>,
) -> Read {
    let may_succeed = |read: &Flight<Read>| !matches!(read.peek(), Some(Err(_)));
    let read = reads.join(id, may_succeed, begin);
    let parts = read.outcome().await?;
    let joined = |part| Bytes::from_owner(Joined { part, _read: Arc::clone(&read) });
    Ok(parts.map(|parts| parts.into_iter().map(joined).collect()))
}

/// The result as it is stored, and its memory, which is reserved before the result is read.
async fn read(
    store: &Store,
    budget: &Arc<Budget>,
    id: JobId,
    bytes: usize,
) -> Result<Option<(Vec<u8>, Arc<Share>)>, Unread> {
    let mut share = budget.share();
    if !share.grow(bytes) {
        return Err(Unread::NoRoom);
    }
    let Some(result) = store.views.large_result(id).await.map_err(Unread::Store)? else { return Ok(None) };
    if !share.grow(result.len().saturating_sub(bytes)) {
        return Err(Unread::NoRoom);
    }
    Ok(Some((result, Arc::new(share))))
}

async fn text(store: Store, budget: Arc<Budget>, id: JobId, bytes: usize) -> Read {
    let Some((text, share)) = read(&store, &budget, id, bytes).await? else { return Ok(None) };
    Ok(Some(vec![held(in_one_line(text), share)]))
}

/// Tensors or bytes written as JSON.
async fn written(
    store: Store,
    budget: Arc<Budget>,
    conversions: Conversions,
    id: JobId,
    bytes: usize,
) -> Read {
    let Some((form, share)) = read(&store, &budget, id, bytes).await? else { return Ok(None) };
    let form = held(form, share);
    if content::is_bytes(&form) {
        return bytes_as_json(&conversions, budget, form).await.map(Some);
    }
    let write = |tensors: Vec<View<'_>>, text: &mut Blocks| json::write_outputs(tensors, text);
    about_tensors(&conversions, budget, form, write).await.map(Some)
}

/// The same JSON without line ends, which would split the data of an event. In JSON they are whitespace.
fn in_one_line(mut bytes: Vec<u8>) -> Vec<u8> {
    for byte in bytes.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')) {
        *byte = b' ';
    }
    bytes
}

impl Unread {
    /// Whether it can be read later.
    pub(crate) fn is_retryable(&self) -> bool {
        match self {
            Self::NoRoom => true,
            Self::Store(error) => error.is_retryable(),
        }
    }
}

impl From<Unread> for ApiError {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::NoRoom => Self::Overloaded,
            Unread::Store(error) => error.into(),
        }
    }
}

impl AsRef<[u8]> for Joined {
    fn as_ref(&self) -> &[u8] {
        &self.part
    }
}
