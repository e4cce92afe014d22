"""What the checks need of a client. Each client has a class that passes these calls on to it."""

import asyncio
import contextlib
import multiprocessing
from dataclasses import dataclass

DATATYPES = {"float32": "FP32", "float16": "FP16", "int64": "INT64", "bool": "BOOL", "object": "BYTES"}
GRPC_STATUS = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 504: "DEADLINE_EXCEEDED"}


@dataclass
class Call:
    """An inference. `inputs` are arrays by name, `timeout` is the parameter of the protocol in microseconds. With `as_json` all
    tensors but FP16 are JSON, or typed contents in gRPC."""

    model: str
    inputs: dict
    outputs: list
    as_json: bool = False
    timeout: int | None = None


class Client:
    """Opened with `with`. `limit` is the client's own time-out in seconds, None its default."""

    # The client in the table, the protocol, what its inferences raise for an error, and what they raise when `limit` has passed:
    # the class, and a part of the text.
    name = protocol = error = time_out = None
    # The checks that the client has no function for, with the reason.
    lacks = {}
    # Whether one request can have tensors in JSON and raw ones. The model for `as_json`: few clients write FP16 as JSON.
    mixes, json_model = False, "typed"
    # Whether a tensor can have infinite numbers.
    infinite = True
    # Whether an error for an unknown model comes from the server, and whether errors show the status.
    asks_for_unknown_models = shows_status = True
    # Tepal's error for five values in place of four.
    wrong_shape = "must be 4, not 5"

    def __init__(self, addresses, limit=None):
        self.addresses, self.address, self.limit = addresses, addresses[self.protocol], limit

    def status(self, code):
        """What the text of an error has for this HTTP status."""
        if not self.shows_status:
            return ""
        return str(code) if self.protocol == "http" else GRPC_STATUS[code]

    def infer(self, call):
        return self.infer_all([call])[0]

    @contextlib.contextmanager
    def apart(self, call):
        """Opens the client in a process of its own. The object returned can begin the call, and kill the process."""
        process = Process(type(self), self.addresses, call)
        try:
            yield process
        finally:
            process.kill()


class AsyncClient(Client):
    """A client of asyncio, in an event loop of its own that runs during calls. `open` is a coroutine that returns it."""

    def __enter__(self):
        self.loop = asyncio.new_event_loop()
        self.client = self.wait(self.open())
        return self

    def __exit__(self, *_):
        self.wait(self.close())
        self.loop.close()

    async def close(self):
        await self.client.close()

    def wait(self, coroutine):
        return self.loop.run_until_complete(coroutine)

    def wait_for_all(self, **coroutines):
        return {name: self.wait(coroutine) for name, coroutine in coroutines.items()}

    def infer_all(self, calls):
        async def gather():
            return await asyncio.gather(*(self.ask(call) for call in calls))

        return self.wait(gather())

    def cancel(self, call, started, ended):
        """Cancels the task after `started` has returned. The client stays open until `ended` has returned."""

        async def run():
            task = asyncio.create_task(self.ask(call))
            await asyncio.to_thread(started)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
                raise AssertionError("the call was not cancelled")
            await asyncio.to_thread(ended)

        self.wait(run())


class Process:
    """Opens the client, and begins its call when told so."""

    def __init__(self, client, addresses, call):
        # A fork would share threads of gRPC.
        spawn = multiprocessing.get_context("spawn")
        self.here, there = spawn.Pipe()
        self.process = spawn.Process(target=infer_in_process, args=(client, addresses, call, there), daemon=True)
        self.process.start()
        assert self.here.recv() == "open"

    def begin(self):
        self.here.send("begin")

    def kill(self):
        self.process.kill()
        self.process.join()


def infer_in_process(client, addresses, call, pipe):
    with client(addresses) as opened:
        pipe.send("open")
        pipe.recv()
        opened.infer(call)
