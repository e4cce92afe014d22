//! The 150 Iris flowers with their true classes, from the reference model's file.

use serde_json::{Value, json};

use crate::models;

/// One flower.
pub(crate) struct Flower {
    /// The four measurements.
    pub(crate) row: Value,
    /// Its species, as a class number.
    pub(crate) class: u64,
}

/// All 150.
pub(crate) fn flowers() -> Vec<Flower> {
    let table = std::fs::read_to_string(models().join("iris/iris.csv")).unwrap();
    let flowers: Vec<Flower> = table.lines().skip(1).map(flower).collect();
    assert_eq!(flowers.len(), 150);
    flowers
}

/// The measurements of the first `count` flowers.
pub(crate) fn rows(count: usize) -> Vec<Value> {
    flowers().into_iter().map(|flower| flower.row).take(count).collect()
}

/// The share of the flowers with the right class.
pub(crate) fn accuracy(classes: &[u64]) -> f64 {
    let flowers = flowers();
    assert_eq!(classes.len(), flowers.len());
    let right = flowers.iter().zip(classes).filter(|(flower, class)| flower.class == **class).count();
    right as f64 / flowers.len() as f64
}

fn flower(line: &str) -> Flower {
    let numbers: Vec<f64> = line.split(',').map(|number| number.parse().unwrap()).collect();
    let (class, measurements) = numbers.split_last().unwrap();
    Flower { row: json!(measurements), class: *class as u64 }
}
