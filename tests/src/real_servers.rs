//! The whole product in front of real servers of the Open Inference Protocol: Triton, MLServer, KServe. `make test-servers` runs it,
//! since the servers are packages of gigabytes.

mod cases;
mod faults;
mod product;
mod report;
mod server;

use std::path::Path;

pub use self::report::{Checked, table};
pub use self::server::Kind;

use self::product::Product;
use self::server::Server;

/// Runs all cases with one server. `folder` is what tests/models/servers/prepare.sh made.
pub async fn run(kind: Kind, folder: &Path, only: &str) -> Vec<Checked> {
    let server = Server::start(kind, folder);
    let product = Product::start(&server).await;
    let mut all = Vec::new();
    for case in cases::Case::ALL {
        if case.name().contains(only) && case.is_for(kind) {
            let outcome = case.run(&product, &server).await;
            all.push(Checked { server: kind, case: case.name(), outcome });
        }
    }
    all
}
