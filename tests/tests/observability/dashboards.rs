//! Reads grafana/dashboards: the queries of each panel, variable and annotation.

use serde_json::Value;

use crate::{guide, root};

/// A query and its location.
#[derive(Debug)]
pub(crate) struct Query {
    pub(crate) place: String,
    pub(crate) expr: String,
}

/// All dashboards with their file names.
fn dashboards() -> Vec<(String, Value)> {
    let files = std::fs::read_dir(root().join("grafana/dashboards")).unwrap().flatten();
    let parsed = files.map(|file| {
        let text = std::fs::read_to_string(file.path()).unwrap();
        (file.file_name().to_string_lossy().into_owned(), serde_json::from_str(&text).unwrap())
    });
    parsed.collect()
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer} in {value}"))
}

/// The queries of the panels, with Grafana's variables replaced as for "All".
pub(crate) fn panels() -> Vec<Query> {
    let mut queries = Vec::new();
    for (file, dashboard) in dashboards() {
        for panel in list(&dashboard, "/panels") {
            for target in list(panel, "/targets") {
                let place = format!("{file}, {}", text(panel, "/title"));
                queries.push(Query { place, expr: filled(text(target, "/expr")) });
            }
        }
    }
    queries
}

/// The queries of the annotations.
pub(crate) fn annotations() -> Vec<Query> {
    let all = dashboards().into_iter().flat_map(|(file, dashboard)| {
        let own = list(&dashboard, "/annotations/list").iter().filter(|entry| entry["builtIn"].is_null());
        let query = |entry: &Value| Query {
            place: format!("{file}, {}", text(entry, "/name")),
            expr: filled(text(entry, "/target/expr")),
        };
        own.map(query).collect::<Vec<_>>()
    });
    all.collect()
}

/// The metric and label of each variable: `label_values(metric, label)`.
pub(crate) fn variables() -> Vec<(Query, String)> {
    let all = dashboards().into_iter().flat_map(|(file, dashboard)| {
        let variable = |entry: &Value| {
            let query = text(entry, "/query/query").trim_start_matches("label_values(").trim_end_matches(')');
            let (metric, label) = query.rsplit_once(", ").unwrap();
            let place = format!("{file}, variable {}", text(entry, "/name"));
            (Query { place, expr: metric.to_owned() }, label.to_owned())
        };
        list(&dashboard, "/templating/list").iter().map(variable).collect::<Vec<_>>()
    });
    all.collect()
}

fn filled(expr: &str) -> String {
    let expr = expr
        .replace("$__rate_interval", "15s")
        .replace("$instance", ".*")
        .replace("$priority", ".*")
        .replace("$model", ".*");
    assert!(!expr.contains('$'), "an unknown variable in {expr}");
    expr
}

#[test]
fn every_dashboard_can_be_narrowed_to_an_instance_a_model_and_a_priority() {
    for (file, dashboard) in dashboards() {
        let variables: Vec<&str> =
            list(&dashboard, "/templating/list").iter().map(|entry| text(entry, "/name")).collect();
        assert_eq!(variables, ["instance", "model", "priority"], "{file}");
        let all = dashboard["panels"].to_string();
        for variable in variables {
            assert!(all.contains(&format!("${variable}")), "{file} has no use for ${variable}");
        }
    }
    assert!(panels().len() > 50, "{}", panels().len());
}

/// The metrics with the label `model`, as the guide lists them.
fn by_model() -> Vec<String> {
    let rows = guide::rows("Metrics");
    let of_models =
        rows.iter().filter(|row| row[3].split(", ").any(|label| label.trim_matches('`') == "model"));
    of_models.map(|row| row[0].clone()).collect()
}

#[test]
fn every_panel_that_counts_by_model_can_be_narrowed_to_a_model() {
    let metrics = by_model();
    assert!(metrics.len() > 20, "{metrics:?}");
    let mut grouped = 0;
    for (file, dashboard) in dashboards() {
        for panel in list(&dashboard, "/panels") {
            for target in list(panel, "/targets") {
                let expr = text(target, "/expr");
                grouped +=
                    usize::from(expr.contains("model)") && text(target, "/legendFormat") == "{{model}}");
                for selector in expr
                    .split(|c: char| !(c.is_alphanumeric() || c == '_'))
                    .filter(|word| is_of(word, &metrics))
                {
                    let after = expr.split_once(selector).unwrap().1;
                    assert!(
                        after.starts_with('{')
                            && after.split('}').next().unwrap().contains("model=~\"$model"),
                        "{file}: {expr}"
                    );
                }
            }
        }
    }
    assert!(grouped >= 10, "{grouped} panels compare models");
}

/// Whether a word of a query is one of these metrics, or a series of a histogram.
fn is_of(word: &str, metrics: &[String]) -> bool {
    let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word);
    metrics.iter().any(|metric| metric == base || metric == word)
}
