"""The clients of PyTriton. Each belongs to one model, and waits for it when it is opened."""

from pytriton.client import AsyncioModelClient, ModelClient
from pytriton.client.exceptions import PyTritonClientInferenceServerError, PyTritonClientTimeoutError

from client import DATATYPES, AsyncClient, Client

LACKS = {"JSON or typed": "raw bytes only", "timeout parameter": "the client refuses it"}


def options(client):
    return {} if client.limit is None else {"inference_timeout_s": client.limit}


def described(config):
    """The configuration of a model with a batch axis, as metadata."""
    inputs = [
        {"name": known.name, "datatype": DATATYPES[known.dtype.__name__], "shape": [-1, *known.shape]} for known in config.inputs
    ]
    return {"inputs": inputs, "max_batch_size": config.max_batch_size}


class PytritonHttp(Client):
    name, protocol = "pytriton ModelClient, HTTP", "http"
    error, time_out = PyTritonClientInferenceServerError, (PyTritonClientTimeoutError, "Timeout occurred")
    lacks = {**LACKS, "cancel": "no function cancels a call", "50 at once": "a client has one call at a time"}
    asks_for_unknown_models = shows_status = False

    def __enter__(self):
        self.clients = {}
        self.of("iris")
        return self

    def __exit__(self, *_):
        for client in self.clients.values():
            client.close()

    def of(self, model):
        if model not in self.clients:
            self.clients[model] = ModelClient(f"{self.protocol}://{self.address}", model, lazy_init=False, **options(self))
        return self.clients[model]

    def health(self, model):
        """The functions of the client wait. They must not fail before the time has passed."""
        client = ModelClient(f"{self.protocol}://{self.address}", model)
        try:
            client.wait_for_server(10)
            client.wait_for_model(1)
            return {"ready": True, "model": True}
        except PyTritonClientTimeoutError:
            return {"ready": True, "model": False}
        finally:
            client.close()

    def metadata(self, model):
        return described(self.of(model).model_config)

    def infer(self, call):
        return self.of(call.model).infer_batch(**call.inputs)


class PytritonGrpc(PytritonHttp):
    name, protocol = "pytriton ModelClient, gRPC", "grpc"


class PytritonHttpAio(AsyncClient):
    name, protocol = "pytriton AsyncioModelClient, HTTP", "http"
    error, time_out = PyTritonClientInferenceServerError, (PyTritonClientTimeoutError, "Timeout exceeded")
    lacks = LACKS
    asks_for_unknown_models = shows_status = False

    async def open(self):
        self.clients = {}
        return await self.of("iris")

    async def close(self):
        for client in self.clients.values():
            await client.close()

    async def of(self, model):
        if model not in self.clients:
            client = AsyncioModelClient(f"{self.protocol}://{self.address}", model, lazy_init=False, **options(self))
            self.clients[model] = await client.__aenter__()
        return self.clients[model]

    def health(self, model):
        async def is_ready():
            client = AsyncioModelClient(f"{self.protocol}://{self.address}", model, init_timeout_s=1)
            try:
                await client.wait_for_model(1)
                return True
            except PyTritonClientTimeoutError:
                return False
            finally:
                await client.close()

        return {"model": self.wait(is_ready())}

    def metadata(self, model):
        async def config():
            return await (await self.of(model)).model_config

        return described(self.wait(config()))

    async def ask(self, call):
        return await (await self.of(call.model)).infer_batch(**call.inputs)


class PytritonGrpcAio(PytritonHttpAio):
    name, protocol = "pytriton AsyncioModelClient, gRPC", "grpc"
    error, time_out = PyTritonClientInferenceServerError, (PyTritonClientTimeoutError, "Deadline Exceeded")


CLIENTS = [PytritonHttp, PytritonGrpc, PytritonHttpAio, PytritonGrpcAio]
