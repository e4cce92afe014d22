"""Redis, a proxy and a worker of the build, with a model that returns what it gets, in every datatype that the clients send."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import onnx
import onnxruntime
from onnx import TensorProto, helper

DATATYPES = {
    "FP32": TensorProto.FLOAT,
    "FP16": TensorProto.FLOAT16,
    "INT64": TensorProto.INT64,
    "BOOL": TensorProto.BOOL,
    "BYTES": TensorProto.STRING,
}


def echo(path, datatypes):
    """A model with an input and an output of each of these datatypes."""
    nodes, inputs, outputs = [], [], []
    for name in datatypes:
        datatype = DATATYPES[name]
        given, returned = name.lower(), f"{name.lower()}_out"
        nodes.append(helper.make_node("Identity", [given], [returned]))
        inputs.append(helper.make_tensor_value_info(given, datatype, ["N", "M"]))
        outputs.append(helper.make_tensor_value_info(returned, datatype, ["N", "M"]))
    model = helper.make_model(
        helper.make_graph(nodes, "echo", inputs, outputs), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 8
    path.parent.mkdir(parents=True)
    onnx.save(model, path)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Stack:
    """Started with `with`. `addresses` has one for each protocol."""

    def __init__(self, binaries, iris, folder):
        self.binaries, self.folder = Path(binaries), Path(folder)
        self.processes = []
        models = self.folder / "models"
        shutil.copytree(iris, models / "iris")
        echo(models / "echo" / "model.onnx", DATATYPES)
        # For requests whose tensors are all JSON or typed contents.
        echo(models / "typed" / "model.onnx", [name for name in DATATYPES if name != "FP16"])
        redis, http, grpc = free_port(), free_port(), free_port()
        self.addresses = {"http": f"127.0.0.1:{http}", "grpc": f"127.0.0.1:{grpc}"}
        library = next(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so*"))
        self.settings = {
            "REDIS_URL": f"redis://127.0.0.1:{redis}",
            "MODELS_DIR": str(models),
            "MODEL_BACKEND": "onnxruntime",
            "ORT_DYLIB_PATH": str(library),
            "LISTEN_ADDR": self.addresses["http"],
            "GRPC_LISTEN_ADDR": self.addresses["grpc"],
            "RATE_LIMIT_PER_MINUTE": "0",
            "METRICS_ADDR": "127.0.0.1:0",
        }
        self.redis = ["redis-server", "--port", str(redis), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""]

    def __enter__(self):
        self.run(self.redis)
        self.proxy = self.run([self.binaries / "tepal-proxy"])
        self.worker = self.run([self.binaries / "tepal-worker"])
        for model in ["iris", "echo", "typed"]:
            self.until_ready(model)
        return self

    def run(self, command):
        log = open(self.folder / f"{Path(command[0]).name}.log", "ab")
        environment = {"PATH": os.environ["PATH"], **self.settings}
        process = subprocess.Popen([str(word) for word in command], env=environment, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def until_ready(self, model):
        end = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"http://{self.addresses['http']}/v2/models/{model}/ready").close()
                return
            except OSError as error:
                if time.monotonic() > end:
                    raise SystemExit(f"{model} is not ready after 60 s ({error}); see the logs in {self.folder}")
                time.sleep(0.1)

    def jobs(self):
        """The states of the newest jobs by their ids."""
        with urllib.request.urlopen(f"http://{self.addresses['http']}/jobs?limit=1000") as page:
            return {job["job_id"]: job["status"] for job in json.load(page)["jobs"]}

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            process.wait()
