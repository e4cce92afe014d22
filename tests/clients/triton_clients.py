"""Triton's clients: four modules with one interface, whose asynchronous halves have coroutines for methods."""

import queue

import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException

from client import DATATYPES, AsyncClient, Client

NO_JSON = {"JSON or typed": "raw bytes only"}


def arguments(module, call):
    """The arguments of `infer`. Only HTTP has JSON, and JSON has no FP16."""
    inputs = []
    for name, value in call.inputs.items():
        datatype = DATATYPES[value.dtype.name]
        given = module.InferInput(name, list(value.shape), datatype)
        given.set_data_from_numpy(value, **form(call, datatype))
        inputs.append(given)
    outputs = [module.InferRequestedOutput(name, **form(call)) for name in call.outputs]
    return {"model_name": call.model, "inputs": inputs, "outputs": outputs, "timeout": call.timeout}


def form(call, datatype=None):
    return {"binary_data": False} if call.as_json and datatype != "FP16" else {}


def tensors(call, result):
    return {name: result.as_numpy(name) for name in call.outputs}


class TritonHttp(Client):
    name, protocol = "tritonclient.http", "http"
    error, time_out = InferenceServerException, (TimeoutError, "timed out")
    lacks = {"cancel": "no function cancels a call"}
    mixes = True

    def __enter__(self):
        limit = {} if self.limit is None else {"network_timeout": self.limit}
        self.client = tritonclient.http.InferenceServerClient(self.address, concurrency=50, **limit)
        return self

    def __exit__(self, *_):
        self.client.close()

    def health(self, model):
        client = self.client
        return {"live": client.is_server_live(), "ready": client.is_server_ready(), "model": client.is_model_ready(model)}

    def metadata(self, model):
        return {
            "server": self.client.get_server_metadata()["name"],
            "inputs": self.client.get_model_metadata(model)["inputs"],
            "max_batch_size": self.client.get_model_config(model)["max_batch_size"],
            "models": {known["name"]: known["state"] for known in self.client.get_model_repository_index()},
        }

    def infer(self, call):
        return tensors(call, self.client.infer(**arguments(tritonclient.http, call)))

    def infer_all(self, calls):
        requests = [self.client.async_infer(**arguments(tritonclient.http, call)) for call in calls]
        return [tensors(call, request.get_result()) for call, request in zip(calls, requests)]


class TritonHttpAio(AsyncClient):
    name, protocol = "tritonclient.http.aio", "http"
    error, time_out = InferenceServerException, (TimeoutError, "")
    mixes = True

    async def open(self):
        limit = {} if self.limit is None else {"conn_timeout": self.limit}
        return tritonclient.http.aio.InferenceServerClient(self.address, **limit)

    def health(self, model):
        client = self.client
        return self.wait_for_all(
            live=client.is_server_live(), ready=client.is_server_ready(), model=client.is_model_ready(model)
        )

    def metadata(self, model):
        return {
            "server": self.wait(self.client.get_server_metadata())["name"],
            "inputs": self.wait(self.client.get_model_metadata(model))["inputs"],
            "max_batch_size": self.wait(self.client.get_model_config(model))["max_batch_size"],
            "models": {known["name"]: known["state"] for known in self.wait(self.client.get_model_repository_index())},
        }

    async def ask(self, call):
        return tensors(call, await self.client.infer(**arguments(tritonclient.http.aio, call)))



def grpc_metadata(server, model, config):
    inputs = [{"name": known.name, "datatype": known.datatype, "shape": list(known.shape)} for known in model.inputs]
    return {"server": server.name, "inputs": inputs, "max_batch_size": config.config.max_batch_size}


class TritonGrpc(Client):
    name, protocol = "tritonclient.grpc", "grpc"
    error, time_out = InferenceServerException, (InferenceServerException, "DEADLINE_EXCEEDED")
    lacks = NO_JSON

    def __enter__(self):
        self.client = tritonclient.grpc.InferenceServerClient(self.address)
        return self

    def __exit__(self, *_):
        self.client.close()

    def health(self, model):
        client = self.client
        return {"live": client.is_server_live(), "ready": client.is_server_ready(), "model": client.is_model_ready(model)}

    def metadata(self, model):
        client = self.client
        return grpc_metadata(client.get_server_metadata(), client.get_model_metadata(model), client.get_model_config(model))

    def infer(self, call):
        return tensors(call, self.client.infer(**self.arguments(call)))

    def infer_all(self, calls):
        answers = [queue.Queue() for _ in calls]
        for call, answer in zip(calls, answers):
            self.client.async_infer(callback=lambda result, error, to=answer: to.put((result, error)), **self.arguments(call))
        results = []
        for call, answer in zip(calls, answers):
            result, error = answer.get(timeout=60)
            if error:
                raise error
            results.append(tensors(call, result))
        return results

    def cancel(self, call, started, ended):
        answer = queue.Queue()
        handle = self.client.async_infer(callback=lambda result, error: answer.put(error), **self.arguments(call))
        started()
        handle.cancel()
        assert "cancelled" in str(answer.get(timeout=10)).lower()
        ended()

    def arguments(self, call):
        return {**arguments(tritonclient.grpc, call), "client_timeout": self.limit}


class TritonGrpcAio(AsyncClient):
    name, protocol = "tritonclient.grpc.aio", "grpc"
    error, time_out = InferenceServerException, (InferenceServerException, "DEADLINE_EXCEEDED")
    lacks = NO_JSON

    async def open(self):
        return tritonclient.grpc.aio.InferenceServerClient(self.address)

    def health(self, model):
        client = self.client
        return self.wait_for_all(
            live=client.is_server_live(), ready=client.is_server_ready(), model=client.is_model_ready(model)
        )

    def metadata(self, model):
        client = self.client
        calls = client.get_server_metadata(), client.get_model_metadata(model), client.get_model_config(model)
        return grpc_metadata(*map(self.wait, calls))

    async def ask(self, call):
        options = {**arguments(tritonclient.grpc.aio, call), "client_timeout": self.limit}
        return tensors(call, await self.client.infer(**options))


CLIENTS = [TritonHttp, TritonHttpAio, TritonGrpc, TritonGrpcAio]
