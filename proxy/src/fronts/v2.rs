//! The Open Inference Protocol over HTTP, and over [`grpc`]: what clients of Triton, MLServer and KServe send. Each inference is a
//! durable job that the answer waits for.

mod describe;
pub(super) mod grpc;
mod health;
mod infer;
mod metadata;
mod named;
mod parameters;
mod request;
mod response;
mod unsupported;

use super::{
    extract, idempotency, inference, openapi,
    table::{self, GET, POST, Table},
};
use crate::edge::{access::Scope, rules::Form};

/// Entry points for the fuzz targets.
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing {
    pub(crate) use super::grpc::fuzzing::grpc_infer;
    use std::sync::Arc;

    use axum::http::HeaderValue;

    use crate::{
        error::ApiError,
        http::budget::Meter,
        jobs::{models::Served, submission::Submission},
    };

    /// The body of an inference.
    pub(crate) fn read(
        body: &[u8],
        length: Option<&HeaderValue>,
        model: &Arc<Served>,
    ) -> Result<Submission, ApiError> {
        super::infer::parse(body, length, model, &mut Meter::off()).map(|parsed| parsed.submission)
    }
}

/// Every route, with the scopes that it requires. An inference submits a job and reads its result.
pub(super) fn routes(table: Table<'_>) -> Table<'_> {
    let (read, both, anybody) = (&[Scope::Read], &[Scope::Submit, Scope::Read], &[]);
    let table = table
        .on(GET, "/v2", read, Form::Fixed, metadata::server, describe::server)
        .on(GET, "/v2/health/live", anybody, Form::Fixed, health::live, describe::live)
        .on(GET, "/v2/health/ready", anybody, Form::Fixed, health::ready, describe::ready)
        .on(GET, "/v2/models", read, Form::Fixed, metadata::list, describe::list)
        .on(POST, "/v2/repository/index", read, Form::Fixed, metadata::index, describe::index)
        .on(GET, "/v2/models/{name}", read, Form::Fixed, metadata::model, describe::model)
        .on(GET, "/v2/models/{name}/ready", read, Form::Fixed, health::model_ready, describe::model_ready)
        .on(GET, "/v2/models/{name}/config", read, Form::Fixed, metadata::config, describe::config)
        .on(POST, "/v2/models/{name}/infer", both, Form::Fixed, infer::infer, describe::infer);
    let table = of_version(table);
    unsupported::routes(table)
}

/// The same operations on a version.
fn of_version(table: Table<'_>) -> Table<'_> {
    let (read, both) = (&[Scope::Read], &[Scope::Submit, Scope::Read]);
    let model = "/v2/models/{name}/versions/{version}";
    let ready = "/v2/models/{name}/versions/{version}/ready";
    let config = "/v2/models/{name}/versions/{version}/config";
    let infer = "/v2/models/{name}/versions/{version}/infer";
    table
        .on(GET, model, read, Form::Fixed, metadata::model, describe::version)
        .on(GET, ready, read, Form::Fixed, health::model_ready, describe::version_ready)
        .on(GET, config, read, Form::Fixed, metadata::config, describe::version_config)
        .on(POST, infer, both, Form::Fixed, infer::infer, describe::version_infer)
}
