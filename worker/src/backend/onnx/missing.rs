//! Names the operators that the engine lacks.

use tract_onnx::prelude::{InferenceModel, TractError, TractResult};

/// What the engine calls an operator that it does not know.
const UNKNOWN: (&str, &str) = ("Unimplemented(", ")");

/// Fails if the outputs need an operator that the engine lacks.
///
/// # Errors
/// It names each such operator once, with a node that uses it.
pub(super) fn check(graph: &InferenceModel) -> TractResult<()> {
    let mut missing = Vec::<(String, &str)>::new();
    for id in graph.eval_order()? {
        let node = graph.node(id);
        let name = node.op.name();
        let operator = name.strip_prefix(UNKNOWN.0).and_then(|name| name.strip_suffix(UNKNOWN.1));
        if let Some(operator) = operator.filter(|operator| missing.iter().all(|(known, _)| known != operator))
        {
            missing.push((operator.to_owned(), &node.name));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let missing = missing.iter().map(|(operator, node)| format!("{operator} (node `{node}`)"));
    let missing: Vec<_> = missing.collect();
    Err(TractError::msg(format!(
        "the built-in engine does not have {}; set MODEL_BACKEND=onnxruntime",
        missing.join(", ")
    )))
}
