//! CEL expressions over JSON: the language that Kubernetes users know from validation rules.

use std::{collections::HashMap, sync::Arc};

use cel::{
    Context, Program, Value as Cel,
    objects::{Key, Map},
};
use serde_json::Value;

/// Whether the expression comes to true; if not, why.
pub fn holds(expression: &str, variables: &[(&str, Value)]) -> Result<(), String> {
    let program = Program::compile(expression).map_err(|error| format!("{expression:?} is no CEL expression: {error}"))?;
    let mut context = Context::default();
    for (name, value) in variables {
        context.add_variable_from_value(*name, cel(value));
    }
    match program.execute(&context) {
        Ok(Cel::Bool(true)) => Ok(()),
        Ok(Cel::Bool(false)) => Err(format!("{expression} is false")),
        Ok(_) => Err(format!("{expression} is neither true nor false")),
        Err(error) => Err(format!("{expression} can't be told: {error}")),
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
            ("body.rows == 4", Some("body.rows == 4 is false")),
            ("body.rows", Some("body.rows is neither true nor false")),
            ("body.missing == 1", Some("body.missing == 1 can't be told")),
            ("body.rows ==", Some("is no CEL expression")),
        ] {
            let result = holds(expression, &[("body", body.clone())]);
            match expected {
                None => assert_eq!(result, Ok(()), "{expression}"),
                Some(part) => assert!(result.as_ref().is_err_and(|error| error.contains(part)), "{expression}: {result:?}"),
            }
        }
    }
}
