"""Runs the rendered pods as containers of a Docker engine: the nearest thing to a cluster that a machine without one has. The images
must be there under the names of the chart (tepal-proxy:VERSION, tepal-worker:VERSION)."""

import contextlib
import subprocess
import tempfile
import time
from pathlib import Path

import running
from chart import Rendering
from running import IRIS, LANGUAGE, ask, eventually

BYTES = {"Ki": "k", "Mi": "m", "Gi": "g"}


def docker(*arguments):
    outcome = subprocess.run(["docker", *arguments], capture_output=True, text=True)
    assert outcome.returncode == 0, f"docker {' '.join(arguments)}: {outcome.stderr}"
    return outcome.stdout.strip()


class Pods(running.Services):
    """The services as containers. Redis stays a process of this machine."""

    def env(self, pod):
        """As rendered, with the address of Redis. The models are those in the images."""
        return running.literal_env(self.rendering, pod) | {"REDIS_URL": f"redis://127.0.0.1:{self.redis}"}

    def start(self, program, deployment, addresses):
        spec = self.rendering.one("Deployment", deployment)["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        security, own = spec["securityContext"], container["securityContext"]
        memory = container["resources"]["limits"]["memory"]
        options = ["--network", "host", "--user", f"{security['runAsUser']}:{security['runAsGroup']}"]
        options += ["--memory", memory[:-2] + BYTES[memory[-2:]], "--memory-swap", memory[:-2] + BYTES[memory[-2:]]]
        options += ["--read-only"] * own["readOnlyRootFilesystem"]
        options += ["--security-opt", "no-new-privileges"] * (not own["allowPrivilegeEscalation"])
        options += [f"--cap-drop={name}" for name in own["capabilities"]["drop"]]
        for name, value in (self.env(container) | addresses).items():
            options += ["--env", f"{name}={value}"]
        name = f"{self.folder.name}-{deployment}"
        docker("run", "--detach", "--name", name, *options, container["image"])
        self.stack.callback(docker, "rm", "--force", name)
        return name

    def check_confined(self, deployment):
        """The process has no capabilities, cannot gain privileges, and cannot write."""
        name = f"{self.folder.name}-{deployment}"
        status = docker("exec", name, "cat", "/proc/1/status")
        wanted = ("Uid:\t65532\t", "CapEff:\t0000000000000000\n", "CapBnd:\t0000000000000000\n", "NoNewPrivs:\t1\n")
        assert all(line in status for line in wanted), f"{deployment}: {status}"
        writes = subprocess.run(["docker", "exec", name, "touch", "/tmp/file"], capture_output=True, text=True)
        assert "Read-only file system" in writes.stderr, f"{deployment}: {writes}"

    def stop(self, deployment, meanwhile=lambda: None):
        """Stops a container as a kubelet stops a pod. Returns how long that took, in seconds."""
        name = f"{self.folder.name}-{deployment}"
        grace = self.rendering.one("Deployment", deployment)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        begin = time.monotonic()
        with subprocess.Popen(["docker", "stop", "--time", str(grace), name], stdout=subprocess.DEVNULL):
            meanwhile()
        took = time.monotonic() - begin
        state = docker("inspect", name, "--format", "{{.State.ExitCode}} {{.State.OOMKilled}}")
        assert state == "0 false", f"{deployment}: {state}"
        assert took < grace, f"{deployment} took {took} s of {grace} s"
        return took


def serves_on(pods):
    """After SIGTERM the proxy is not ready, and serves until its delay has passed."""
    eventually("the proxy to be unready", lambda: ask(f"{pods.url}/readyz")[0] == 503)
    pods.submit(IRIS)


def check():
    """All of it; yields what holds."""
    rendering = Rendering.of("scale-to-zero.yaml")
    with tempfile.TemporaryDirectory(prefix="tepal-") as name, contextlib.ExitStack() as stack:
        pods = Pods(stack, Path(name), None, rendering)
        running.check_probes(rendering, "tepal-proxy", pods.port)
        running.check_metrics_api(pods)
        deployments = [f"tepal-worker-{group}" for group in ("iris", "language")]
        for deployment in deployments:
            running.check_probes(rendering, deployment, pods.start_worker(deployment))
        eventually("the workers to run the jobs", lambda: set(running.counts(pods, rendering).values()) == {0})
        yield "the images run as the rendered pods do: read-only, without capabilities, within their memory"
        for deployment in ("tepal-proxy", *deployments):
            pods.check_confined(deployment)
        # Some run when the workers stop. More would meet the rate limit.
        for body in [IRIS, LANGUAGE] * 20:
            pods.submit(body)
        times = {deployment: pods.stop(deployment) for deployment in deployments}
        times["tepal-proxy"] = pods.stop("tepal-proxy", lambda: serves_on(pods))
        yield "they stop in order within their grace periods: " + ", ".join(f"{of} {took:.1f} s" for of, took in times.items())
