"""Evaluations as files and as text."""

import json
import os
from collections.abc import Mapping, Sequence

import numpy as np

from jgen.estimate import Estimate, Judged, judged
from jgen.files import atomic_path
from jgen.metrics import ClassifierComparison, ClassifierResult, Comparison
from jgen.showers.evaluation.protocol import Evaluation
from jgen.showers.evaluation.response import Profile, ResponseTest

# Of the files; to be raised with every change of them.
_VERSION = 2


def save_evaluation(path: str | os.PathLike, evaluation: Evaluation) -> None:
    """Write an evaluation as one .npz file."""
    arrays = {}
    for name, both in evaluation.table.columns.items():
        for field, values in both._asdict().items():
            # A value with its errors [2, columns], or one without [columns].
            arrays[f"layers/{field}/{name}"] = np.array(values)
    for tag, comparison in evaluation.classifiers.items():
        for sample in ("generated", "truth"):
            for field, values in getattr(comparison, sample)._asdict().items():
                arrays[f"classifiers/{tag}/{sample}/{field}"] = values
    for tag, test in evaluation.response.items():
        arrays[f"response/{tag}/edges"] = test.edges
        for sample in ("reference", "generated"):
            for field, values in getattr(test, sample)._asdict().items():
                arrays[f"response/{tag}/{sample}/{field}"] = values
    header = {
        "version": _VERSION,
        "metrics": evaluation.metrics,
        "num_events": evaluation.table.num_events,
        "table": list(evaluation.table.metrics),
        "classifiers": list(evaluation.classifiers),
        "response": {tag: test.numbers for tag, test in evaluation.response.items()},
        "notes": evaluation.notes,
    }
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, header=json.dumps(header), **arrays)


def load_evaluation(path: str | os.PathLike) -> Evaluation:
    """Read what `save_evaluation` wrote.

    Raises:
      ValueError: if the file is none of this version.
    """
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(arrays.pop("header").item()) if "header" in arrays else {}
    if header.get("version") != _VERSION:
        raise ValueError(
            f"{path} is no evaluation of this version of jgen: remove it and evaluate again"
        )
    metrics = header["metrics"]
    part = lambda prefix: {
        name.removeprefix(prefix): values
        for name, values in arrays.items()
        if name.startswith(prefix)
    }
    tests = {}
    for tag in header["classifiers"]:
        results = (part(f"classifiers/{tag}/{sample}/") for sample in ("generated", "truth"))
        tests[tag] = ClassifierComparison(tag, *(ClassifierResult(**r) for r in results))
    responses = {}
    for tag, numbers in header["response"].items():
        profiles = (part(f"response/{tag}/{sample}/") for sample in ("reference", "generated"))
        edges = arrays[f"response/{tag}/edges"]
        responses[tag] = ResponseTest(edges, *(Profile(**p) for p in profiles), numbers)
    values, truth = (part(f"layers/{field}/") for field in Judged._fields)
    estimate = lambda a: Estimate(*a) if a.ndim == 2 else a
    columns = {name: Judged(estimate(values[name]), estimate(truth[name])) for name in values}
    judged_metrics = {name: judged(metrics, name) for name in header["table"]}
    table = Comparison(judged_metrics, columns, header["num_events"])
    return Evaluation(metrics, table, tests, responses, tuple(header["notes"]))


def summary_table(metrics: Mapping[str, float], notes: Sequence[str] = ()) -> str:
    """The main metrics as text: generated and truth, both against the reference; then the notes.

    Every metric with a truth beside it has a row, but for numbers of bins and for the entries
    outside of histograms, of which a note says where they matter.
    """
    lines = [f"{'against the reference':<28}{'generated':>22}{'truth':>22}"]
    for name in metrics:
        hidden = name.startswith(("underflow/", "overflow/")) or name == "response/bins"
        if hidden or f"{name}_truth" not in metrics:
            continue
        columns = "".join(f"{_text(metrics, name + suffix):>22}" for suffix in ("", "_truth"))
        lines.append(f"{name:<28}{columns}")
    for name in ("incident_energy_p", "num_showers"):
        if name in metrics:
            lines.append(f"{name:<28}{metrics[name]:>22.4g}")
    return "\n".join([*lines, *(f"Note: {note}" for note in notes)])


def _text(metrics, name):
    """A value with its error, both to the same digit, if it has one."""
    value, error = metrics[name], metrics.get(f"{name}_error")
    return f"{value:.4g}" if error is None else f"{value:.4g} +- {error:.1g}"
