"""The chart, rendered by Helm's own engine without a cluster."""

import contextlib
import os
from pathlib import Path

import yaml
from helm_python.chart import Chart, lint

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "compose/kubernetes/tepal"
VALUES = ROOT / "tests/kubernetes/values"
NAMESPACE = "tepal"


@contextlib.contextmanager
def _quiet():
    """The engine writes a line for each link in the chart to standard error."""
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


def strict_lint():
    """What a strict lint finds, without the advice to have an icon."""
    with _quiet():
        found = lint(str(CHART), strict=True)
    advice = [message for message in found["messages"] if "icon is recommended" not in message["error"]]
    return advice + found["errors"]


class Rendering:
    """What the chart makes of values."""

    _chart = None

    def __init__(self, values):
        with _quiet():
            if Rendering._chart is None:
                Rendering._chart = Chart.load(str(CHART))
            self.files = Rendering._chart.render(values, name="tepal", namespace=NAMESPACE)

    @classmethod
    def of(cls, name):
        """With the values of a file."""
        return cls(yaml.safe_load((VALUES / name).read_text()))

    def texts(self):
        """The manifests as text, by template, without empty ones and notes."""
        for path, text in sorted(self.files.items()):
            name = path.split("/templates/", 1)[1]
            if name.endswith(".yaml"):
                for part in text.split("\n---\n"):
                    if yaml.safe_load(part) is not None:
                        yield name, part

    def objects(self):
        """The objects, those of `helm test` included."""
        return [yaml.safe_load(text) for _, text in self.texts()]

    def one(self, kind, name):
        """The object of this kind and name."""
        found = [o for o in self.objects() if (o["kind"], o["metadata"]["name"]) == (kind, name)]
        assert len(found) == 1, f"{len(found)} objects {kind} {name}"
        return found[0]

    def of_kind(self, kind):
        """All objects of this kind."""
        return [o for o in self.objects() if o["kind"] == kind]


def refusal(values):
    """Why these values are refused; None if they are not."""
    try:
        Rendering(values)
    except Exception as error:  # The package has a class for each phase.
        return str(error)
    return None
