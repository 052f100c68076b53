//! One liquidation as a client sends it. Parsed once into values that the table accepts, so that a mistake
//! of the client is answered with a reason and never reaches the database.

use serde::Deserialize;

/// Longest text of a column.
const TEXT_CHARACTERS: usize = 255;

/// Digits before the point that `DECIMAL(30,8)` holds.
const INTEGER_DIGITS: usize = 22;

/// A field that is not known is refused: a misspelt one would be lost without a word.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewLiquidation {
    pub symbol: Text,
    pub side: Text,
    pub order_type: Option<Text>,
    pub time_in_force: Option<Text>,
    pub original_quantity: Decimal,
    pub price: Decimal,
    pub average_price: Option<Decimal>,
    pub order_status: Option<Text>,
    pub order_last_filled_quantity: Option<Decimal>,
    pub order_filled_accumulated_quantity: Option<Decimal>,
    /// Milliseconds since 1970.
    pub order_trade_time: i64,
    pub usd_size: Option<Decimal>,
}

/// Text that fits a column and is not empty.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Text(pub String);

impl TryFrom<String> for Text {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.chars().count() {
            0 => Err("a text is empty".to_owned()),
            1..=TEXT_CHARACTERS => Ok(Self(text)),
            more => Err(format!("a text has {more} characters, more than {TEXT_CHARACTERS}")),
        }
    }
}

/// A number in plain digits, sent as a JSON number or, to keep all its digits, as a string. The server
/// rounds it to eight decimal places.
#[derive(Debug, Deserialize)]
#[serde(try_from = "serde_json::Value")]
pub struct Decimal(pub String);

impl TryFrom<serde_json::Value> for Decimal {
    type Error = String;

    fn try_from(value: serde_json::Value) -> Result<Self, String> {
        let text = match value {
            serde_json::Value::String(text) => text,
            // JSON writes small and large floats with an exponent, `f64` itself never does.
            serde_json::Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
                Some(float) => float.to_string(),
                None => number.to_string(),
            },
            _ => return Err("a decimal is neither a number nor a string".to_owned()),
        };
        if fits(&text) {
            Ok(Self(text))
        } else {
            Err(format!("a decimal is not a plain number of at most {INTEGER_DIGITS} digits before the point"))
        }
    }
}

fn fits(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (integer, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    plain(integer) && plain(fraction) && integer.len() <= INTEGER_DIGITS && fraction.len() <= 255
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn decimals_are_plain_digits_that_fit_the_column() {
        for (value, expected) in [
            (json!("65000.5"), Some("65000.5")),
            (json!(65000.5), Some("65000.5")),
            (json!(-3), Some("-3")),
            (json!(1e-7), Some("0.0000001")),
            (json!("9999999999999999999999"), Some("9999999999999999999999")),
            (json!("10000000000000000000000"), None),
            (json!(1e30), None),
            (json!("1e3"), None),
            (json!(".5"), None),
            (json!("5."), None),
            (json!(""), None),
            (json!("NaN"), None),
            (json!(null), None),
            (json!(true), None),
        ] {
            let decimal = Decimal::try_from(value.clone()).ok();
            assert_eq!(decimal.as_ref().map(|d| d.0.as_str()), expected, "{value}");
        }
    }

    #[test]
    fn a_row_names_what_is_wrong_with_it() {
        let row = json!({
            "symbol": "BTCUSDT", "side": "SELL", "original_quantity": "1", "price": "2", "order_trade_time": 3
        });
        assert!(NewLiquidation::deserialize(&row).is_ok());
        for (field, value, reason) in [
            ("symbol", json!(""), "a text is empty"),
            ("sied", json!("BUY"), "unknown field `sied`"),
            ("price", json!("two"), "a decimal is not a plain number"),
            ("order_trade_time", json!("3"), "invalid type"),
        ] {
            let mut row = row.clone();
            row[field] = value;
            let error = NewLiquidation::deserialize(&row).expect_err(field).to_string();
            assert!(error.contains(reason), "{field}: {error}");
        }
    }
}
