"""The table of all shower generators: its rows, its showers and its options."""

import json

import numpy as np
import pytest

from experiments.showers import shower_generators
from experiments.showers.shower_generators import DEFAULT, ROWS, SMOKE
from jgen.showers import get_geometry, read_showers, sample_path


def test_the_reference_is_the_end_of_the_file_and_no_shower_is_on_both_sides():
    train, reference = shower_generators.load_showers(SMOKE)
    every = read_showers(sample_path(), get_geometry("ds2")).energies
    every = every[every <= SMOKE.max_energy]
    np.testing.assert_array_equal(np.concatenate([train.energies, reference.energies]), every)
    assert len(reference.energies) == SMOKE.num_test
    assert reference.voxels.shape[1] == 3 * 4 * 3
    assert train.voxels.shape[1] == 45 * 16 * 9


def test_rows_are_samplers_of_the_chosen_generators():
    assert set(DEFAULT.rows) == set(ROWS)
    assert set(SMOKE.rows) == {"clouds", "clouds_teacher", "bib_ae"}
    parts = shower_generators.build(SMOKE)
    assert {name.split("/")[0] for name in parts} == set(SMOKE.generators)


@pytest.mark.study
def test_every_row_has_all_numbers(smoke):
    metrics = json.loads((smoke("shower_generators") / "metrics.json").read_text())
    for name in SMOKE.rows:
        assert metrics[f"train_seconds/{name}"] > 0
        assert all(metrics[f"ms_per_shower/{name}/{size}"] > 0 for size in SMOKE.timing)
        assert 0 <= metrics[f"auc/{name}"] <= 1
    # The one-call function is trained after the diffusion model.
    assert metrics["train_seconds/clouds"] > metrics["train_seconds/clouds_teacher"]
    # CaloClouds has the response of its flow of numbers, with one call or many.
    found = [metrics[f"w1/{name}/response"] for name in ("clouds", "clouds_teacher")]
    assert found[0] == pytest.approx(found[1], rel=1e-2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--generators", "gan"), "generators must be of clouds, calodream"),
        (("--generators", "bib_ae", "bib_ae"), "generators must be different ones"),
        (("--layer-flows.block", 7, 4, 1), "cannot be cut into blocks"),
        (("--bib-ae.post.num", 37), "at most the 36 cells"),
        (("--num-test", 10), "num_test must be at least 40"),
        (("--clouds.geometry", "ds3"), "clouds.geometry must be ds2 here"),
        (("--clouds.no-distil",), "clouds.distil must be on"),
    ],
)
def test_bad_options(options, message, command):
    with pytest.raises(SystemExit, match=message):
        command("shower_generators", *options, "--dry-run")
