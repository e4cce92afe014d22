//! Errors as answers of gRPC. Only this file gives an error its code of gRPC.

use std::time::Duration;

use axum::{
    body::Body,
    http::{
        HeaderValue, StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER},
    },
    response::Response,
};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{
    api_error::ApiError, call_error::CallError, form::ErrorForm, kind::Kind, problem::LONGEST_DETAIL,
    short::short,
};

/// Who gives the reason of an error its meaning (google.rpc.ErrorInfo).
const DOMAIN: &str = "tepal";

/// The errors whose status over HTTP says too little. Clients of KServe repeat UNAVAILABLE by themselves: it must never be the code of
/// a full queue, nor of a job that may have been stored.
const OWN: [(&str, Code); 10] = [
    ("job_cancelled", Code::Cancelled),
    ("model_overloaded", Code::ResourceExhausted),
    ("model_queue_full", Code::ResourceExhausted),
    ("not_found", Code::Unimplemented),
    ("not_replicated", Code::Unknown),
    ("outcome_unknown", Code::Unknown),
    ("overloaded", Code::ResourceExhausted),
    ("queue_full", Code::ResourceExhausted),
    ("redis_out_of_memory", Code::ResourceExhausted),
    ("unsupported_media_type", Code::Unimplemented),
];

fn code_of(code: &str, status: StatusCode) -> Code {
    if let Some((_, own)) = OWN.into_iter().find(|(known, _)| *known == code) {
        return own;
    }
    match status.as_u16() {
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        405 | 501 => Code::Unimplemented,
        408 | 504 => Code::DeadlineExceeded,
        409 => Code::FailedPrecondition,
        413 | 429 | 431 => Code::ResourceExhausted,
        400..=499 => Code::InvalidArgument,
        503 => Code::Unavailable,
        _ => Code::Internal,
    }
}

impl ApiError {
    /// Turns `response` into this error's answer, without a message. Its headers are kept.
    pub(super) fn render_grpc(&self, response: &mut Response) {
        let Kind { code, .. } = self.kind();
        let seconds = self.retry_after();
        // Machines read the code in capitals, as google.rpc.ErrorInfo requires, and the time as google.rpc.RetryInfo.
        let mut details = ErrorDetails::with_error_info(code.to_ascii_uppercase(), DOMAIN, []);
        if let Some(seconds) = seconds {
            details.set_retry_info(Some(Duration::from_secs(seconds)));
        }
        let detail = short(self.detail(), LONGEST_DETAIL);
        let code = code_of(code, self.status_in(ErrorForm::Grpc));
        *response.body_mut() = Body::empty();
        // A request that is not gRPC gets HTTP status 415.
        *response.status_mut() = match self {
            Self::Call(CallError::NotGrpc) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            _ => StatusCode::OK,
        };
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        let described = Status::with_error_details(code, detail, details).add_header(headers);
        if described.is_err() {
            // The text cannot be a header.
            headers.insert(Status::GRPC_STATUS, HeaderValue::from(i32::from(code)));
        }
        if let Some(seconds) = seconds {
            headers.insert(RETRY_AFTER, seconds.into());
        }
    }
}

/// The name of an answer's code, as the specification of gRPC writes it.
#[cfg(test)]
pub(super) fn name_of(response: &Response) -> String {
    let name = format!("{:?}", Status::from_header_map(response.headers()).unwrap().code());
    let words = name.char_indices().map(|(at, letter)| {
        let gap = if at > 0 && letter.is_uppercase() { "_" } else { "" };
        format!("{gap}{}", letter.to_ascii_uppercase())
    });
    words.collect()
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt as _;

    use super::*;

    fn status(error: ApiError) -> (Response, Status) {
        let mut response = Response::default();
        error.render_grpc(&mut response);
        let status = Status::from_header_map(response.headers()).unwrap();
        (response, status)
    }

    #[test]
    fn a_client_learns_the_code_and_when_to_try_again() {
        let (response, status) = status(ApiError::QueueFull(7));
        assert_eq!(
            (status.code(), status.message()),
            (Code::ResourceExhausted, "The queue is full; try again later")
        );
        assert_eq!(response.headers()[RETRY_AFTER], "7");
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("QUEUE_FULL", "tepal"));
        assert_eq!(details.retry_info().unwrap().retry_delay, Some(Duration::from_secs(7)));
    }

    #[test]
    fn an_answer_is_small_whatever_its_text_is() {
        let text = "\u{e9}\n\0%".repeat(10_000);
        let (response, status) = status(CallError::Failed { code: "model_error", why: text }.into());
        let bytes: usize =
            response.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        assert!(bytes < 4096 && status.message().starts_with('\u{e9}'), "{bytes}");
    }
}
