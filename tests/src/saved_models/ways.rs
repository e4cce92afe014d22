//! The ways in which a client can send the inputs of a job.

use std::fmt;

use serde_json::{Value, json};

use super::elements::{bytes, raw};
use crate::http::{Bytes, Client, Method};
use crate::real_models::{Case, Tensor};

/// Says how many bytes of a body in binary form are JSON.
pub(super) const HEADER_LENGTH: &str = "inference-header-content-length";

/// How the inputs are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `data`: rows, with `b64` where an element is not text.
    Data,
    /// `inputs`: tensors as JSON.
    Inputs,
    /// Tensors in binary form.
    Binary,
    /// The content of the only element is the body.
    Content,
}

struct Request {
    path: String,
    header: (&'static str, String),
    body: Bytes,
}

impl Way {
    /// The ways in which this case can be sent.
    pub(super) fn all(case: &Case) -> Vec<Self> {
        let mut ways = vec![Self::Data, Self::Inputs, Self::Binary];
        if let [Tensor { datatype, data, .. }] = &case.inputs[..]
            && datatype == "BYTES"
            && data.len() == 1
        {
            ways.push(Self::Content);
        }
        ways
    }

    /// Whether the result of such a job is tensors.
    pub(super) fn is_tensors(self) -> bool {
        matches!(self, Self::Inputs | Self::Binary)
    }

    /// Submits a job; returns its id.
    pub(super) async fn submit(self, client: &Client, model: &str, case: &Case) -> String {
        let request = self.request(model, case);
        let (name, value) = &request.header;
        let answer = client.request(Method::POST, &request.path, &[(name, value)], request.body).await;
        assert_eq!(answer.status, 202, "{self} of {model}: {}", answer.text());
        answer.json()["job_id"].as_str().expect("job_id is a string").to_owned()
    }

    fn request(self, model: &str, case: &Case) -> Request {
        let as_json = |body: Value| Request {
            path: "/predict".to_owned(),
            header: ("content-type", "application/json".to_owned()),
            body: body.to_string().into(),
        };
        match self {
            Self::Data => as_json(json!({"model": model, "data": case.rows()})),
            Self::Inputs => {
                let with_data = |tensor: &Tensor| {
                    let mut head = head(tensor);
                    head["data"] = tensor.data.clone().into();
                    head
                };
                as_json(
                    json!({"model": model, "inputs": case.inputs.iter().map(with_data).collect::<Vec<_>>()}),
                )
            }
            Self::Binary => binary(model, case),
            Self::Content => Request {
                path: format!("/predict?model={model}"),
                header: ("content-type", "image/jpeg".to_owned()),
                body: bytes("BYTES", &case.inputs[0].data[0]).into(),
            },
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Data => "`data`",
            Self::Inputs => "`inputs`",
            Self::Binary => "binary form",
            Self::Content => "raw body",
        })
    }
}

fn binary(model: &str, case: &Case) -> Request {
    let raws: Vec<_> = case.inputs.iter().map(|tensor| raw(&tensor.datatype, &tensor.data)).collect();
    let with_size = |(tensor, raw): (&Tensor, &Vec<u8>)| {
        let mut head = head(tensor);
        head["parameters"] = json!({"binary_data_size": raw.len()});
        head
    };
    let inputs: Vec<_> = case.inputs.iter().zip(&raws).map(with_size).collect();
    let json = json!({"model": model, "inputs": inputs}).to_string();
    let length = json.len().to_string();
    let body = [json.into_bytes(), raws.concat()].concat().into();
    Request { path: "/predict".to_owned(), header: (HEADER_LENGTH, length), body }
}

fn head(tensor: &Tensor) -> Value {
    let Tensor { name, shape, datatype, .. } = tensor;
    json!({"name": name, "shape": shape, "datatype": datatype})
}
