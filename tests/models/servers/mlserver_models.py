"""Serve the models with MLServer.

    python mlserver_models.py GRPC_PORT HTTP_PORT METRICS_PORT
"""

import asyncio
import sys

import numpy as np
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceResponse, MetadataTensor

import models


class Model(MLModel):
    async def load(self):
        return True

    async def predict(self, request):
        name = self.settings.name
        outputs = list(self.outputs_of(name, request.inputs[0]))
        wanted = [output.name for output in request.outputs or []]
        outputs = [output for output in outputs if not wanted or output.name in wanted]
        return InferenceResponse(model_name=name, model_version=self.version, id=request.id, outputs=outputs)

    def outputs_of(self, name, tensor):
        if name == "texts":
            strings = [string.encode() for string in StringCodec.decode_input(tensor)]
            upper, lengths = models.texts(strings)
            yield StringCodec.encode_output("upper", [string.decode() for string in upper], use_bytes=True)
            yield NumpyCodec.encode_output("length", lengths)
            return
        rows = NumpyCodec.decode_input(tensor)
        if name == "iris":
            shares, labels = models.iris(rows)
            # As scikit-learn's runtime does, in doubles.
            yield NumpyCodec.encode_output("output", shares.astype(np.float64))
            yield StringCodec.encode_output("label", [label.decode() for label in labels], use_bytes=True)
        else:
            function = {"pair": models.pair, "wide": models.total, "slow": models.slow}[name]
            yield NumpyCodec.encode_output("y", function(rows))


def tensor(name, datatype, *shape):
    return MetadataTensor(name=name, datatype=datatype, shape=[-1, *shape])


SERVED = {
    # It declares no outputs: model.toml must name them.
    "iris": ([tensor("input", "FP32", 4)], []),
    "texts": ([tensor("text", "BYTES", 1)], [tensor("upper", "BYTES", 1), tensor("length", "INT32", 1)]),
    "pair": ([tensor("x", "FP32", 2)], [tensor("y", "FP32", 1)]),
    "wide": ([tensor("x", "FP32", 4096)], [tensor("y", "FP32", 1)]),
    "slow": ([tensor("x", "FP32", 1)], [tensor("y", "FP32", 1)]),
}


async def main():
    grpc_port, http_port, metrics_port = map(int, sys.argv[1:])
    server = MLServer(Settings(host="127.0.0.1", grpc_port=grpc_port, http_port=http_port, metrics_port=metrics_port,
                               parallel_workers=0, debug=False))
    settings = [ModelSettings(name=name, implementation=Model, inputs=inputs, outputs=outputs)
                for name, (inputs, outputs) in SERVED.items()]
    print("serving", flush=True)
    await server.start(settings)


if __name__ == "__main__":
    asyncio.run(main())
