"""Sends unmodified clients of other inference servers to Tepal. Prints a table, and fails if a check is wrong. No check is skipped:
where a client has no function to check, the table has the reason.

    python clients.py --binaries target/release --iris compose/models/iris [--kserve]
"""

import argparse
import signal
import sys
import tempfile
import traceback

from checks import CHECKS
from stack import Stack


def clients(of_kserve):
    """The two sets cannot be installed together."""
    if of_kserve:
        import kserve_clients

        return kserve_clients.CLIENTS
    import mlserver_client
    import pytriton_clients
    import triton_clients

    return triton_clients.CLIENTS + pytriton_clients.CLIENTS + mlserver_client.CLIENTS


def outcome(client, name, stack):
    try:
        with client(stack.addresses) as opened:
            CHECKS[name](opened, stack)
        return "right"
    except Exception:
        traceback.print_exc()
        return "WRONG"


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--binaries", required=True)
    arguments.add_argument("--iris", required=True)
    arguments.add_argument("--kserve", action="store_true", help="only the clients of KServe, without it all others")
    arguments.add_argument("--only", default="", help="a part of the name of a client and a check")
    arguments = arguments.parse_args()
    # A shell starts its background jobs with Control-C ignored. Programs that are started from here would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    outcomes = []
    with tempfile.TemporaryDirectory() as folder, Stack(arguments.binaries, arguments.iris, folder) as stack:
        print("| client | check | outcome |\n| --- | --- | --- |")
        for client in clients(arguments.kserve):
            for name in CHECKS:
                if arguments.only in f"{client.name} {name}":
                    outcomes.append(client.lacks.get(name) or outcome(client, name, stack))
                    print(f"| {client.name} | {name} | {outcomes[-1]} |", flush=True)
    failed = outcomes.count("WRONG")
    print(f"{outcomes.count('right')} checks right, {failed} wrong")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
