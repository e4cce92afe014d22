"""Checks the chart without a cluster. check.sh installs what it needs and runs it.

    check.py --types DIR --programs DIR [--pods]

    --types DIR      a folder with the node_modules of package.json
    --programs DIR   a folder with tepal-proxy and tepal-worker
    --pods           also run the images in a Docker engine, see pods.py

With TEPAL_UPDATE_MANIFESTS=1 it writes the plain manifests anew.
"""

import argparse
import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import yaml

import pods
import running
from chart import CHART, ROOT, VALUES, Rendering, refusal, strict_lint

MANIFESTS = ROOT / "compose/kubernetes/manifests"
# Each plain manifest: the values that it is rendered from, and the templates of which it consists (None: all).
PLAIN = {
    "tepal.yaml": ("default.yaml", None),
    "scale-to-zero.yaml": ("scale-to-zero.yaml", None),
    "monitoring.yaml": ("monitoring.yaml", ["monitoring.yaml"]),
}
KUBERNETES_VERSION = "1.37"
OWN_GROUPS = ("keda.sh/", "monitoring.coreos.com/", "gateway.networking.k8s.io/")


def is_custom(an_object):
    return an_object["apiVersion"].startswith(OWN_GROUPS)


def place(name, an_object):
    return f"{name}: {an_object['kind']} {an_object['metadata']['name']}"


def check_lint():
    found = strict_lint()
    assert not found, found
    return "helm lint --strict finds nothing"


def check_links():
    """The rules, the alerts and the dashboards are links, so they cannot differ."""
    linked = {
        CHART / "files/rules.yml": ROOT / "compose/rules.yml",
        CHART / "files/alerts.yml": ROOT / "compose/alerts.yml",
    }
    for dashboard in (ROOT / "grafana/dashboards").glob("*.json"):
        linked[CHART / "files/dashboards" / dashboard.name] = dashboard
    for link, target in linked.items():
        assert link.is_symlink() and link.resolve() == target, f"{link} must be a link to {target}"
    there = {path for path in (CHART / "files").rglob("*") if not path.is_dir()}
    assert there == set(linked), there ^ set(linked)
    return f"{len(linked)} files of the chart are links to those of the composition"


def check_objects():
    """Every values file renders, and Kubernetes' own objects have no unknown field. Returns the message and the other objects."""
    custom, own, labels = [], 0, re.compile(r"^[a-z0-9A-Z]([-a-z0-9A-Z_.]{0,61}[a-z0-9A-Z])?$")
    for path in sorted(VALUES.glob("*.yaml")):
        seen = set()
        for an_object in Rendering.of(path.name).objects():
            name, where = an_object["metadata"]["name"], place(path.name, an_object)
            assert len(name) <= 54, f"{where}: KEDA and Services need shorter names"
            assert (an_object["kind"], name) not in seen, f"{where} appears twice"
            seen.add((an_object["kind"], name))
            for label in an_object["metadata"]["labels"].values():
                assert labels.match(label), f"{where}: {label} is no value of a label"
            if is_custom(an_object):
                custom.append((where, an_object))
                continue
            own += 1
            try:
                kubernetes_validate.validate(an_object, KUBERNETES_VERSION, strict=True)
            except Exception as error:
                raise AssertionError(f"{where}: {error}") from error
    return f"{own} objects fit the schemas of Kubernetes {KUBERNETES_VERSION}", custom


def check_restricted():
    """Every pod fits the Pod Security Standard `restricted`, and has limits and no token."""
    count = 0
    for path in sorted(VALUES.glob("*.yaml")):
        for an_object in Rendering.of(path.name).objects():
            spec = an_object["spec"]["template"]["spec"] if an_object["kind"] == "Deployment" else an_object.get("spec")
            if an_object["kind"] not in ("Deployment", "Pod"):
                continue
            count += 1
            where = place(path.name, an_object)
            pod = spec["securityContext"]
            assert pod["runAsNonRoot"] and pod["runAsUser"] and pod["seccompProfile"]["type"] == "RuntimeDefault", where
            assert spec["automountServiceAccountToken"] is False and spec["enableServiceLinks"] is False, where
            for container in spec["containers"]:
                context = container["securityContext"]
                assert context["capabilities"] == {"drop": ["ALL"]} and context["readOnlyRootFilesystem"], where
                assert context["allowPrivilegeEscalation"] is False, where
                assert container["resources"]["limits"]["memory"], f"{where} has no limit of memory"
                assert "cpu" not in container["resources"]["limits"], f"{where} has a limit of CPU"
    return f"{count} pods fit the Pod Security Standard `restricted`"


def wrong_copies(custom):
    """Each kind with an unknown field, and KEDA's triggers with a number where text must be."""
    kinds = {}
    for where, an_object in custom:
        kinds.setdefault(an_object["kind"], (where, an_object))
    for where, an_object in kinds.values():
        unknown = copy.deepcopy(an_object)
        unknown["spec"]["unknownField"] = 1
        yield f"{where} with an unknown field", unknown
    where, scaled = kinds["ScaledObject"]
    number = copy.deepcopy(scaled)
    number["spec"]["triggers"][0]["metadata"]["targetValue"] = 64
    yield f"{where} with a number in its metadata", number
    word = copy.deepcopy(scaled)
    word["spec"]["fallback"]["behavior"] = "sometimes"
    yield f"{where} with an unknown word", word


def check_types(custom, types):
    items = [{"place": where, "object": an_object, "isWrong": False} for where, an_object in custom]
    items += [{"place": where, "object": an_object, "isWrong": True} for where, an_object in wrong_copies(custom)]
    path = types / "objects.json"
    path.write_text(json.dumps(items))
    script = str(Path(__file__).with_name("types.mjs"))
    outcome = subprocess.run(["node", script, str(types), str(path)], capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout.strip()


def leaves(value, path=()):
    """The paths of all values; an empty map or list is a value."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    else:
        yield ".".join(path)


def nested(path, value):
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


def check_refusals():
    refused = yaml.safe_load(Path(__file__).with_name("refused.yaml").read_text())
    documented = set(leaves(yaml.safe_load((CHART / "values.yaml").read_text())))
    missing = documented - set(refused["values"])
    assert not missing, f"refused.yaml has no wrong value for {sorted(missing)}"
    count = 0
    for path, wrong in refused["values"].items():
        for value in wrong:
            why = refusal(nested(path, value))
            # Helm names the place, except for a name that may not be there.
            parent = "/" + path.replace(".", "/").rsplit("/", 1)[0]
            is_named = why and (parent in why or "invalid propertyName" in why)
            assert is_named and "schema" in why, f"{path}: {value!r} is not refused by the schema: {why}"
            count += 1
    for case in refused["together"]:
        why = refusal(case["values"])
        assert why and case["message"] in why, f"{case['values']} is not refused: {why}"
    return f"the schema refuses {count} wrong values of {len(documented)}, and {len(refused['together'])} that do not fit together"


HELM_ONLY = re.compile(r"^ *(helm\.sh/chart|app\.kubernetes\.io/managed-by): .*\n", re.MULTILINE)


def plain(name):
    """The text of a plain manifest."""
    values, templates = PLAIN[name]
    parts = []
    for template, text in Rendering.of(values).texts():
        if not template.startswith("tests/") and (templates is None or template in templates):
            text = HELM_ONLY.sub("", text.strip() + "\n").strip()
            parts.append("\n".join(line.rstrip() for line in text.splitlines()) + "\n")
    head = f"# Rendered from the chart beside it with tests/kubernetes/values/{values}, for the namespace tepal. Do not edit:\n"
    return head + "# TEPAL_UPDATE_MANIFESTS=1 make test-kubernetes writes it.\n---\n" + "---\n".join(parts)


def check_manifests():
    for name in PLAIN:
        path, text = MANIFESTS / name, plain(name)
        if os.environ.get("TEPAL_UPDATE_MANIFESTS"):
            MANIFESTS.mkdir(exist_ok=True)
            path.write_text(text)
        same = path.exists() and path.read_text() == text
        assert same, f"{path} is not what the chart renders; TEPAL_UPDATE_MANIFESTS=1 make test-kubernetes writes it"
    there = {path.name for path in MANIFESTS.iterdir()}
    assert there == set(PLAIN), there ^ set(PLAIN)
    return f"{len(PLAIN)} plain manifests are what the chart renders"


def check_scaling():
    """An autoscaler owns the number of replicas, and the proxies know when having no worker is right."""
    for name, expected in {"default.yaml": "1", "hpa.yaml": "1", "several-models.yaml": "1", "one-group.yaml": "0"}.items():
        rendering = Rendering.of(name)
        env = running.literal_env(rendering, running.container(rendering, "tepal-proxy"))
        assert env["WORKERS_EXPECTED"] == expected, f"{name}: WORKERS_EXPECTED={env['WORKERS_EXPECTED']}"
    for name in ("scale-to-zero.yaml", "hpa.yaml"):
        for deployment in Rendering.of(name).of_kind("Deployment"):
            scaled = deployment["metadata"]["name"] != "tepal-proxy" or name == "hpa.yaml"
            assert ("replicas" in deployment["spec"]) != scaled, f"{name}: {deployment['metadata']['name']}"
    (both,) = Rendering.of("several-models.yaml").of_kind("ScaledObject")
    names = [trigger["name"] for trigger in both["spec"]["triggers"]]
    assert both["spec"]["advanced"]["scalingModifiers"]["formula"] == " + ".join(names) == "model0 + model1"
    everything = Rendering.of("everything.yaml")
    grace = {d["metadata"]["name"]: d["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] for d in everything.of_kind("Deployment")}
    assert grace == {"queue-proxy": 8 + 60 + 5, "queue-worker-gpu": 610}, grace
    return "replicas, WORKERS_EXPECTED, formulas and grace periods follow from the values"


def main():
    parser = argparse.ArgumentParser(description="Checks the chart without a cluster")
    parser.add_argument("--types", type=Path, required=True)
    parser.add_argument("--programs", type=Path, required=True)
    parser.add_argument("--pods", action="store_true")
    arguments = parser.parse_args()
    print(check_lint())
    print(check_links())
    message, custom = check_objects()
    print(message)
    print(check_restricted())
    print(check_types(custom, arguments.types))
    print(check_refusals())
    print(check_scaling())
    print(check_manifests())
    for message in running.check(arguments.programs.resolve()):
        print(message)
    for message in pods.check() if arguments.pods else ():
        print(message)


if __name__ == "__main__":
    try:
        main()
    except AssertionError as mistake:
        sys.exit(f"tests/kubernetes: {mistake}")
