//! Reads enough of PromQL to find the series of an expression.

/// Every selector of ours in `expr`, without its range: `tepal_x{a="b"}`, `up{job="c"}`.
pub(crate) fn selectors(expr: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = expr;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic() || c == '_') {
        rest = &rest[start..];
        let end =
            rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':').unwrap_or(rest.len());
        let name = &rest[..end];
        let braces = if rest[end..].starts_with('{') { closing(&rest[end..]) } else { 0 };
        if name == "up" || name.starts_with("tepal") || name.starts_with("process_") {
            found.push(rest[..end + braces].to_owned());
        }
        rest = &rest[end + braces..];
    }
    found
}

/// Length of the part in braces that `text` begins with; braces in quotes do not count.
fn closing(text: &str) -> usize {
    let mut is_quoted = false;
    let end = text.find(|c: char| {
        is_quoted ^= c == '"';
        c == '}' && !is_quoted
    });
    end.expect("a closing brace") + 1
}

#[test]
fn selectors_are_found_with_their_labels() {
    let expr = r#"(sum(rate(tepal_a_total{x=~"5..", r="/job/{id}"}[5m])) or vector(0)) / tepal:b:rate5m > up{job="c"}"#;
    let expected = [r#"tepal_a_total{x=~"5..", r="/job/{id}"}"#, "tepal:b:rate5m", r#"up{job="c"}"#];
    assert_eq!(selectors(expr), expected);
    assert_eq!(selectors("sum by (le) (tepal_c_bucket{}[1m])"), ["tepal_c_bucket{}"]);
}
