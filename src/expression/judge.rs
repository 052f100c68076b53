//! The verdict on one expression. May take any time and any memory, and may overflow the stack: only for the judging process.

use std::{collections::HashMap, sync::Arc};

use cel::{
    Context, Program, Value as Cel,
    objects::{Key, Map},
};
use serde_json::Value;

use super::short;

/// Characters of the interpreter's own words that are passed on: they may quote a whole answer.
const LONGEST_DETAIL: usize = 200;

/// Whether the expression comes to true; if not, why: what can be said after it.
pub(super) fn holds(expression: &str, variables: serde_json::Map<String, Value>) -> Result<(), String> {
    let program =
        Program::compile(expression).map_err(|error| format!("is no CEL expression: {}", short(&error.to_string(), LONGEST_DETAIL)))?;
    let mut context = Context::default();
    for (name, value) in variables {
        context.add_variable_from_value(name, cel(&value));
    }
    match program.execute(&context) {
        Ok(Cel::Bool(true)) => Ok(()),
        Ok(Cel::Bool(false)) => Err("is false".to_owned()),
        Ok(_) => Err("is neither true nor false".to_owned()),
        Err(error) => Err(format!("can't be told: {}", short(&error.to_string(), LONGEST_DETAIL))),
    }
}

/// JSON as CEL sees it. Whole numbers become int, so that they compare with literals.
fn cel(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(value) => Cel::Bool(*value),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(int), _) => Cel::Int(int),
            (None, Some(uint)) => Cel::UInt(uint),
            (None, None) => Cel::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => Cel::String(Arc::new(text.clone())),
        Value::Array(items) => Cel::List(Arc::new(items.iter().map(cel).collect())),
        Value::Object(fields) => {
            let map: HashMap<Key, Cel> = fields.iter().map(|(name, value)| (Key::String(Arc::new(name.clone())), cel(value))).collect();
            Cel::Map(Map { map: Arc::new(map) })
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_expression_holds_or_says_why_not() {
        let body = json!({"status": "ok", "rows": 3, "share": 0.5, "big": u64::MAX, "parts": [{"up": true}], "none": null});
        for (expression, expected) in [
            ("body.status == 'ok'", None),
            ("body.rows > 2 && body.share < 0.6", None),
            ("body.parts.all(p, p.up)", None),
            ("body.none == null", None),
            ("body.rows == 4", Some("is false")),
            ("body.rows", Some("is neither true nor false")),
            ("body.missing == 1", Some("can't be told: No such key: missing")),
            ("body.rows ==", Some("is no CEL expression")),
        ] {
            let variables = [("body".to_owned(), body.clone())].into_iter().collect();
            let result = holds(expression, variables);
            match expected {
                None => assert_eq!(result, Ok(()), "{expression}"),
                Some(part) => assert!(result.as_ref().is_err_and(|error| error.contains(part)), "{expression}: {result:?}"),
            }
        }
    }
}
