//! What a client orders, and what it must get. The toy model's score is half the sum of a row, plus 1; every row of a
//! run is made so that its score is a number of its own. A result therefore names the very submit that it belongs to.

use serde_json::{Value, json};

use super::rng::Rng;

/// Most rows of a job.
pub(super) const MOST_ROWS: u64 = 4;
/// Up to here all sums of the model are exact in an f32.
const LARGEST_SCORE: u64 = 1 << 22;

/// One job as its client wants it.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) rows: Value,
    pub(super) key: Option<String>,
    pub(super) priority: Option<&'static str>,
    pub(super) max_queue_seconds: Option<f64>,
    pub(super) timeout_seconds: Option<f64>,
}

impl Order {
    /// The order number `serial` of a run.
    pub(super) fn draw(rng: &mut Rng, seed: u64, serial: u64) -> Self {
        let first = serial * MOST_ROWS % LARGEST_SCORE;
        let rows = rng.within(1..MOST_ROWS + 1);
        let rows = (first..first + rows).map(|score| row(rng, score)).collect();
        Self {
            rows: Value::Array(rows),
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
        let mut body = json!({ "data": self.rows });
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

/// Six whole, even numbers, so that halving and summing them is exact in any order.
fn row(rng: &mut Rng, score: u64) -> Value {
    let mut values: Vec<i64> = (0..5).map(|_| 2 * (rng.within(0..64) as i64 - 32)).collect();
    values.push(2 * (score as i64 - 1) - values.iter().sum::<i64>());
    json!([values[..3], values[3..]])
}

/// Whether a result is right for an input: the score of each row, in order.
#[must_use]
pub fn oracle(input: &Value, result: &Value) -> bool {
    let Some(rows) = input.as_array() else { return false };
    let right = |row: &Value, said: &Value| {
        said["prediction"].as_array().is_some_and(|values| values.len() == 1)
            && said["prediction"][0].as_f64().is_some_and(|said| score(row) == Some(said))
    };
    let predictions = result["predictions"].as_array();
    rows.first().is_some_and(|row| right(row, result))
        && match predictions {
            None => rows.len() == 1,
            Some(said) => {
                said.len() == rows.len() && rows.iter().zip(said).all(|(row, said)| right(row, said))
            }
        }
}

fn score(row: &Value) -> Option<f64> {
    let halves = row.as_array()?.iter().filter_map(Value::as_array);
    let sum: f64 = halves.flatten().filter_map(Value::as_f64).sum();
    Some(sum / 2.0 + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_score_of_its_own() {
        let mut rng = Rng::new(1, 1);
        let mut scores: Vec<f64> = (0..50)
            .flat_map(|serial| Order::draw(&mut rng, 1, serial).rows.as_array().cloned().unwrap())
            .map(|row| score(&row).unwrap())
            .collect();
        let count = scores.len();
        scores.dedup();
        assert_eq!(scores.len(), count);
    }

    #[test]
    fn the_oracle_takes_only_the_rows_own_scores() {
        let one = json!([[[0, 0, 0], [0, 0, 4]]]);
        let two = json!([[[0, 0, 0], [0, 0, 4]], [[2, 0, 0], [0, 0, 4]]]);
        let both =
            json!({"prediction": [3.0], "predictions": [{"prediction": [3.0]}, {"prediction": [4.0]}]});
        assert!(oracle(&one, &json!({"prediction": [3.0]})));
        assert!(oracle(&two, &both));
        assert!(!oracle(&one, &json!({"prediction": [4.0]})));
        assert!(!oracle(&one, &both));
        assert!(!oracle(&two, &json!({"prediction": [3.0]})));
        assert!(!oracle(&one, &json!(null)));
    }
}
