//! What a client orders: model, rows, key, priority and time limits.

use serde_json::Value;

use super::models::{self, ModelKind};
use super::rng::Rng;

/// One job as its client wants it.
#[derive(Clone, Debug)]
pub(super) struct Order {
    /// Model and data, as the history has them.
    pub(super) input: Value,
    pub(super) key: Option<String>,
    pub(super) priority: Option<&'static str>,
    pub(super) max_queue_seconds: Option<f64>,
    pub(super) timeout_seconds: Option<f64>,
}

impl Order {
    /// The order number `serial` of a run.
    pub(super) fn draw(rng: &mut Rng, seed: u64, serial: u64) -> Self {
        let model = ModelKind::draw(rng);
        Self {
            input: models::input(model, model.data(rng, serial)),
            key: rng.chance(0.4).then(|| format!("chaos-{seed}-{serial}")),
            priority: *rng.pick(&[None, None, Some("high"), Some("normal"), Some("low")]),
            max_queue_seconds: rng.chance(0.02).then_some(1.0),
            timeout_seconds: rng.chance(0.03).then_some(2.5),
        }
    }

    /// The same without time limits of its own: no time limit can justify that it fails.
    pub(super) fn patient(self) -> Self {
        Self { max_queue_seconds: None, timeout_seconds: None, ..self }
    }

    /// The body of `POST /predict`.
    pub(super) fn body(&self) -> String {
        let mut body = self.input.clone();
        for (name, value) in [
            ("priority", self.priority.map(Value::from)),
            ("max_queue_seconds", self.max_queue_seconds.map(Value::from)),
            ("timeout_seconds", self.timeout_seconds.map(Value::from)),
        ] {
            if let Some(value) = value {
                body[name] = value;
            }
        }
        body.to_string()
    }
}
