//! The 150 flowers of `compose/models/iris/iris.csv`, and rows that only look like flowers.

use serde_json::Value;

use crate::queue::{Queue, result_of};

const CSV: &str = include_str!("../../../compose/models/iris/iris.csv");
pub(crate) const CLASSES: [&str; 3] = ["setosa", "versicolor", "virginica"];

/// One line of the file.
pub(crate) struct Flower {
    row: String,
    class: u64,
}

/// All of them.
pub(crate) fn flowers() -> Vec<Flower> {
    let read = |line: &str| {
        let (row, class) = line.rsplit_once(',').unwrap();
        Flower { row: format!("[{row}]"), class: class.parse().unwrap() }
    };
    CSV.lines().skip(1).map(read).collect()
}

/// The input of a job of one row, with a unique first value.
pub(crate) fn input(first: f32) -> String {
    format!("[[{first},3.5,1.4,0.2]]")
}

/// The input of a job of so many equal rows.
pub(crate) fn input_of_rows(count: usize) -> String {
    format!("[{}]", vec!["[5.1,3.5,1.4,0.2]"; count].join(","))
}

/// [`classify_rows`] with rows that are lists.
pub(crate) async fn classify_all(queue: &Queue) -> (Value, Value) {
    classify_rows(queue, str::to_owned).await
}

/// Submits every flower as a separate job and all of them as one job, and checks that both have the same classes, and the
/// right ones for more than 95 per cent. Returns the result of one flower and the result of all. `form` turns a list of four numbers
/// into a row.
pub(crate) async fn classify_rows(queue: &Queue, form: impl Fn(&str) -> String) -> (Value, Value) {
    let flowers = flowers();
    assert_eq!(flowers.len(), 150);
    let rows: Vec<_> = flowers.iter().map(|flower| form(&flower.row)).collect();
    let single = queue.submit_all(rows.iter().map(|row| format!("[{row}]"))).await;
    let together = queue.submit(format!("[{}]", rows.join(","))).await;

    let single = queue.all_completed(&single).await;
    let together = queue.large_result_of(&queue.completed(together).await).await;
    let alone: Vec<_> = single.iter().map(|job| class_of(&result_of(job))).collect();
    let in_one: Vec<_> = together["predictions"].as_array().unwrap().iter().map(class_of).collect();
    assert_eq!(alone, in_one);
    let right = flowers.iter().zip(&alone).filter(|(flower, class)| flower.class == **class).count();
    assert!(right * 100 > 95 * flowers.len(), "{right} of 150 are right");
    (result_of(&single[0]), together)
}

/// The class of a complete prediction.
fn class_of(prediction: &Value) -> u64 {
    let class = prediction["prediction"].as_u64().unwrap();
    assert_eq!(prediction["class_name"], CLASSES[class as usize]);
    let probabilities = prediction["probabilities"].as_array().unwrap();
    let sum: f64 = probabilities.iter().map(|probability| probability.as_f64().unwrap()).sum();
    assert!(probabilities.len() == 3 && (sum - 1.0).abs() < 1e-5, "{prediction}");
    class
}
