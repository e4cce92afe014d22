//! Parts of the protocol and of Triton's extensions that a durable queue does not have. They are named, so that their clients learn why.

use super::table::Table;

pub(super) const LOADING: &str =
    "Models are loaded by the workers: add a folder to their MODELS_DIR, or remove it";
pub(super) const STREAMING: &str = "Jobs have one result each; streaming is not supported";
pub(super) const SHARED_MEMORY: &str = "Shared memory is not supported; the request must contain the tensors";
pub(super) const STATISTICS: &str = "The statistics are on /metrics, in the form of Prometheus";

pub(super) fn routes(table: Table<'_>) -> Table<'_> {
    table
        .not_supported("/v2/repository/models/{name}/load", LOADING)
        .not_supported("/v2/repository/models/{name}/unload", LOADING)
        .not_supported("/v2/models/{name}/generate", STREAMING)
        .not_supported("/v2/models/{name}/generate_stream", STREAMING)
        .not_supported("/v2/models/{name}/infer_stream", STREAMING)
        .not_supported("/v2/models/{name}/stats", STATISTICS)
        .not_supported("/v2/models/stats", STATISTICS)
        .not_supported("/v2/systemsharedmemory/{*rest}", SHARED_MEMORY)
        .not_supported("/v2/cudasharedmemory/{*rest}", SHARED_MEMORY)
}
