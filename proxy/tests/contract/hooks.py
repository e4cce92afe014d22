"""What schemathesis cannot know of the API."""

import os
import re
import uuid

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def lines(ctx, value):
    """Lines are text; nothing else can be sent as such."""
    return value.encode("utf-8", "replace") if isinstance(value, str) else b""


@schemathesis.serializer("audio/*")
def sound(ctx, value):
    """Any bytes."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


# Media types of bodies for a model with one input of BYTES.
CONTENT = ("application/octet-stream", "text/plain", "image/", "audio/")
CONTENT_MODEL = os.environ["CONTENT_MODEL"]
FLOWER = [5.1, 3.5, 1.4, 0.2]


def is_positive(case):
    """Whether the request is one that the contract allows."""
    return case.meta is None or case.meta.generation.mode.is_positive


def fit_to_model(case):
    """The contract does not contain the inputs and outputs of a model."""
    body = case.body
    if (case.media_type or "").startswith(CONTENT):
        case.query["model"] = CONTENT_MODEL
    elif isinstance(body, dict) and ("data" in body or "inputs" in body):
        if "data" in body:
            body["data"] = [FLOWER]
        else:
            body["inputs"] = [{"name": "input", "shape": [1, 4], "datatype": "FP32", "data": FLOWER}]
        for name in ("model", "outputs"):
            body.pop(name, None)
        (case.query or {}).pop("model", None)


def fit_to_tensorflow(case):
    """The same for a prediction or classification of TensorFlow Serving's API."""
    body = case.body
    if isinstance(body, dict):
        for member, value in ("instances", [FLOWER]), ("inputs", [FLOWER]), ("examples", [{"input": FLOWER}]):
            if member in body:
                body[member] = value
        for member in ("signature_name", "context"):
            body.pop(member, None)


@schemathesis.hook
def before_call(ctx, case, **kwargs):
    """Replaces what must fit the service or another part of the request, which the contract cannot say:

    - A key that was used for another request is refused (422). Each well-formed key is used once.
    - Only the service can make a cursor. One that merely has its form is left out.
    - Inputs and outputs of a submission become those of the reference model. Content is sent to a model that takes it.
    - The length of the JSON in a binary body is left out, so the body is one of its media type.
    """
    if re.fullmatch("[0-9]+", str((case.headers or {}).get("Inference-Header-Content-Length"))):
        del case.headers["Inference-Header-Content-Length"]
    key = (case.headers or {}).get("Idempotency-Key")
    if isinstance(key, str) and re.fullmatch("[!-~]{1,255}", key):
        case.headers["Idempotency-Key"] = str(uuid.uuid4())
    if is_positive(case):
        fit = fit_to_tensorflow if case.path.startswith("/v1/") else fit_to_model
        fit(case)
    cursor = (case.query or {}).get("cursor")
    if isinstance(cursor, str) and re.fullmatch("[A-Za-z0-9_-]{60}", cursor):
        del case.query["cursor"]
