"""`mlserver infer`: a program that sends the requests of a file, and writes the answers and errors to another."""

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from client import DATATYPES, Client


class MlserverError(Exception):
    """The text of an error in the file of answers."""


class MlserverInfer(Client):
    name, protocol = "mlserver infer", "http"
    error, time_out = MlserverError, (MlserverError, "")
    lacks = {
        "health": "the program only infers",
        "metadata": "the program only infers",
        "timeout parameter": "the program does not pass it on",
    }
    # The file is JSON. Errors have only the text.
    infinite = shows_status = False

    def __enter__(self):
        self.files = tempfile.TemporaryDirectory()
        return self

    def __exit__(self, *_):
        self.files.cleanup()

    def infer_all(self, calls):
        program = self.run(calls)
        _, log = program.communicate(timeout=120)
        assert program.returncode == 0, log
        answers = [json.loads(line) for line in self.answers.read_text().splitlines()]
        assert len(answers) == len(calls), (answers, log)
        answers.sort(key=lambda answer: answer["parameters"]["batch_index"])
        return [tensors(answer) for answer in answers]

    def run(self, calls):
        folder = Path(tempfile.mkdtemp(dir=self.files.name))
        requests, self.answers = folder / "requests.jsonl", folder / "answers.jsonl"
        requests.write_text("".join(json.dumps(request(call)) + "\n" for call in calls))
        command = [Path(sys.executable).parent / "mlserver", "infer", "-u", self.address, "-m", calls[0].model]
        command += ["-i", requests, "-o", self.answers, "--retries", "1", "--workers", "50"]
        if not calls[0].as_json:
            command.append("--binary-data")
        if self.limit is not None:
            command += ["--timeout", self.limit]
        return subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def cancel(self, call, started, ended):
        """Control-C."""
        with self.apart(call) as program:
            program.begin()
            started()
            program.program.send_signal(signal.SIGINT)
            program.program.communicate(timeout=30)
            ended()

    @contextlib.contextmanager
    def apart(self, call):
        program = Program(lambda: self.run([call]))
        try:
            yield program
        finally:
            program.kill()


class Program:
    """Needs no opening: it begins its call when it is started."""

    def __init__(self, run):
        self.run, self.program = run, None

    def begin(self):
        self.program = self.run()

    def kill(self):
        if self.program is not None and self.program.returncode is None:
            self.program.kill()
            self.program.communicate()


def request(call):
    inputs = []
    for name, value in call.inputs.items():
        data = [element.decode() if isinstance(element, bytes) else element for element in value.flatten().tolist()]
        inputs.append({"name": name, "shape": list(value.shape), "datatype": DATATYPES[value.dtype.name], "data": data})
    return {"inputs": inputs, "outputs": [{"name": name} for name in call.outputs]}


def tensors(answer):
    if "error" in answer:
        raise MlserverError(answer["error"]["msg"])
    return {output["name"]: np.array(output["data"], dtype=object).reshape(output["shape"]) for output in answer["outputs"]}


CLIENTS = [MlserverInfer]
