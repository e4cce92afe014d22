"""A BentoML service as its documentation writes one. It refuses calls above its concurrency.

    uvicorn --app-dir tests/servers/http service:app

`bentoml serve` starts processes of its own, which outlive a killed parent and keep the port; this is the same application in one.
"""

import asyncio

import bentoml


@bentoml.service(traffic={"timeout": 10, "max_concurrency": 4})
class Squares:
    @bentoml.api(route="/predict")
    async def predict(self, n: int) -> dict:
        await asyncio.sleep(0.02)
        return {"n": n, "square": n * n}


app = Squares.to_asgi()
