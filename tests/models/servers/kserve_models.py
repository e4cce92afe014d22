"""Serve the models with KServe's Python server.

    python kserve_models.py GRPC_PORT HTTP_PORT
"""

import sys

import grpc
import kserve
import numpy as np
import uvicorn
from kserve import InferOutput, InferResponse

import models


class Model(kserve.Model):
    def __init__(self, name, inputs, outputs):
        super().__init__(name)
        self.inputs, self.outputs = inputs, outputs
        self.ready = True

    async def get_input_types(self):
        return self.inputs

    async def get_output_types(self):
        return self.outputs

    async def predict(self, payload, headers=None, response_headers=None):
        values = payload.inputs[0].as_numpy()
        outputs = list(self.outputs_of(values))
        wanted = [output.name for output in payload.request_outputs or []]
        outputs = [output for output in outputs if not wanted or output.name in wanted]
        return InferResponse(response_id=payload.id, model_name=self.name, infer_outputs=outputs)

    def outputs_of(self, values):
        if self.name == "texts":
            upper, lengths = models.texts([bytes(value) for value in values.reshape(-1)])
            yield output("upper", "BYTES", np.array(upper, dtype=object))
            yield output("length", "INT32", lengths)
        elif self.name == "iris":
            shares, labels = models.iris(values)
            yield output("output", "FP32", shares)
            yield output("label", "BYTES", np.array(labels, dtype=object))
        else:
            function = {"pair": models.pair, "wide": models.total, "slow": models.slow}[self.name]
            yield output("y", "FP32", function(values))


def output(name, datatype, values):
    result = InferOutput(name=name, shape=list(values.shape), datatype=datatype)
    result.set_data_from_numpy(values, binary_data=True)
    return result


def tensor(name, datatype, *shape):
    return {"name": name, "datatype": datatype, "shape": [-1, *shape]}


def stay_on_loopback():
    """KServe listens on all addresses, and has no setting for it."""
    listen, configure = grpc.aio._server.Server.add_insecure_port, uvicorn.Config.__init__
    grpc.aio._server.Server.add_insecure_port = lambda self, address: listen(self, address.replace("[::]", "127.0.0.1"))
    uvicorn.Config.__init__ = lambda self, *args, **named: configure(self, *args, **{**named, "host": "127.0.0.1"})


def main():
    grpc_port, http_port = map(int, sys.argv[1:])
    stay_on_loopback()
    served = [
        Model("iris", [tensor("input", "FP32", 4)], [tensor("output", "FP32", 3), tensor("label", "BYTES")]),
        Model("texts", [tensor("text", "BYTES", 1)], [tensor("upper", "BYTES"), tensor("length", "INT32")]),
        # They declare nothing: model.toml must describe them.
        Model("pair", [], []),
        Model("wide", [], []),
        Model("slow", [], []),
    ]
    print("serving", flush=True)
    kserve.ModelServer(http_port=http_port, grpc_port=grpc_port, enable_grpc=True, workers=1).start(served)


if __name__ == "__main__":
    main()
