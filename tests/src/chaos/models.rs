//! The models of a run: the rows that clients send to each, and the right answers. Every row of a run has a number of its own, on
//! which its answer depends. A result therefore names the very submit that it belongs to.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::rng::Rng;

/// Most rows of a job.
pub(super) const MOST_ROWS: u64 = 4;
/// Numbers of rows. Up to here all sums of the models are exact in an f32.
const NUMBERS: u64 = 1 << 22;
/// Longest row of `series`.
const LONGEST: u64 = 40;
/// Values of a result of `wide`, and the step between them.
pub(super) const WIDTH: usize = 1_200;
pub(super) const STEP: f32 = 4_000.0;
/// What the version of `series` adds to a total, times the version.
const VERSION_SCALE: i64 = 1 << 32;

/// The models, by their names. `toy` is in tests/models, the others are in tests/chaos-models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ModelKind {
    /// Fixed shapes, one output.
    Toy,
    /// A variable axis of integers, two outputs, and versions that are replaced.
    Series,
    /// Texts as input, and large results.
    Wide,
}

impl ModelKind {
    pub(super) const ALL: [Self; 3] = [Self::Toy, Self::Series, Self::Wide];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Toy => "toy",
            Self::Series => "series",
            Self::Wide => "wide",
        }
    }

    /// The model of a job. Large results are the fewest, because the whole history of a run is kept in memory.
    pub(super) fn draw(rng: &mut Rng) -> Self {
        rng.weighted(&[(5, Self::Toy), (4, Self::Series), (1, Self::Wide)])
    }

    /// The `data` of job number `serial`.
    pub(super) fn data(self, rng: &mut Rng, serial: u64) -> Value {
        let first = serial * MOST_ROWS % NUMBERS;
        let count = match self {
            Self::Toy | Self::Series => rng.within(1..MOST_ROWS + 1),
            Self::Wide => 1 + u64::from(rng.chance(0.1)),
        };
        let numbers = first..first + count;
        let length = rng.within(1..LONGEST + 1);
        Value::Array(match self {
            Self::Toy => numbers.map(|number| toy_row(rng, number)).collect(),
            Self::Series => numbers.map(|number| series_row(rng, number, length)).collect(),
            Self::Wide => numbers.map(|number| json!([text(rng, number)])).collect(),
        })
    }
}

/// What a client sends: model and data. The history has it as the input of the job.
pub(super) fn input(model: ModelKind, data: Value) -> Value {
    json!({ "model": model.name(), "data": data })
}

/// Six whole, even numbers, so that halving and summing them is exact in any order. Their score is the number of the row.
fn toy_row(rng: &mut Rng, number: u64) -> Value {
    let mut values: Vec<i64> = (0..5).map(|_| 2 * (rng.within(0..64) as i64 - 32)).collect();
    values.push(2 * (number as i64 - 1) - values.iter().sum::<i64>());
    json!([values[..3], values[3..]])
}

fn series_row(rng: &mut Rng, number: u64, length: u64) -> Value {
    let rest = (1..length).map(|_| rng.within(0..1_000) as i64 - 500);
    std::iter::once(number as i64).chain(rest).collect()
}

/// A number as an element of BYTES, in one of its two forms.
fn text(rng: &mut Rng, number: u64) -> Value {
    let text = number.to_string();
    if rng.chance(0.5) { json!(text) } else { json!({"b64": STANDARD.encode(text)}) }
}

/// The number in an element of BYTES.
fn number_in(element: &Value) -> Option<f64> {
    let decoded = || String::from_utf8(STANDARD.decode(element["b64"].as_str()?).ok()?).ok();
    element.as_str().map(str::to_owned).or_else(decoded)?.parse().ok()
}

/// Whether a result is right for an input: the answer of its model for each row, in order.
#[must_use]
pub fn oracle(input: &Value, result: &Value) -> bool {
    let Some(rows) = input["data"].as_array() else { return false };
    let Some(answers) = answers(result).filter(|answers| answers.len() == rows.len()) else { return false };
    let mut pairs = rows.iter().zip(&answers);
    match input["model"].as_str() {
        Some("toy") => pairs.all(|(row, answer)| is_score(row, answer)),
        Some("series") => series_version(rows, &answers, result).is_some(),
        Some("wide") => pairs.all(|(row, answer)| is_ramp(row, answer)),
        _ => false,
    }
}

/// The version of `series` that gave this result; `None` if it is not right for any one version.
pub(super) fn version_of(input: &Value, result: &Value) -> Option<i64> {
    series_version(input["data"].as_array()?, &answers(result)?, result)
}

/// The first output of each row. A result of several rows repeats that of the first.
fn answers(result: &Value) -> Option<Vec<&Value>> {
    let first = &result["prediction"];
    let Some(all) = result.get("predictions") else { return Some(vec![first]) };
    let answers: Vec<_> = all.as_array()?.iter().map(|one| &one["prediction"]).collect();
    (answers.len() > 1 && answers[0] == first).then_some(answers)
}

/// Half the sum of the row, plus 1.
fn is_score(row: &Value, answer: &Value) -> bool {
    let Some(halves) = row.as_array() else { return false };
    let values = halves.iter().filter_map(Value::as_array).flatten();
    let sum: f64 = values.filter_map(Value::as_f64).sum();
    only(answer).and_then(Value::as_f64) == Some(sum / 2.0 + 1.0)
}

/// Both outputs come from the same version in all rows: a batch never meets two of them.
fn series_version(rows: &[Value], answers: &[&Value], result: &Value) -> Option<i64> {
    let [total, echo] = &result["outputs"].as_array()?[..] else { return None };
    let steps: Vec<Vec<i64>> = rows.iter().map(integers).collect::<Option<_>>()?;
    let totals = answers.iter().map(|answer| only(answer)?.as_i64()).collect::<Option<Vec<_>>>()?;
    let sums: Vec<i64> = steps.iter().map(|row| row.iter().sum()).collect();
    let version = (totals.first()? - sums.first()?) / VERSION_SCALE;
    let right = |(total, sum): (&i64, &i64)| *total == sum + version * VERSION_SCALE;
    let echoed: Vec<i64> = steps.iter().flatten().map(|step| 2 * step + version).collect();
    let is_right = version > 0
        && totals.iter().zip(&sums).all(right)
        && integers(&total["data"])? == totals
        && integers(&echo["data"])? == echoed;
    is_right.then_some(version)
}

fn is_ramp(row: &Value, answer: &Value) -> bool {
    let Some(start) = only(row).and_then(number_in) else { return false };
    let found =
        if answer.is_object() { (answer["from"].as_f64(), answer["length"].as_u64()) } else { ramp(answer) };
    found == (Some(start), Some(WIDTH as u64))
}

/// The first value and the length of a ramp.
fn ramp(answer: &Value) -> (Option<f64>, Option<u64>) {
    let Some(values) = answer.as_array() else { return (None, None) };
    let Some(first) = values.first().and_then(Value::as_f64) else { return (None, None) };
    let is_step =
        |(place, value): (usize, &Value)| value.as_f64() == Some(first + f64::from(STEP) * place as f64);
    let is_ramp = values.iter().enumerate().all(is_step);
    (is_ramp.then_some(first), Some(values.len() as u64))
}

/// The body of an answer with each large ramp as its start and length. Nothing else of it changes, so a wrong value is kept.
pub(super) fn shortened(mut body: Value) -> Value {
    let Some(result) = body.get_mut("result") else { return body };
    let rows = result.get_mut("predictions").and_then(Value::as_array_mut).map(std::mem::take);
    let mut rows = rows.unwrap_or_default();
    for holder in rows.iter_mut().chain(std::iter::once(&mut *result)) {
        if let Some(answer) = holder.get_mut("prediction")
            && let (Some(from), Some(length)) = ramp(answer)
            && length == WIDTH as u64
        {
            *answer = json!({ "from": from, "length": length });
        }
    }
    if !rows.is_empty() {
        result["predictions"] = Value::Array(rows);
    }
    body
}

/// The element of a list of one.
fn only(list: &Value) -> Option<&Value> {
    list.as_array().filter(|values| values.len() == 1)?.first()
}

fn integers(list: &Value) -> Option<Vec<i64>> {
    list.as_array()?.iter().map(Value::as_i64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_an_answer_of_its_own() {
        let mut rng = Rng::new(1, 1);
        for model in ModelKind::ALL {
            let data = (0..50).flat_map(|serial| model.data(&mut rng, serial).as_array().cloned().unwrap());
            let mut numbers: Vec<f64> = data.map(|row| number(model, &row)).collect();
            let count = numbers.len();
            numbers.dedup();
            assert_eq!(numbers.len(), count);
        }
    }

    fn number(model: ModelKind, row: &Value) -> f64 {
        let values: Vec<f64> = match model {
            ModelKind::Toy => {
                row.as_array().unwrap().iter().flat_map(|half| half.as_array().unwrap().clone())
            }
            ModelKind::Series => return row[0].as_f64().unwrap(),
            ModelKind::Wide => return number_in(&row[0]).unwrap(),
        }
        .filter_map(|value| value.as_f64())
        .collect();
        values.iter().sum()
    }

    #[test]
    fn only_the_rows_own_scores_are_right() {
        let toy = |data| input(ModelKind::Toy, data);
        let one = toy(json!([[[0, 0, 0], [0, 0, 4]]]));
        let two = toy(json!([[[0, 0, 0], [0, 0, 4]], [[2, 0, 0], [0, 0, 4]]]));
        let both =
            json!({"prediction": [3.0], "predictions": [{"prediction": [3.0]}, {"prediction": [4.0]}]});
        assert!(oracle(&one, &json!({"prediction": [3.0]})));
        assert!(oracle(&two, &both));
        assert!(!oracle(&one, &json!({"prediction": [4.0]})));
        assert!(!oracle(&one, &both));
        assert!(!oracle(&two, &json!({"prediction": [3.0]})));
        assert!(!oracle(&one, &json!(null)));
    }

    fn series_result(versions: [i64; 2]) -> Value {
        let [first, second] = versions.map(|version| version * VERSION_SCALE);
        let totals = [7 + first, 3 + second];
        let echo = [8, 6, 4, 2].map(|doubled| doubled + versions[0]);
        let predictions: Vec<_> = totals.iter().map(|total| json!({"prediction": [total]})).collect();
        json!({
            "prediction": [totals[0]],
            "predictions": predictions,
            "outputs": [{"name": "total", "data": totals}, {"name": "echo", "data": echo}],
        })
    }

    #[test]
    fn a_result_of_series_comes_from_one_version() {
        let sent = input(ModelKind::Series, json!([[4, 3], [2, 1]]));
        assert_eq!(version_of(&sent, &series_result([3, 3])), Some(3));
        assert!(oracle(&sent, &series_result([3, 3])));
        assert!(!oracle(&sent, &series_result([3, 4])));
        assert!(!oracle(&sent, &series_result([0, 0])));
        let mut other = series_result([3, 3]);
        other["outputs"][1]["data"][3] = json!(7);
        assert!(!oracle(&sent, &other));
        assert!(!oracle(&input(ModelKind::Series, json!([[4, 4], [2, 1]])), &series_result([3, 3])));
    }

    #[test]
    fn a_right_ramp_is_shortened_and_a_wrong_one_kept() {
        let sent = input(ModelKind::Wide, json!([["7"], [{"b64": "OQ=="}]]));
        let ramp = |start: f32| (0..WIDTH).map(|place| json!(start + STEP * place as f32)).collect::<Value>();
        let rows = json!([{"prediction": ramp(7.0)}, {"prediction": ramp(9.0)}]);
        let right = json!({"result": {"prediction": ramp(7.0), "predictions": rows}});
        let short = shortened(right.clone());
        assert!(short.to_string().len() < 200, "{short}");
        assert!(oracle(&sent, &right["result"]) && oracle(&sent, &short["result"]));
        let mut wrong = right;
        wrong["result"]["predictions"][1]["prediction"][5] = json!(0);
        let kept = shortened(wrong.clone());
        assert_eq!(kept["result"]["predictions"][1], wrong["result"]["predictions"][1]);
        assert!(!oracle(&sent, &wrong["result"]) && !oracle(&sent, &kept["result"]));
        for body in [json!({"status": "pending"}), json!(null), json!({"result": {"prediction": [1]}})] {
            assert_eq!(shortened(body.clone()), body);
        }
    }
}
