"""Sends unmodified clients of other inference servers to Tepal. Prints a table, and fails if a check is wrong. No check is skipped.

    python clients.py --binaries target/release --iris compose/models/iris [--kserve]
"""

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np

from stack import Stack

FLOWER = np.array([[5.1, 3.5, 1.4, 0.2]], dtype=np.float32)
VALUES = {
    "FP32": np.array([[1.5, -2.25, np.inf]], dtype=np.float32),
    "FP16": np.array([[1.5, -2.25, 0.5]], dtype=np.float16),
    "INT64": np.array([[1, -(2**62), 3]], dtype=np.int64),
    "BOOL": np.array([[True, False, True]]),
    "BYTES": np.array([[b"a", "\u00e9".encode(), b""]], dtype=np.object_),
}
CHECKS = {}


def check(client):
    def add(run):
        CHECKS.setdefault(client, []).append(run)
        return run

    return add


def same(given, returned):
    returned = np.asarray(returned)
    if given.dtype == np.object_:
        # In JSON they are text.
        as_bytes = [text.encode() if isinstance(text, str) else text for text in returned.flatten()]
        returned = np.array(as_bytes, dtype=np.object_)
    assert np.array_equal(given, returned.reshape(given.shape)), (given, returned)


def is_setosa(probabilities):
    assert np.argmax(probabilities) == 0, probabilities


def until(what, condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


# Triton's clients: four modules with one interface.


def triton_inputs(module, values, **form):
    inputs = []
    for datatype, value in values.items():
        given = module.InferInput(datatype.lower(), list(value.shape), datatype)
        given.set_data_from_numpy(value, **form)
        inputs.append(given)
    return inputs


def triton_echo(client, module, **form):
    # FP16 has no JSON form in this client.
    values = {name: value for name, value in VALUES.items() if not form or name != "FP16"}
    if form:
        values["FP32"] = np.array([[1.5, -2.25, 0.5]], dtype=np.float32)
    outputs = [module.InferRequestedOutput(f"{name.lower()}_out", **form) for name in values]
    missing = {name: VALUES[name] for name in VALUES if name not in values}
    inputs = triton_inputs(module, values, **form) + triton_inputs(module, missing)
    result = client.infer("echo", inputs, outputs=outputs)
    for name, value in values.items():
        same(value, result.as_numpy(f"{name.lower()}_out"))


def triton_flower(module, rows=FLOWER):
    given = module.InferInput("input", list(rows.shape), "FP32")
    given.set_data_from_numpy(rows)
    return [given]


@check("tritonclient.http")
def health_and_metadata(stack):
    import tritonclient.http as triton

    client = triton.InferenceServerClient(stack.http)
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("iris")
    assert not client.is_model_ready("rose")
    assert client.get_server_metadata()["name"] == "tepal"
    assert client.get_model_metadata("iris")["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 4]}]
    assert client.get_model_config("iris")["max_batch_size"] == 1024
    assert {model["name"]: model["state"] for model in client.get_model_repository_index()} == {"iris": "READY", "echo": "READY"}


@check("tritonclient.http")
def infer_binary(stack):
    import tritonclient.http as triton

    client = triton.InferenceServerClient(stack.http)
    is_setosa(client.infer("iris", triton_flower(triton)).as_numpy("output"))
    triton_echo(client, triton)


@check("tritonclient.http")
def infer_json(stack):
    import tritonclient.http as triton

    triton_echo(triton.InferenceServerClient(stack.http), triton, binary_data=False)


@check("tritonclient.http")
def error_text(stack):
    import tritonclient.http as triton

    client = triton.InferenceServerClient(stack.http)
    for model, rows, text in [
        ("rose", FLOWER, "There is no such model"),
        ("iris", np.zeros((1, 5), dtype=np.float32), "/inputs/0/shape/1 must be 4, not 5"),
    ]:
        try:
            client.infer(model, triton_flower(triton, rows))
        except triton.InferenceServerException as error:
            assert text in error.message(), error
        else:
            raise AssertionError("no error")


@check("tritonclient.http")
def time_out_cancels(stack):
    import tritonclient.http as triton

    with Paused(stack):
        client = triton.InferenceServerClient(stack.http)
        before = stack.jobs("cancelled")
        try:
            client.infer("iris", triton_flower(triton), timeout=200_000)
        except triton.InferenceServerException as error:
            assert "504" in error.status(), error
        else:
            raise AssertionError("no error")
        impatient = triton.InferenceServerClient(stack.http, network_timeout=0.5)
        try:
            impatient.infer("iris", triton_flower(triton))
        except Exception:
            pass
        else:
            raise AssertionError("no error")
        until("the job to be cancelled", lambda: stack.jobs("cancelled") > before)


@check("tritonclient.http.aio")
def all_at_once(stack):
    import tritonclient.http.aio as triton

    async def run():
        async with triton.InferenceServerClient(stack.http) as client:
            assert await client.is_server_ready() and await client.is_model_ready("iris")
            results = await asyncio.gather(*(client.infer("iris", triton_flower(triton)) for _ in range(50)))
            for result in results:
                is_setosa(result.as_numpy("output"))
            for form in [{}, {"binary_data": False}]:
                values = {name: VALUES[name] for name in ["INT64", "BOOL", "BYTES"]}
                others = {name: VALUES[name] for name in ["FP32", "FP16"]}
                inputs = triton_inputs(triton, values, **form) + triton_inputs(triton, others)
                result = await client.infer("echo", inputs)
                for name, value in values.items():
                    same(value, result.as_numpy(f"{name.lower()}_out"))

    asyncio.run(run())


@check("tritonclient.grpc")
def health_and_metadata_over_grpc(stack):
    import tritonclient.grpc as triton

    client = triton.InferenceServerClient(stack.grpc)
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("iris")
    assert client.get_server_metadata().name == "tepal"
    metadata = client.get_model_metadata("iris")
    assert (metadata.inputs[0].name, list(metadata.inputs[0].shape)) == ("input", [-1, 4])
    assert client.get_model_config("iris").config.max_batch_size == 1024


@check("tritonclient.grpc")
def infer_over_grpc(stack):
    import tritonclient.grpc as triton

    client = triton.InferenceServerClient(stack.grpc)
    is_setosa(client.infer("iris", triton_flower(triton)).as_numpy("output"))
    triton_echo(client, triton)


@check("tritonclient.grpc")
def error_text_over_grpc(stack):
    import tritonclient.grpc as triton

    client = triton.InferenceServerClient(stack.grpc)
    for model, rows, status, text in [
        ("rose", FLOWER, "NOT_FOUND", "There is no such model"),
        ("iris", np.zeros((1, 5), dtype=np.float32), "INVALID_ARGUMENT", "must be 4, not 5"),
    ]:
        try:
            client.infer(model, triton_flower(triton, rows))
        except triton.InferenceServerException as error:
            assert text in error.message() and status in error.status(), error
        else:
            raise AssertionError("no error")


@check("tritonclient.grpc")
def deadline_and_cancellation(stack):
    import tritonclient.grpc as triton

    with Paused(stack):
        client = triton.InferenceServerClient(stack.grpc)
        before = stack.jobs("cancelled")
        try:
            client.infer("iris", triton_flower(triton), client_timeout=0.5)
        except triton.InferenceServerException as error:
            assert "Deadline" in str(error) or "DEADLINE" in str(error), error
        else:
            raise AssertionError("no error")
        until("the job to be cancelled", lambda: stack.jobs("cancelled") > before)
        before = stack.jobs("cancelled")
        call = client.async_infer("iris", triton_flower(triton), callback=lambda result, error: None)
        until("a job", lambda: stack.jobs("pending") + stack.jobs("processing") > 0)
        call.cancel()
        until("the job to be cancelled", lambda: stack.jobs("cancelled") > before)


@check("tritonclient.grpc.aio")
def all_at_once_over_grpc(stack):
    import tritonclient.grpc.aio as triton

    async def run():
        async with triton.InferenceServerClient(stack.grpc) as client:
            assert await client.is_server_ready() and await client.is_model_ready("iris")
            results = await asyncio.gather(*(client.infer("iris", triton_flower(triton)) for _ in range(50)))
            for result in results:
                is_setosa(result.as_numpy("output"))
            result = await client.infer("echo", triton_inputs(triton, VALUES))
            for name, value in VALUES.items():
                same(value, result.as_numpy(f"{name.lower()}_out"))

    asyncio.run(run())


@check("kserve gRPC")
def kserve_grpc(stack):
    from kserve import InferInput, InferRequest, InferenceGRPCClient

    async def run():
        client = InferenceGRPCClient(stack.grpc)
        assert await client.is_server_live() and await client.is_server_ready()
        assert await client.is_model_ready("iris")
        for is_binary in [True, False]:
            given = InferInput("input", list(FLOWER.shape), "FP32")
            given.set_data_from_numpy(FLOWER, binary_data=is_binary)
            answer = await client.infer(InferRequest(model_name="iris", infer_inputs=[given]))
            is_setosa(answer.outputs[0].as_numpy())
        given = InferInput("input", [1, 5], "FP32")
        given.set_data_from_numpy(np.zeros((1, 5), dtype=np.float32), binary_data=False)
        try:
            await client.infer(InferRequest(model_name="iris", infer_inputs=[given]))
        except Exception as error:
            assert "must be 4, not 5" in str(error), error
        else:
            raise AssertionError("no error")

    asyncio.run(run())


@check("kserve REST, version 1")
def kserve_version_1(stack):
    from kserve import InferenceRESTClient, RESTConfig

    async def run():
        client, base = InferenceRESTClient(RESTConfig(protocol="v1")), f"http://{stack.http}"
        assert await client.is_model_ready(base, "iris")
        answer = await client.infer(base, {"instances": FLOWER.tolist()}, model_name="iris")
        is_setosa(answer["predictions"][0])

    asyncio.run(run())


@check("kserve REST")
def kserve_rest(stack):
    from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

    async def run():
        client, base = InferenceRESTClient(RESTConfig(protocol="v2")), f"http://{stack.http}"
        assert await client.is_server_live(base) and await client.is_server_ready(base)
        assert await client.is_model_ready(base, "iris")
        for is_binary in [True, False]:
            given = InferInput("input", list(FLOWER.shape), "FP32")
            given.set_data_from_numpy(FLOWER, binary_data=is_binary)
            answer = await client.infer(base, InferRequest(model_name="iris", infer_inputs=[given]), model_name="iris")
            is_setosa(answer.outputs[0].as_numpy())
        given = InferInput("input", [1, 5], "FP32")
        given.set_data_from_numpy(np.zeros((1, 5), dtype=np.float32), binary_data=False)
        try:
            await client.infer(base, InferRequest(model_name="iris", infer_inputs=[given]), model_name="iris")
        except Exception as error:
            assert "must be 4, not 5" in str(error), error
        else:
            raise AssertionError("no error")

    asyncio.run(run())


@check("pytriton ModelClient")
def pytriton_http(stack):
    from pytriton.client import ModelClient

    with ModelClient(f"http://{stack.http}", "iris") as client:
        is_setosa(client.infer_batch(FLOWER)["output"])


@check("pytriton ModelClient")
def pytriton_grpc(stack):
    from pytriton.client import ModelClient

    with ModelClient(f"grpc://{stack.grpc}", "iris") as client:
        is_setosa(client.infer_batch(FLOWER)["output"])


@check("mlserver infer")
def mlserver_infer(stack):
    folder = Path(tempfile.mkdtemp(dir=stack.folder))
    request = {"inputs": [{"name": "input", "shape": [1, 4], "datatype": "FP32", "data": FLOWER.flatten().tolist()}]}
    (folder / "in.jsonl").write_text((json.dumps(request) + "\n") * 3)
    program = Path(sys.executable).parent / "mlserver"
    command = [program, "infer", "-u", stack.http, "-m", "iris", "-i", folder / "in.jsonl", "-o", folder / "out.jsonl"]
    subprocess.run([str(word) for word in command], check=True, capture_output=True, timeout=120)
    answers = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert len(answers) == 3, answers
    for answer in answers:
        is_setosa(answer["outputs"][0]["data"])


class Paused:
    """The worker runs nothing meanwhile."""

    def __init__(self, stack):
        self.stack = stack

    def __enter__(self):
        self.stack.worker.send_signal(signal.SIGSTOP)

    def __exit__(self, *_):
        self.stack.worker.send_signal(signal.SIGCONT)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--binaries", required=True)
    arguments.add_argument("--iris", required=True)
    arguments.add_argument("--kserve", action="store_true", help="only the clients of KServe, without it all others")
    arguments.add_argument("--only", default="", help="a part of the name of a client and a check")
    arguments = arguments.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as folder, Stack(arguments.binaries, arguments.iris, folder) as stack:
        print("| client | check | outcome |\n| --- | --- | --- |")
        for client, checks in CHECKS.items():
            for run in checks:
                name = f"{client} {run.__name__}"
                if arguments.only not in name or arguments.kserve != name.startswith("kserve"):
                    continue
                try:
                    run(stack)
                    outcome = "right"
                except Exception:
                    traceback.print_exc()
                    failed, outcome = failed + 1, "WRONG"
                print(f"| {client} | {run.__name__.replace('_', ' ')} | {outcome} |", flush=True)
    sys.exit(f"{failed} checks failed" if failed else 0)


main()
