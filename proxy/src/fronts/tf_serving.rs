//! TensorFlow Serving's REST API, and version 1 of KServe's protocol, which has the same paths. Each prediction is a durable job that
//! the answer waits for.

mod describe;
mod predict;
mod request;
mod response;
mod status;
mod target;

use self::target::Target;
use super::{
    idempotency, inference, openapi,
    table::{self, GET, Table},
};
use crate::edge::{access::Scope, rules::Form};

/// Entry points for the fuzz targets.
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing {
    pub(crate) use super::{request::PredictRequest, target::Verb};
}

/// Every route, with the scopes that it requires. A prediction submits a job and reads its result.
pub(super) fn routes(table: Table<'_>) -> Table<'_> {
    let table = table.on(GET, "/v1/models", &[Scope::Read], Form::Fixed, status::list, describe::list);
    let table = of_path(table, "/v1/models/{name}", "/v1/models/{name}/metadata", &describe::OF_MODEL);
    let (path, metadata) =
        ("/v1/models/{name}/versions/{version}", "/v1/models/{name}/versions/{version}/metadata");
    let table = of_path(table, path, metadata, &describe::OF_VERSION);
    let (path, metadata) = ("/v1/models/{name}/labels/{label}", "/v1/models/{name}/labels/{label}/metadata");
    of_path(table, path, metadata, &describe::OF_LABEL)
}

/// The operations on what the path names.
fn of_path<'a>(
    table: Table<'a>,
    path: &'static str,
    metadata: &'static str,
    operations: &describe::Operations,
) -> Table<'a> {
    let (read, both) = (&[Scope::Read], &[Scope::Submit, Scope::Read]);
    let describe::Operations { status, metadata: describe_metadata, predict, classify } = *operations;
    table
        .on(GET, path, read, Form::Fixed, status::status, status)
        .on(GET, metadata, read, Form::Fixed, status::metadata, describe_metadata)
        .on_verbs(path, both, Form::Fixed, predict::call, [predict, classify])
        .on_other_methods(path, async |target: Target| target.refuse_method())
}
