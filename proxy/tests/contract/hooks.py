"""What schemathesis cannot know of the API."""

import json
import os
import re
import struct
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
# The reference model, and others that the service has.
MODEL = "iris"
OTHER_MODELS = ("language", CONTENT_MODEL)
FLOWER = [5.1, 3.5, 1.4, 0.2]
TENSOR = {"name": "input", "shape": [1, 4], "datatype": "FP32"}
# Microseconds in which the reference model certainly runs.
LONG = 60_000_000


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
            body["inputs"] = [TENSOR | {"data": FLOWER}]
        for name in ("model", "outputs"):
            body.pop(name, None)
        (case.query or {}).pop("model", None)
        if "version" in body:
            (case.query or {}).pop("version", None)


def name_reference_model(case):
    """An inference whose path names another known model becomes one of the reference model."""
    if case.method == "POST" and (case.path_parameters or {}).get("name") in OTHER_MODELS:
        case.path_parameters["name"] = MODEL


def fit_to_open_inference(case):
    """The same for an inference of the Open Inference Protocol, in both forms."""
    name_reference_model(case)
    body = case.body
    if case.media_type == "application/octet-stream":
        text = json.dumps({"inputs": [TENSOR | {"parameters": {"binary_data_size": 16}}]}).encode()
        case.headers["Inference-Header-Content-Length"] = str(len(text))
        case.body = text + struct.pack("<4f", *FLOWER)
    elif isinstance(body, dict) and "inputs" in body:
        body["inputs"] = [TENSOR | {"data": FLOWER}]
        body.pop("outputs", None)
        parameters = body.get("parameters") or {}
        if parameters.get("timeout"):
            parameters["timeout"] = max(parameters["timeout"], LONG)


def fit_to_tensorflow(case):
    """The same for a prediction or classification of TensorFlow Serving's API."""
    name_reference_model(case)
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
    - A version in the body and another one in the query contradict each other. Only the one in the body is kept.
    - A time limit of an inference that is too short ends in a time-out (504). It becomes a minute.
    - The length of the JSON in a binary body is left out, so the body is one of its media type. Bodies of the Open Inference
      Protocol become JSON and raw bytes with the length of the JSON.
    """
    if re.fullmatch("[0-9]+", str((case.headers or {}).get("Inference-Header-Content-Length"))):
        del case.headers["Inference-Header-Content-Length"]
    key = (case.headers or {}).get("Idempotency-Key")
    if isinstance(key, str) and re.fullmatch("[!-~]{1,255}", key):
        case.headers["Idempotency-Key"] = str(uuid.uuid4())
    if is_positive(case):
        fits = {"/v1/": fit_to_tensorflow, "/v2/": fit_to_open_inference}
        fits.get(case.path[:4], fit_to_model)(case)
    cursor = (case.query or {}).get("cursor")
    if isinstance(cursor, str) and re.fullmatch("[A-Za-z0-9_-]{60}", cursor):
        del case.query["cursor"]
