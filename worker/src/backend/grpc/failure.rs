//! The meaning of a gRPC status: who is to blame, and what a client may read of it. For the statuses see "Status codes
//! and their use in gRPC" (grpc.github.io/grpc/core/md_doc_statuscodes.html).

use std::error::Error;

use tonic::{Code, Status};

use crate::backend::{BackendError, Verdict};

/// How much of a server's message a client may see. TensorFlow Serving itself cuts at 1024.
const LONGEST_MESSAGE: usize = 200;

/// The failure that a status reports. It keeps the status as its source.
pub(in crate::backend) fn from_status(status: Status) -> BackendError {
    let (verdict, code, what) = classify(&status);
    // Texts about connections and deadlines contain addresses, also of proxies.
    let is_internal = is_connection_failure(&status)
        || matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded)
        || status.message().is_empty();
    let text = || status.message().chars().take(LONGEST_MESSAGE).collect::<String>();
    let message = if is_internal { what.to_owned() } else { format!("{what}: {}", text()) };
    BackendError::new(verdict, code, message).because(status)
}

fn classify(status: &Status) -> (Verdict, &'static str, &'static str) {
    const AWAY: &str = "The model server is not available";
    if is_connection_failure(status) {
        return match was_sent(status) {
            true => (Verdict::Broken, "model_unavailable", "The connection to the model server broke"),
            false => (Verdict::Unavailable, "model_unavailable", AWAY),
        };
    }
    if is_about_size(status) {
        let what = "The input or its result exceeds the message size limit of the model server";
        return (Verdict::TooLarge, "payload_too_large_for_model", what);
    }
    match status.code() {
        Code::Unavailable => (Verdict::Busy, "model_unavailable", AWAY),
        Code::ResourceExhausted => {
            (Verdict::Overloaded, "model_overloaded", "The model server is overloaded")
        }
        Code::InvalidArgument => {
            (Verdict::Rejected, "model_rejected", "The model server rejected the request")
        }
        Code::DeadlineExceeded => (Verdict::Failed, "inference_timeout", "Model inference timeout"),
        Code::Internal | Code::Unknown | Code::Aborted | Code::Cancelled => {
            (Verdict::Failed, "model_error", "Model inference failed")
        }
        Code::NotFound | Code::Unimplemented | Code::Unauthenticated | Code::PermissionDenied => {
            (Verdict::Refused, "model_rejected", "The model server accepts no calls for the model")
        }
        // OK is no failure, and ALREADY_EXISTS has no meaning for a prediction.
        Code::FailedPrecondition | Code::OutOfRange | Code::DataLoss | Code::AlreadyExists | Code::Ok => {
            (Verdict::Refused, "model_rejected", "The model server rejected the request")
        }
    }
}

/// Whether a message exceeded a size limit, the server's or ours. Servers use the codes of an overload or of a wrong state
/// for it, so only the text shows it. Nowhere else does a decision depend on a text.
fn is_about_size(status: &Status) -> bool {
    const TEXTS: [&str; 4] = [
        // gRPC's C++ and Go libraries, for both directions.
        "message larger than max",
        // Its Java library.
        "message exceeds maximum size",
        // tonic, `codec/encode.rs` and `codec/decode.rs`.
        "message length too large",
        "body with more than 4gb",
    ];
    let text = status.message().to_lowercase();
    matches!(status.code(), Code::ResourceExhausted | Code::OutOfRange)
        && TEXTS.iter().any(|sign| text.contains(sign))
}

/// tonic reports a lost connection with any code, and with the transport's error as the source.
pub(in crate::backend) fn is_connection_failure(status: &Status) -> bool {
    causes(status).any(|cause| cause.is::<tonic::transport::Error>() || cause.is::<std::io::Error>())
}

/// Whether the connection could not be opened.
pub(in crate::backend) fn never_connected(status: &Status) -> bool {
    causes(status).any(|cause| cause.is::<tonic::ConnectError>())
}

/// Whether the server closed the connection in order before it saw the call, for example because the connection is old.
/// Then the call can be sent on a new connection.
pub(in crate::backend) fn was_left_unsent(status: &Status) -> bool {
    is_connection_failure(status) && !was_sent(status) && !never_connected(status)
}

/// Whether the server may have seen the call before the connection broke.
pub(in crate::backend) fn was_sent(status: &Status) -> bool {
    if never_connected(status) {
        return false;
    }
    match causes(status).find_map(|cause| cause.downcast_ref::<h2::Error>()) {
        // RFC 9113, sections 6.8 and 8.7: the server has not processed a stream above the last one that its GOAWAY
        // names, nor one that it refused. h2 ends no other stream with a GOAWAY of the server.
        Some(error) => {
            let is_refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
            !(error.is_remote() && (error.is_go_away() || is_refused))
        }
        // The call never left its queue: the connection was closed.
        None => status.code() != Code::Cancelled,
    }
}

fn causes(status: &Status) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(Error::source(status), |&error| error.source())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_verdict() {
        use Verdict::{Busy, Failed, Overloaded, Refused, Rejected};
        let verdicts = [
            (Code::Cancelled, Failed),
            (Code::Unknown, Failed),
            (Code::InvalidArgument, Rejected),
            (Code::DeadlineExceeded, Failed),
            (Code::NotFound, Refused),
            (Code::AlreadyExists, Refused),
            (Code::PermissionDenied, Refused),
            (Code::ResourceExhausted, Overloaded),
            (Code::FailedPrecondition, Refused),
            (Code::Aborted, Failed),
            (Code::OutOfRange, Refused),
            (Code::Unimplemented, Refused),
            (Code::Internal, Failed),
            (Code::Unavailable, Busy),
            (Code::DataLoss, Refused),
            (Code::Unauthenticated, Refused),
        ];
        for (code, verdict) in verdicts {
            assert_eq!(from_status(Status::new(code, "why")).verdict, verdict, "{code:?}");
        }
    }

    #[test]
    fn texts_about_the_size_of_a_message_are_no_overload() {
        for (code, text) in [
            (Code::ResourceExhausted, "Received message larger than max (5000000 vs. 4194304)"),
            (Code::ResourceExhausted, "SERVER: Sent message larger than max (5000000 vs. 4194304)"),
            (Code::ResourceExhausted, "grpc: received message larger than max (5000000 vs. 4194304)"),
            (Code::ResourceExhausted, "gRPC message exceeds maximum size 4194304: 5000000"),
            (
                Code::OutOfRange,
                "Error, decoded message length too large: found 5 bytes, the limit is: 4 bytes",
            ),
        ] {
            assert_eq!(from_status(Status::new(code, text)).verdict, Verdict::TooLarge, "{text}");
        }
        let oom = "OOM when allocating tensor with shape[64,1024]";
        assert_eq!(from_status(Status::new(Code::ResourceExhausted, oom)).verdict, Verdict::Overloaded);
        let other = Status::new(Code::Internal, "message larger than max");
        assert_eq!(from_status(other).verdict, Verdict::Failed);
    }

    #[test]
    fn the_status_stays_the_source() {
        let error = from_status(Status::new(Code::Internal, "out of luck"));
        let source = Error::source(&error).and_then(|source| source.downcast_ref::<Status>());
        assert_eq!(source.map(Status::code), Some(Code::Internal));
    }
}
