"""A FastAPI application as a user would write it, with faults. Each fault hits a job once, also after a restart: STATE is a folder with
what was done.

    uvicorn --app-dir tests/servers/http app:app
"""

import asyncio
import os
import time
from pathlib import Path

from fastapi import FastAPI, Header, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

STATE = Path(os.environ["STATE"])
# In each period, calls in the first part are refused.
STORM_PERIOD, STORM = 5.0, 1.5

app = FastAPI()


class Number(BaseModel):
    n: int


def first_time(fault: str, key: str) -> bool:
    """Whether this fault has not hit the job before."""
    try:
        (STATE / f"{fault}-{key}").touch(exist_ok=False)
        return True
    except FileExistsError:
        return False


@app.get("/health")
def health() -> dict:
    return {"status": "ok"}


async def in_two_parts(body: bytes, missing: int):
    yield body[: len(body) // 2]
    await asyncio.sleep(0.2)
    yield body[len(body) // 2 : len(body) - missing]


@app.post("/predict")
async def predict(number: Number, idempotency_key: str = Header()):
    if time.monotonic() % STORM_PERIOD < STORM:
        return Response(status_code=429, headers={"retry-after": "1"})
    await asyncio.sleep(0.005)
    answer = {"n": number.n, "square": number.n * number.n}
    body = str(answer).replace("'", '"').encode()
    head = {"content-length": str(len(body))}
    match number.n % 20:
        case 3:
            return StreamingResponse(in_two_parts(body, 0), media_type="application/json", headers=head)
        case 7 if first_time("cut", idempotency_key):
            return StreamingResponse(in_two_parts(body, 5), media_type="application/json", headers=head)
        case 11 if first_time("error", idempotency_key):
            return Response(status_code=500, content="a fault")
        case 13 if first_time("busy", idempotency_key):
            return Response(status_code=503, headers={"retry-after": "1"})
    return Response(body, media_type="application/json")


@app.post("/bytes")
async def echo(request: Request) -> Response:
    return Response(await request.body(), media_type=request.headers["content-type"])
