//! Servers that are too busy, stop, or are killed: no job is lost, and none uses an attempt for it.

use serde_json::json;

use super::product::{Product, rows};
use super::server::Server;

const DOWN: &str = "backend_down";

/// Triton's queue holds one call while another runs, and the worker has more.
pub(super) async fn full_queue(product: &Product) -> Result<String, String> {
    let (downs, fulls) = (product.logged(DOWN), product.logged("\"verdict\":\"full\""));
    let ids = product.submit_together("slow", (0..100).map(|number| json!([[number]]))).await;
    product.completed(&ids).await?;
    let (downs, fulls) = (product.logged(DOWN) - downs, product.logged("\"verdict\":\"full\"") - fulls);
    if downs == 0 && fulls > 0 {
        Ok(format!("100 right, {fulls} calls were refused"))
    } else {
        Err(format!("{fulls} calls were refused, the server counted as down {downs} times"))
    }
}

/// The server is killed while it runs calls, and started again at once.
pub(super) async fn restart(product: &Product, server: &Server) -> Result<String, String> {
    let ids = product.submit_each("slow", (0..100).map(|number| json!([number]))).await;
    // It has begun.
    product.completed(&ids[..1]).await?;
    let before = product.logged("backend_up");
    server.restart();
    product.logs("backend_up", before).await;
    product.completed(&ids).await?;
    Ok("100 right".to_owned())
}

/// The server is killed, jobs arrive, and it is started again.
pub(super) async fn killed(product: &Product, server: &Server) -> Result<String, String> {
    let before = product.logged(DOWN);
    server.kill();
    let rows = rows();
    let ids = product.submit_each("iris", rows.iter().map(|row| json!(row))).await;
    product.logs(DOWN, before).await;
    server.restart();
    product.completed(&ids).await?;
    Ok("150 right".to_owned())
}
