"""What the README shows runs as it stands."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.__main__ import studies
from jgen import load

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
STUDIES = (ROOT / "experiments" / "README.md").read_text()


@pytest.mark.study
@pytest.mark.usefixtures("optimized")
def test_the_contract_in_ten_lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    block = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    names = {}
    exec(block, names)  # noqa: S102
    assert names["events"].shape == (100_000, 2)
    assert np.isfinite(names["log_p"]).all()
    model, fitted = names["model"], names["fitted"]
    jax.tree.map(np.testing.assert_array_equal, load("banana.npz", model), fitted.params)
    # The banana, straightened, is a unit normal: its median and central width after 1000 steps.
    x, y = names["events"].T
    low, middle, high = np.quantile(np.stack([x, y - x**2]), [0.1587, 0.5, 0.8413], axis=1)
    np.testing.assert_allclose(middle, 0, atol=0.15)
    np.testing.assert_allclose((high - low) / 2, 1, atol=0.15)


@pytest.mark.study
@pytest.mark.usefixtures("optimized")
def test_training_without_data():
    block = next(
        b for b in re.findall(r"```python\n(.*?)```", STUDIES, re.DOTALL) if "reverse_kl" in b
    )
    names = {}
    exec(block, names)  # noqa: S102
    log_weight = names["events"].log_weight
    assert names["effective_sample_size"](log_weight).value > 0.95
    # A lost well would lack 0.24; the statistical error is 0.0013.
    assert abs(names["log_partition"](log_weight).value - 5.4269) < 0.01


@pytest.mark.study
@pytest.mark.usefixtures("optimized")
def test_integrals():
    block = next(
        b for b in re.findall(r"```python\n(.*?)```", STUDIES, re.DOTALL) if "cube_flow" in b
    )
    names = {}
    exec(block, names)  # noqa: S102
    found = names["integral"](names["weights"])
    assert abs(found.value - 0.963657) < 4 * found.error
    assert names["relative_deviation"](names["weights"]).value < 0.5


@pytest.mark.parametrize("text", [README, STUDIES], ids=["README", "experiments/README"])
def test_files_and_studies_it_names_are_there(text):
    base = ROOT if text is README else ROOT / "experiments"
    for path in re.findall(r"\]\((?!http)([^)]+)\)", text):
        assert (base / path).exists(), path
    known = studies()
    for name in re.findall(r"python -m experiments ([a-z_.]+)", text):
        assert name in known, name


def test_the_table_of_studies_has_them_all():
    rows = [line.split("|")[1] for line in STUDIES.splitlines() if line.startswith("| `")]
    named = {name.split()[0] for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert named == set(studies())


def test_it_can_be_read_in_three_minutes():
    assert len(README.split()) <= 700
