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
    """A key that was used for another request is refused on purpose (422); here each well-formed key is used once."""
    key = (case.headers or {}).get("Idempotency-Key")
    if isinstance(key, str) and re.fullmatch("[!-~]{1,255}", key):
        case.headers["Idempotency-Key"] = str(uuid.uuid4())
