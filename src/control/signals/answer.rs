//! The number in an answer.
//!
//! An answer that is not just one finite number is no value, and the sentence says what it was
//! instead: a query that finds three series has three opinions, and none of them is taken.

use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use crate::config::model::SignalAnswer;

/// There is no number in an answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(super) enum Nonsense {
    #[error("answered {0}; a redirect is not followed")]
    Redirect(StatusCode),
    #[error("answered {0}")]
    Status(StatusCode),
    #[error("the answer is no JSON: {0}")]
    NoJson(String),
    #[error("the answer is not what Prometheus answers: {0}")]
    NotPrometheus(String),
    #[error("the query fails: {0}")]
    QueryFails(String),
    #[error("the query finds no sample")]
    NoSample,
    #[error("the query finds {0} series; one is needed")]
    ManySamples(usize),
    #[error("the query answers with a {0}; a scalar or a vector is needed")]
    OtherResult(String),
    #[error("the answer has nothing at `{0}`")]
    NothingThere(String),
    #[error("what the answer has at `{0}` is no number")]
    NoNumber(String),
    #[error("the sample `{0}` is no number")]
    NoSampleValue(String),
    #[error("{0} is no value")]
    NotFinite(f64),
}

/// Reads the number.
pub(super) fn number(
    answer: &SignalAnswer,
    status: StatusCode,
    body: &[u8],
) -> Result<f64, Nonsense> {
    if status.is_redirection() {
        return Err(Nonsense::Redirect(status));
    }
    let number = match answer {
        SignalAnswer::Prometheus => sample(status, body)?,
        SignalAnswer::Json { .. } if !status.is_success() => return Err(Nonsense::Status(status)),
        SignalAnswer::Json { pointer } => at(pointer, body)?,
    };
    number
        .is_finite()
        .then_some(number)
        .ok_or(Nonsense::NotFinite(number))
}

/// What Prometheus answers to an instant query, as far as it matters.
#[derive(Deserialize)]
struct Answer {
    error: Option<String>,
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "resultType")]
    result_type: String,
    result: Value,
}

#[derive(Deserialize)]
struct Series {
    value: Sample,
}

/// A time, which is the time of the question, and a number as text.
#[derive(Deserialize)]
struct Sample(serde::de::IgnoredAny, String);

fn sample(status: StatusCode, body: &[u8]) -> Result<f64, Nonsense> {
    // A query that it cannot execute is a 4xx whose body says why.
    let answer: Answer = serde_json::from_slice(body).map_err(|error| {
        if status.is_success() {
            Nonsense::NotPrometheus(error.to_string())
        } else {
            Nonsense::Status(status)
        }
    })?;
    if let Some(error) = answer.error {
        return Err(Nonsense::QueryFails(error));
    }
    let data = match answer.data {
        Some(data) if status.is_success() => data,
        Some(_) => return Err(Nonsense::Status(status)),
        None => return Err(Nonsense::NotPrometheus("it has no `data`".to_owned())),
    };
    let other = |error: serde_json::Error| Nonsense::NotPrometheus(error.to_string());
    let Sample(_, text) = match &*data.result_type {
        "scalar" => serde_json::from_value(data.result).map_err(other)?,
        "vector" => {
            let series: Vec<Series> = serde_json::from_value(data.result).map_err(other)?;
            let count = series.len();
            let mut series = series.into_iter();
            match (series.next(), count) {
                (None, _) => return Err(Nonsense::NoSample),
                (Some(only), 1) => only.value,
                (Some(_), count) => return Err(Nonsense::ManySamples(count)),
            }
        }
        _ => return Err(Nonsense::OtherResult(data.result_type)),
    };
    text.parse().map_err(|_| Nonsense::NoSampleValue(text))
}

fn at(pointer: &str, body: &[u8]) -> Result<f64, Nonsense> {
    let document: Value =
        serde_json::from_slice(body).map_err(|error| Nonsense::NoJson(error.to_string()))?;
    let found = document.pointer(pointer);
    let found = found.ok_or_else(|| Nonsense::NothingThere(pointer.to_owned()))?;
    let number = match found {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    number.ok_or_else(|| Nonsense::NoNumber(pointer.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prometheus(body: &str) -> Result<f64, String> {
        let number = number(&SignalAnswer::Prometheus, StatusCode::OK, body.as_bytes());
        number.map_err(|nonsense| nonsense.to_string())
    }

    fn json(pointer: &str, body: &str) -> Result<f64, String> {
        let answer = SignalAnswer::Json {
            pointer: pointer.to_owned(),
        };
        let number = number(&answer, StatusCode::OK, body.as_bytes());
        number.map_err(|nonsense| nonsense.to_string())
    }

    #[test]
    fn a_query_has_one_sample_or_is_no_value() {
        let vector = |samples: &str| {
            prometheus(&format!(
                r#"{{"status":"success","data":{{"resultType":"vector","result":[{samples}]}}}}"#
            ))
        };
        let sample = r#"{"metric":{"job":"new"},"value":[1795000000.781,"1.5e9"]}"#;
        assert_eq!(vector(sample), Ok(1.5e9));
        assert_eq!(
            prometheus(r#"{"data":{"resultType":"scalar","result":[1,"-7"]}}"#),
            Ok(-7.0)
        );
        let no = |answer: Result<f64, String>| answer.expect_err("this is no value");
        assert_eq!(no(vector("")), "the query finds no sample");
        assert_eq!(
            no(vector(&format!("{sample},{sample},{sample}"))),
            "the query finds 3 series; one is needed"
        );
        for (text, said) in [("NaN", "NaN"), ("+Inf", "inf"), ("-Inf", "-inf")] {
            let sample = format!(r#"{{"metric":{{}},"value":[1,"{text}"]}}"#);
            assert_eq!(no(vector(&sample)), format!("{said} is no value"));
        }
        assert_eq!(
            no(prometheus(
                r#"{"data":{"resultType":"matrix","result":[]}}"#
            )),
            "the query answers with a matrix; a scalar or a vector is needed"
        );
        assert_eq!(
            no(prometheus(r#"{"status":"error","error":"parse error"}"#)),
            "the query fails: parse error"
        );
        for body in [
            "",
            "<html>",
            "[]",
            "{}",
            r#"{"data":{"resultType":"vector","result":7}}"#,
        ] {
            let said = no(prometheus(body));
            assert!(
                said.starts_with("the answer is not what Prometheus answers: "),
                "{said}"
            );
        }
    }

    #[test]
    fn a_document_has_a_number_at_the_place_or_is_no_value() {
        let body =
            r#"{"lag": {"seconds": 7.5, "text": " 12 ", "nan": "NaN", "none": null}, "a/b": [1]}"#;
        assert_eq!(json("/lag/seconds", body), Ok(7.5));
        assert_eq!(json("/lag/text", body), Ok(12.0));
        assert_eq!(json("/a~1b/0", body), Ok(1.0));
        assert_eq!(json("", "3"), Ok(3.0));
        let no = |pointer: &str, body: &str| json(pointer, body).expect_err("this is no value");
        assert_eq!(no("/lag/nan", body), "NaN is no value");
        assert_eq!(
            no("/lag", body),
            "what the answer has at `/lag` is no number"
        );
        assert_eq!(
            no("/lag/none", body),
            "what the answer has at `/lag/none` is no number"
        );
        assert_eq!(
            no("/lag/minutes", body),
            "the answer has nothing at `/lag/minutes`"
        );
        assert!(no("/lag", "NaN").starts_with("the answer is no JSON: "));
        assert!(no("", &"[".repeat(100_000)).starts_with("the answer is no JSON: "));
    }

    #[test]
    fn a_status_that_is_no_success_is_no_value() {
        let answer = SignalAnswer::Json {
            pointer: String::new(),
        };
        let number = |answer: &SignalAnswer, status, body: &[u8]| {
            let number = number(answer, status, body);
            number.expect_err("this is no value").to_string()
        };
        assert_eq!(
            number(&answer, StatusCode::NOT_FOUND, b"7"),
            "answered 404 Not Found"
        );
        assert_eq!(
            number(&answer, StatusCode::FOUND, b"7"),
            "answered 302 Found; a redirect is not followed"
        );
        let prometheus = SignalAnswer::Prometheus;
        assert_eq!(
            number(&prometheus, StatusCode::BAD_GATEWAY, b"<html>"),
            "answered 502 Bad Gateway"
        );
        assert_eq!(
            number(
                &prometheus,
                StatusCode::BAD_REQUEST,
                br#"{"error":"parse error"}"#
            ),
            "the query fails: parse error"
        );
    }
}
