//! TensorFlow, behind the services of TensorFlow Serving: `tests/models/saved/server.py`.

use std::path::Path;
use std::time::Duration;

use crate::ports::free_port;
use crate::process::Service;

/// It imports a library of hundreds of megabytes.
const WITHIN: Duration = Duration::from_secs(120);

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub struct TensorFlow {
    port: u16,
    _service: Service,
}

impl TensorFlow {
    /// Serves the SavedModels of a folder on a free port.
    ///
    /// # Panics
    /// When the server does not start.
    pub async fn start(python: &Path, models: &Path) -> Self {
        let port = free_port();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/saved/server.py");
        let service = Service::program("TensorFlow", python)
            .env("TF_CPP_MIN_LOG_LEVEL", 2)
            .arg(&script.display().to_string())
            .arg(&models.display().to_string())
            .arg(&port.to_string())
            .start();
        service.wait_for_log("serving", WITHIN).await;
        Self { port, _service: service }
    }

    /// Where the server listens on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}
