"""What is checked of every client. A check gets the opened client, and the stack where it needs more."""

import signal
import time

import numpy as np

from client import Call

FLOWER = np.array([[5.1, 3.5, 1.4, 0.2]], dtype=np.float32)
VALUES = {
    "fp32": np.array([[1.5, -2.25, 0.5]], dtype=np.float32),
    "fp16": np.array([[1.5, -2.25, 0.5]], dtype=np.float16),
    "int64": np.array([[1, -(2**62), 3]], dtype=np.int64),
    "bool": np.array([[True, False, True]]),
    "bytes": np.array([[b"a", "\u00e9".encode(), b""]], dtype=np.object_),
}
METADATA = {
    "server": "tepal",
    "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 4]}],
    "max_batch_size": 1024,
    "models": {"iris": "READY", "echo": "READY", "typed": "READY"},
}
# Whichever notices first, the proxy that waits or the queue.
TOO_LATE = [
    "did not end within the time that the request allows",
    "waited longer than max_queue_seconds",
    "ran longer than timeout_seconds",
]
CHECKS = {}


def check(name):
    def add(run):
        CHECKS[name] = run
        return run

    return add


def classify(model="iris", rows=FLOWER, **options):
    return Call(model, {"input": rows}, ["output"], **options)


def flower(client, **changes):
    """A call that every client can make."""
    return classify(as_json="raw bytes" in client.lacks, **changes)


def echo(values, **options):
    return Call(inputs=values, outputs=[f"{name}_out" for name in values], **options)


def is_setosa(answer):
    assert np.argmax(np.asarray(answer["output"]).flatten()) == 0, answer


def same(values, answer):
    for name, given in values.items():
        returned = np.asarray(answer[f"{name}_out"])
        if given.dtype == np.object_:
            # In JSON they are text.
            returned = np.array([text.encode() if isinstance(text, str) else text for text in returned.flatten()], dtype=np.object_)
        assert np.array_equal(given, returned.reshape(given.shape)), (name, given, returned)


def without(values, *names):
    return {name: value for name, value in values.items() if name not in names}


def failure(client, call):
    """What the client raises."""
    try:
        client.infer(call)
    except Exception as error:
        return error
    raise AssertionError("no error")


@check("health")
def health(client, _):
    for model, is_ready in [("iris", True), ("rose", False)]:
        told = client.health(model)
        assert "model" in told and told == {**dict.fromkeys(told, True), "model": is_ready}, (model, told)


@check("metadata")
def metadata(client, _):
    told = client.metadata("iris")
    assert "inputs" in told and told == {name: METADATA[name] for name in told}, told


@check("raw bytes")
def raw(client, _):
    is_setosa(client.infer(classify()))
    values = VALUES
    if client.infinite:
        values = {**VALUES, "fp32": np.array([[1.5, -2.25, np.inf]], dtype=np.float32)}
    same(values, client.infer(echo(values, model="echo")))


@check("JSON or typed")
def typed(client, _):
    is_setosa(client.infer(classify(as_json=True)))
    values = VALUES if client.json_model == "echo" else without(VALUES, "fp16")
    same(values, client.infer(echo(values, model=client.json_model, as_json=True)))
    if client.mixes:
        call = echo(VALUES, model="echo", as_json=True)
        call.outputs.remove("fp16_out")
        same(without(VALUES, "fp16"), client.infer(call))


@check("50 at once")
def at_once(client, _):
    for answer in client.infer_all([flower(client)] * 50):
        is_setosa(answer)


@check("error text")
def error_text(client, _):
    wrong = [("iris", np.zeros((1, 5), dtype=np.float32), 400, client.wrong_shape)]
    if client.asks_for_unknown_models:
        wrong.append(("rose", FLOWER, 404, "There is no such model"))
    for model, rows, status, text in wrong:
        error = failure(client, flower(client, model=model, rows=rows))
        assert isinstance(error, client.error) and text in str(error) and client.status(status) in str(error), f"{error!r} {error}"


@check("timeout parameter")
def timeout_parameter(client, stack):
    with Paused(stack), OneJob(stack) as job:
        error = failure(client, flower(client, timeout=200_000))
        assert isinstance(error, client.error) and client.status(504) in str(error), f"{error!r} {error}"
        assert any(text in str(error) for text in TOO_LATE), f"{error!r} {error}"
        job.until(["cancelled"], ["failed"])


@check("own time-out")
def own_time_out(client, stack):
    with type(client)(client.addresses, limit=1) as impatient, Paused(stack), OneJob(stack) as job:
        error = failure(impatient, flower(client))
        kind, text = client.time_out
        assert isinstance(error, kind) and text in str(error), f"{error!r} {error}"
        job.cancelled()


@check("cancel")
def cancel(client, stack):
    with Paused(stack), OneJob(stack) as job:
        client.cancel(flower(client), job.started, job.cancelled)


@check("process killed")
def killed(client, stack):
    with client.apart(flower(client)) as process, Paused(stack), OneJob(stack) as job:
        process.begin()
        job.started()
        process.kill()
        job.cancelled()


class Paused:
    """The worker runs nothing meanwhile."""

    def __init__(self, stack):
        self.stack = stack

    def __enter__(self):
        self.stack.worker.send_signal(signal.SIGSTOP)

    def __exit__(self, *_):
        self.stack.worker.send_signal(signal.SIGCONT)


class OneJob:
    """The only job of the block."""

    def __init__(self, stack):
        self.stack = stack

    def __enter__(self):
        self.before = self.stack.jobs()
        return self

    def __exit__(self, *_):
        pass

    def states(self):
        return [state for job, state in self.stack.jobs().items() if job not in self.before]

    def started(self):
        self.until(["pending"], ["processing"])

    def cancelled(self):
        self.until(["cancelled"])

    def until(self, *wanted):
        end = time.monotonic() + 20
        while self.states() not in wanted:
            assert time.monotonic() < end, f"the jobs are {self.states()}, not {wanted}"
            time.sleep(0.05)
