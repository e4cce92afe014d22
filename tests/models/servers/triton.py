"""Serve the models with Triton, from the package nvidia-pytriton: Triton's own server, with its Python backend.

    python triton.py GRPC_PORT HTTP_PORT METRICS_PORT
"""

import sys

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, QueuePolicy, Tensor
from pytriton.triton import Triton, TritonConfig

import models

F, I, B = np.float32, np.int32, np.bytes_


def texts(values):
    return np.array(values, dtype=bytes)


@batch
def iris(input):
    shares, labels = models.iris(input)
    return {"output": shares, "label": texts(labels).reshape(-1, 1)}


@batch
def upper(text):
    upper, lengths = models.texts([bytes(value) for value in text.reshape(-1)])
    return {"upper": texts(upper).reshape(-1, 1), "length": lengths.reshape(-1, 1)}


def of(function):
    @batch
    def infer(x):
        return {"y": function(x).reshape(-1, 1)}
    return infer


def tensor(name, dtype, *shape):
    return Tensor(name=name, dtype=dtype, shape=shape)


def main():
    ports = dict(zip(["grpc_port", "http_port", "metrics_port"], map(int, sys.argv[1:])))
    local = {name: "127.0.0.1" for name in ["grpc_address", "http_address", "metrics_address"]}
    with Triton(config=TritonConfig(**ports, **local, log_verbose=0)) as triton:
        config = ModelConfig(batching=True, max_batch_size=64)
        triton.bind("iris", iris, [tensor("input", F, 4)], [tensor("output", F, 3), tensor("label", B, 1)], config=config)
        triton.bind("texts", upper, [tensor("text", B, 1)], [tensor("upper", B, 1), tensor("length", I, 1)], config=config)
        triton.bind("pair", of(models.pair), [tensor("x", F, 2)], [tensor("y", F, 1)], config=config)
        triton.bind("wide", of(models.total), [tensor("x", F, 4096)], [tensor("y", F, 1)],
                    config=ModelConfig(batching=True, max_batch_size=1024))
        full = ModelConfig(batching=True, max_batch_size=1, batcher=DynamicBatcher(
            default_queue_policy=QueuePolicy(max_queue_size=1)))
        triton.bind("slow", of(models.slow), [tensor("x", F, 1)], [tensor("y", F, 1)], config=full)
        print("serving", flush=True)
        triton.serve()


if __name__ == "__main__":
    main()
