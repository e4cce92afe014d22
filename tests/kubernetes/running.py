"""What the chart says about running services, against running services: a Redis, a proxy and a worker on this machine, with the
environment of the rendered pods; KEDA's triggers against the proxy's metrics, and against a Prometheus where one is installed."""

import contextlib
import json
import re
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import yaml

from chart import NAMESPACE, ROOT, Rendering

SOON = 30
IRIS = {"data": [[5.1, 3.5, 1.4, 0.2]], "model": "iris"}
LANGUAGE = {"data": [[71, 117, 116, 101, 110]], "model": "language"}


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def ask(url, body=None):
    """The status and the text of the answer."""
    headers = {"content-type": "application/json"} if body is not None else {}
    data = json.dumps(body).encode() if body is not None else None
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


def eventually(what, look):
    """Waits until `look` returns something true, and returns that."""
    deadline, last = time.monotonic() + SOON, None
    while time.monotonic() < deadline:
        try:
            if last := look():
                return last
        except (OSError, AssertionError) as error:
            last = error
        time.sleep(0.1)
    raise AssertionError(f"{what} did not happen within {SOON} s: {last}")


@contextlib.contextmanager
def process(command, env, log):
    """Runs a program, and stops it at the end as Kubernetes does."""
    with open(log, "w") as output:
        running = subprocess.Popen(command, env=env, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.wait(SOON)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def container(rendering, deployment):
    return rendering.one("Deployment", deployment)["spec"]["template"]["spec"]["containers"][0]


def literal_env(rendering, pod):
    """The environment of a container: the ConfigMap, and what the pod itself has. Secrets are left out."""
    env = dict(rendering.one("ConfigMap", "tepal")["data"])
    for entry in pod["env"]:
        if "value" in entry:
            env[entry["name"]] = entry["value"]
        elif "resourceFieldRef" in entry["valueFrom"]:
            env[entry["name"]] = pod["resources"]["requests"]["cpu"]
    return env


SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def keda_value(page, location):
    """What KEDA's metrics-api reads: the one sample with this name that has these labels."""
    name, labels = re.fullmatch(r"(\w+)(?:\{(.*)\})?", location).groups()
    wanted = dict(LABEL.findall(labels or ""))
    values = []
    for line in page.splitlines():
        sample = SAMPLE.match(line)
        if sample and sample[1] == name and wanted.items() <= dict(LABEL.findall(sample[2] or "")).items():
            values.append(float(sample[3]))
    assert len(values) == 1, f"{location} selects {len(values)} samples"
    return values[0]


class Services:
    """A Redis and a proxy. Each pod's environment is as rendered, except the addresses."""

    def __init__(self, stack, folder, programs, rendering):
        self.stack, self.folder, self.programs, self.rendering = stack, folder, programs, rendering
        self.redis, self.port = free_port(), free_port()
        command = ["redis-server", str(ROOT / "compose/redis.conf"), "--port", str(self.redis), "--bind", "127.0.0.1"]
        stack.enter_context(process([*command, "--dir", str(folder)], None, folder / "redis.log"))
        self.url = f"http://127.0.0.1:{self.port}"
        self.start("tepal-proxy", "tepal-proxy", {"LISTEN_ADDR": f"127.0.0.1:{self.port}"})
        eventually("the proxy to be ready", lambda: ask(f"{self.url}/readyz")[0] == 200)

    def env(self, pod):
        """The environment of this container, with the addresses here."""
        here = {"REDIS_URL": f"redis://127.0.0.1:{self.redis}", "MODELS_DIR": str(ROOT / "compose/models")}
        return literal_env(self.rendering, pod) | here

    def start(self, program, deployment, addresses):
        env = self.env(container(self.rendering, deployment)) | addresses
        log = self.folder / f"{deployment}.log"
        self.stack.enter_context(process([str(self.programs / program)], env, log))

    def start_worker(self, deployment):
        port = free_port()
        self.start("tepal-worker", deployment, {"METRICS_ADDR": f"127.0.0.1:{port}"})
        return port

    def submit(self, body):
        status, text = ask(f"{self.url}/predict", body)
        assert status == 202, text


def check_doctors(services):
    """The pods of `helm test` find nothing wrong."""
    pods = services.rendering.of_kind("Pod")
    for pod in pods:
        (doctor,) = pod["spec"]["containers"]
        program = "tepal-proxy" if doctor["image"].startswith("tepal-proxy:") else "tepal-worker"
        command = [str(services.programs / program), *doctor["args"]]
        outcome = subprocess.run(command, env=services.env(doctor), capture_output=True, text=True, timeout=SOON)
        assert outcome.returncode == 0, f"{pod['metadata']['name']}: {outcome.stdout}{outcome.stderr}"
    return len(pods)


def check_probes(rendering, deployment, port):
    """Every probe of a pod answers 200."""
    probes = [probe["httpGet"] for name, probe in container(rendering, deployment).items() if name.endswith("Probe")]
    assert len(probes) >= 2, deployment
    for probe in probes:
        assert probe["path"] != "/health", "it is 503 when no worker is alive"
        eventually(f"{probe['path']} of {deployment}", lambda path=probe["path"]: ask(f"http://127.0.0.1:{port}{path}")[0] == 200)


def triggers(rendering):
    """The metadata of each trigger with the names of its ScaledObject and its Deployment's container."""
    service = rendering.of_kind("Service")[0]
    host = f"{service['metadata']['name']}.{NAMESPACE}.svc:{service['spec']['ports'][0]['port']}"
    for scaled in rendering.of_kind("ScaledObject"):
        rendering.one("Deployment", scaled["spec"]["scaleTargetRef"]["name"])
        for trigger in scaled["spec"]["triggers"]:
            if trigger["type"] == "metrics-api":
                assert trigger["metadata"]["url"] == f"http://{host}/metrics", trigger
            yield scaled["metadata"]["name"], trigger["metadata"]


def counts(services, rendering):
    """What each trigger reads now, by its place of the value."""
    page = ask(f"{services.url}/metrics")[1]
    return {metadata["valueLocation"]: keda_value(page, metadata["valueLocation"]) for _, metadata in triggers(rendering)}


def check_metrics_api(services):
    """The triggers of two renderings read no job, then each job that waits, and no job again when workers ran them."""
    rendering, one = services.rendering, Rendering.of("one-group.yaml")
    of_iris, of_language = (f'tepal_model_jobs_outstanding{{model="{name}"}}' for name in ("iris", "language"))
    assert counts(services, rendering) == {of_iris: 0, of_language: 0}
    assert counts(services, one) == {"tepal_jobs_outstanding": 0}
    status, health = ask(f"{services.url}/health")
    assert (status, json.loads(health)["components"]["worker"]) == (200, "none"), health
    for body in [IRIS] * 3 + [LANGUAGE] * 2:
        services.submit(body)
    eventually("the waiting jobs to be read", lambda: counts(services, rendering) == {of_iris: 3, of_language: 2})
    assert counts(services, one) == {"tepal_jobs_outstanding": 5}


def check_promql(services, port):
    """The query of each trigger for Prometheus gives one number, and rules and alerts load."""
    rendering = Rendering.of("prometheus.yaml")
    seen = {}
    for name, metadata in triggers(rendering):
        address = f"http://127.0.0.1:{port}/api/v1/query?query={urllib.parse.quote(metadata['query'])}"

        def number(address=address):
            result = json.loads(ask(address)[1])["data"]["result"]
            return [float(sample["value"][1]) for sample in result] or None

        values = eventually(f"an answer to {metadata['query']}", number)
        assert len(values) == 1, f"{metadata['query']}: {values}"
        seen[name] = values[0]
    assert seen == {"tepal-worker-iris": 3, "tepal-worker-rest": 5}, seen


def prometheus(services, folder):
    """Starts a Prometheus that scrapes the proxy as the Prometheus operator would, with the rendered rules. Returns its port."""
    monitoring = Rendering.of("monitoring.yaml")
    (endpoint,) = monitoring.one("ServiceMonitor", "tepal-proxy")["spec"]["endpoints"]
    (rule,) = monitoring.of_kind("PrometheusRule")
    (folder / "rules.yml").write_text(yaml.safe_dump(rule["spec"]))
    target = {"targets": [f"127.0.0.1:{services.port}"], "labels": {"namespace": NAMESPACE, "cluster": "a"}}
    relabelings = [{"target_label": r["targetLabel"], "replacement": r["replacement"]} for r in endpoint["relabelings"]]
    scrape = {"job_name": "x", "scrape_interval": "1s", "static_configs": [target], "relabel_configs": relabelings}
    (folder / "prometheus.yml").write_text(yaml.safe_dump({"rule_files": ["rules.yml"], "scrape_configs": [scrape]}))
    port = free_port()
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    services.stack.enter_context(process([*command, f"--web.listen-address=127.0.0.1:{port}"], None, folder / "prometheus.log"))
    return port


def check_rules(port):
    """Prometheus has every rule and every alert of the chart, and a target with the job that they name."""
    groups = json.loads(ask(f"http://127.0.0.1:{port}/api/v1/rules")[1])["data"]["groups"]
    names = {rule["name"] for group in groups for rule in group["rules"]}
    texts = [(ROOT / f"compose/{name}.yml").read_text() for name in ("rules", "alerts")]
    expected = set(re.findall(r"- (?:record|alert): (\S+)", "".join(texts)))
    assert names == expected, names ^ expected
    up = json.loads(ask(f"http://127.0.0.1:{port}/api/v1/query?query=up")[1])["data"]["result"]
    assert [sample["metric"]["job"] for sample in up] == ["tepal-proxy"], up
    return len(names)


def check(programs):
    """All of it; yields what holds."""
    rendering = Rendering.of("scale-to-zero.yaml")
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        services = Services(stack, folder, programs, rendering)
        check_probes(rendering, "tepal-proxy", services.port)
        check_metrics_api(services)
        yield "KEDA's metrics-api triggers read the outstanding jobs from a running proxy"
        if shutil.which("prometheus"):
            port = prometheus(services, folder)
            check_promql(services, port)
            yield f"its prometheus triggers read the same from Prometheus, which has the {check_rules(port)} rules of the chart"
        else:
            yield "SKIPPED: the triggers for Prometheus, because no prometheus is installed"
        for group in ("iris", "language"):
            port = services.start_worker(f"tepal-worker-{group}")
            check_probes(rendering, f"tepal-worker-{group}", port)
        eventually("the workers to run the jobs", lambda: set(counts(services, rendering).values()) == {0})
        yield "workers with the environment of the rendered pods run the jobs; every probe answers 200"
        yield f"the {check_doctors(services)} pods of `helm test` find nothing wrong with a Redis that has compose/redis.conf"
