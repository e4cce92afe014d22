"""KServe's clients, all of asyncio."""

import grpc
import httpx
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

from client import DATATYPES, AsyncClient

NO_METADATA = "no function reads metadata"


def request(call, **parameters):
    inputs = []
    for name, value in call.inputs.items():
        datatype = DATATYPES[value.dtype.name]
        given = InferInput(name, list(value.shape), datatype)
        given.set_data_from_numpy(value, binary_data=not call.as_json or datatype == "FP16")
        inputs.append(given)
    if call.timeout is not None:
        parameters["timeout"] = call.timeout
    outputs = [RequestedOutput(name) for name in call.outputs]
    return InferRequest(call.model, inputs, parameters=parameters, request_outputs=outputs)


def tensors(answer):
    return {output.name: output.as_numpy() for output in answer.outputs}


class KserveRest(AsyncClient):
    name, protocol = "kserve REST, version 2", "http"
    error, time_out = httpx.HTTPStatusError, (httpx.ReadTimeout, "")
    lacks = {"metadata": NO_METADATA}
    mixes = True
    version = "v2"

    async def open(self):
        self.base = f"http://{self.address}"
        limit = {} if self.limit is None else {"timeout": self.limit}
        return InferenceRESTClient(RESTConfig(protocol=self.version, **limit))

    def health(self, model):
        client, base = self.client, self.base
        return self.wait_for_all(
            live=client.is_server_live(base), ready=client.is_server_ready(base), model=client.is_model_ready(base, model)
        )

    async def ask(self, call):
        asked = request(call, binary_data_output=not call.as_json)
        return tensors(await self.client.infer(self.base, asked, model_name=call.model))


class KserveRestVersion1(KserveRest):
    name = "kserve REST, version 1"
    lacks = {"metadata": NO_METADATA, "raw bytes": "JSON only", "timeout parameter": "the protocol has none"}
    mixes, json_model = False, "echo"
    wrong_shape = "must hold exactly 4 values, not 5"
    version = "v1"

    def health(self, model):
        """Tepal does not serve `/`, where the client asks for the server's state."""
        try:
            return {"model": self.wait(self.client.is_model_ready(self.base, model))}
        except httpx.HTTPStatusError as error:
            assert "There is no such model" in str(error), error
            return {"model": False}

    async def ask(self, call):
        columns = {name: as_json(value) for name, value in call.inputs.items()}
        rows = [dict(zip(columns, values)) for values in zip(*columns.values())]
        answer = await self.client.infer(self.base, {"instances": rows}, model_name=call.model)
        predictions = answer["predictions"]
        if len(call.outputs) == 1:
            return {call.outputs[0]: np.array(predictions)}
        return {name: np.array([row[name] for row in predictions], dtype=object) for name in call.outputs}


def as_json(value):
    if value.dtype == np.object_:
        return [[element.decode() for element in row] for row in value]
    return value.tolist()


class KserveGrpc(AsyncClient):
    name, protocol = "kserve gRPC", "grpc"
    error, time_out = grpc.aio.AioRpcError, (grpc.aio.AioRpcError, "DEADLINE_EXCEEDED")
    lacks = {"metadata": NO_METADATA}

    async def open(self):
        limit = {} if self.limit is None else {"timeout": self.limit}
        return InferenceGRPCClient(self.address, **limit)

    def health(self, model):
        client = self.client
        return self.wait_for_all(
            live=client.is_server_live(), ready=client.is_server_ready(), model=client.is_model_ready(model)
        )

    async def ask(self, call):
        return tensors(await self.client.infer(request(call)))


CLIENTS = [KserveRest, KserveRestVersion1, KserveGrpc]
