"""What the README shows runs as it stands."""

import re
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("optimized")
ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_contract_in_ten_lines():
    block = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    names = {}
    exec(block, names)  # noqa: S102
    assert names["events"].shape == (100_000, 2)
    assert np.isfinite(names["log_p"])
    # The banana, straightened, is a unit normal: its median and central width after 1000 steps.
    x, y = names["events"].T
    low, middle, high = np.quantile(np.stack([x, y - x**2]), [0.1587, 0.5, 0.8413], axis=1)
    np.testing.assert_allclose(middle, 0, atol=0.15)
    np.testing.assert_allclose((high - low) / 2, 1, atol=0.15)


def test_training_without_data():
    block = next(
        b for b in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "reverse_kl" in b
    )
    names = {}
    exec(block, names)  # noqa: S102
    log_weight = names["events"].log_weight
    assert names["effective_sample_size"](log_weight).value > 0.95
    # A lost well would lack 0.24; the statistical error is 0.0013.
    assert abs(names["log_partition"](log_weight).value - 5.4269) < 0.01


def test_files_and_studies_it_names_are_there():
    for path in re.findall(r"\((experiments/[^)]+)\)|`(notebooks/[^`]+)`", README):
        assert (ROOT / "".join(path)).exists()
    for name in re.findall(r"python -m (experiments\.[a-z0-9_.]+)", README):
        assert (ROOT / f"{name.replace('.', '/')}.py").exists()
