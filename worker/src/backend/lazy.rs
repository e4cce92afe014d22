//! A backend that the first call opens: few clients pin a version that is not the newest.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::Value;
use tepal_shared::tensor::Tensor;
use tokio::sync::OnceCell;

use super::{Backend, BackendError, ModelCall, OpenError};

/// Opens a backend.
type Open = Arc<dyn Fn() -> Result<Arc<dyn Backend>, OpenError> + Send + Sync>;

/// A backend that may not be open yet.
pub(crate) struct Lazy {
    name: &'static str,
    open: Open,
    opened: Arc<OnceCell<Arc<dyn Backend>>>,
}

impl Lazy {
    /// `name`: that of the opened backend.
    pub(crate) fn new(
        name: &'static str,
        open: impl Fn() -> Result<Arc<dyn Backend>, OpenError> + Send + Sync + 'static,
    ) -> Self {
        Self { name, open: Arc::new(open), opened: Arc::default() }
    }

    async fn backend(&self) -> Result<Arc<dyn Backend>, BackendError> {
        if let Some(backend) = self.opened.get() {
            return Ok(Arc::clone(backend));
        }
        let (cell, open) = (Arc::clone(&self.opened), Arc::clone(&self.open));
        // A task of its own: a call that exceeds its time limit must not end the loading, or no call would ever succeed.
        let opening = tokio::spawn(async move {
            let backend = cell.get_or_try_init(|| async move {
                let opened = tokio::task::spawn_blocking(move || open()).await;
                opened.map_err(BackendError::inference)?.map_err(BackendError::inference)
            });
            backend.await.cloned()
        });
        opening.await.map_err(BackendError::inference)?
    }
}

impl Backend for Lazy {
    fn name(&self) -> &'static str {
        self.name
    }

    fn predict(&self, call: ModelCall) -> BoxFuture<'_, Result<Vec<Tensor>, BackendError>> {
        Box::pin(async move { self.backend().await?.predict(call).await })
    }

    fn most_rows(&self) -> usize {
        self.opened.get().map_or(1, |backend| backend.most_rows())
    }

    fn probe(&self) -> BoxFuture<'_, Result<Value, BackendError>> {
        Box::pin(async move { self.backend().await?.probe().await })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::{
        sync::{
            Mutex,
            atomic::{AtomicUsize, Ordering},
            mpsc,
        },
        time::Duration,
    };

    use tepal_shared::tensor::Batch;

    use super::*;

    struct Empty;

    impl Backend for Empty {
        fn name(&self) -> &'static str {
            "empty"
        }

        fn predict(&self, _: ModelCall) -> BoxFuture<'_, Result<Vec<Tensor>, BackendError>> {
            Box::pin(async { Ok(Vec::new()) })
        }

        fn probe(&self) -> BoxFuture<'_, Result<Value, BackendError>> {
            Box::pin(async { Ok(Value::Null) })
        }
    }

    fn call() -> ModelCall {
        ModelCall::of_sample(Batch { rows: 1, inputs: Vec::new() }, Duration::MAX)
    }

    #[tokio::test]
    async fn the_first_call_opens_it_and_a_failure_is_that_of_the_call() {
        let opened = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&opened);
        let lazy = Lazy::new("empty", move || match count.fetch_add(1, Ordering::SeqCst) {
            0 => Err(OpenError::NoOnnxFile("m".to_owned())),
            _ => Ok(Arc::new(Empty)),
        });
        assert_eq!((lazy.most_rows(), opened.load(Ordering::SeqCst)), (1, 0));

        let error = lazy.predict(call()).await.unwrap_err();
        assert!(
            error.message.starts_with("Model inference failed: the model `m` has no ONNX file"),
            "{error}"
        );
        for _ in 0..3 {
            assert!(lazy.predict(call()).await.unwrap().is_empty());
        }
        assert_eq!((lazy.most_rows(), opened.load(Ordering::SeqCst)), (usize::MAX, 2));
    }

    #[tokio::test]
    async fn loading_goes_on_when_the_call_that_began_it_is_given_up() {
        let (go, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let lazy = Lazy::new("empty", move || {
            wait.lock().unwrap().recv().unwrap();
            Ok(Arc::new(Empty))
        });
        assert!(tokio::time::timeout(Duration::from_millis(1), lazy.predict(call())).await.is_err());
        go.send(()).unwrap();
        // A second loading would panic.
        drop(go);
        assert!(lazy.predict(call()).await.unwrap().is_empty());
    }
}
