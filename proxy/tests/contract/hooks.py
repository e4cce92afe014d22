"""What schemathesis cannot know of the API."""

import re
import uuid

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def lines(ctx, value):
    """Lines are text; nothing else can be sent as such."""
    return value.encode("utf-8", "replace") if isinstance(value, str) else b""


@schemathesis.hook
def before_call(ctx, case, **kwargs):
    """A key that was used for another request is refused on purpose (422): here each well-formed key is used once. Only the
    service can make a cursor, so one that merely has its form is refused (422): here it is left out. The
    rows of a submission are those of the reference model."""
    key = (case.headers or {}).get("Idempotency-Key")
    if isinstance(key, str) and re.fullmatch("[!-~]{1,255}", key):
        case.headers["Idempotency-Key"] = str(uuid.uuid4())
    # The contract does not contain the form of a model's rows.
    if isinstance(case.body, dict) and "data" in case.body:
        case.body["data"] = [[5.1, 3.5, 1.4, 0.2]]
        case.body.pop("model", None)
    cursor = (case.query or {}).get("cursor")
    if isinstance(cursor, str) and re.fullmatch("[A-Za-z0-9_-]{60}", cursor):
        del case.query["cursor"]
