//! Reads grafana/dashboards: the queries of each panel, variable and annotation.

use serde_json::Value;

use crate::root;

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
fn every_dashboard_can_be_narrowed_to_an_instance_and_a_priority_and_that_of_workers_to_a_model() {
    for (file, dashboard) in dashboards() {
        let variables: Vec<&str> =
            list(&dashboard, "/templating/list").iter().map(|entry| text(entry, "/name")).collect();
        let expected: &[&str] = match file.as_str() {
            "workers.json" => &["instance", "model", "priority"],
            _ => &["instance", "priority"],
        };
        assert_eq!(variables, expected, "{file}");
        let all = dashboard["panels"].to_string();
        for variable in variables {
            assert!(all.contains(&format!("${variable}")), "{file} has no use for ${variable}");
        }
    }
    assert!(panels().len() > 50, "{}", panels().len());
}
