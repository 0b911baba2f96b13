"""The benchmark of amplification studies: it measures all it says, of programs that do the same."""

import dataclasses
import json

import numpy as np
import pytest

from experiments.benchmarks import amplification as benchmark
from experiments.benchmarks.timing import measure
from experiments.study import execute
from jgen.nets import num_parameters


def counts_of(module, config):
    parts = module.build(config)
    return {name: num_parameters(part.init) for name, part in parts.items()}


HOWS = ("sequential", "scan", "vmap", "shard")  # tests have eight devices


@pytest.mark.study
def test_smoke_measures_all_ways_of_training(tmp_path, monkeypatch):
    """All numbers are there, and of programs that train the same members by the same steps."""
    kept = {}

    def keep(programs, repeats):
        kept.update(programs)
        return measure(programs, repeats)

    monkeypatch.setattr(benchmark, "measure", keep)
    config = dataclasses.replace(benchmark.SMOKE, members=(8,))
    metrics = execute(benchmark.STUDY, config, tmp_path / "run")
    expected = {"events_per_second", "events_per_cpu_second"}
    expected |= {f"{what}{clock}_seconds" for what in ("ks", "regions") for clock in ("", "_wall")}
    for how in HOWS:
        expected |= {f"step{clock}_ms/{how}/8" for clock in ("", "_wall")} | {f"compile_s/{how}/8"}
        if how != "sequential":
            expected |= {f"step{clock}_ratio/{how}/8" for clock in ("", "_wall")}
    assert set(metrics) == expected
    assert all(np.isfinite(value) and value > 0 for value in metrics.values())
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == metrics

    flat = lambda arrays: np.concatenate([np.ravel(a) for a in arrays])
    losses = {how: [flat(kept[how]()) for _ in range(2)] for how in HOWS}
    first = np.array(losses["sequential"])
    assert len(np.unique(first)) == 2 * 8  # members and steps differ
    for how in HOWS[1:]:
        np.testing.assert_allclose(losses[how], first, rtol=1e-4)

    figure = tmp_path / "run" / "figures" / "members.png"
    figure.unlink()
    assert execute(benchmark.STUDY, config, tmp_path / "run", plot_only=True) == metrics
    assert figure.exists()


def test_default_is_what_the_studies_train():
    config = benchmark.DEFAULT
    assert (config.members, config.num_events, config.num_train) == ((1, 10, 50), 10**7, 1000)
    counts = counts_of(benchmark, config)
    # 2 layers of width 32 with 64 hidden features: attention 3 * 32 * 33 + 32 * 33, dense
    # 2 * 32 * 64 + 96, two norms 2 * 64; and the output of 60 numbers a component.
    layer = 4 * 32 * 33 + 2 * 32 * 64 + 96 + 2 * 64
    rest = counts["transformer"] - 2 * layer - 60 * 33
    assert 0 < rest < 400  # embeddings of value and position


def test_bad_options(tmp_path):
    for options, message in (
        ({"members": ()}, "must be"),
        ({"members": (0,)}, "must be"),
        ({"repeats": 0}, "must be"),
        ({"num_events": 10}, "num_events must be at least 1000"),
    ):
        with pytest.raises(ValueError, match=message):
            execute(
                benchmark.STUDY, dataclasses.replace(benchmark.SMOKE, **options), tmp_path / "bad"
            )
    assert not (tmp_path / "bad").exists()
    with pytest.raises(ValueError, match="run without --plot-only"):
        execute(benchmark.STUDY, benchmark.SMOKE, tmp_path / "none", plot_only=True)
