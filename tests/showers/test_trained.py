"""The generator that comes with the package makes showers like Geant4's, and has a card."""

import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from jgen import showers
from jgen.showers import get_geometry, read_showers, sample_path

DS2 = get_geometry("ds2")


@pytest.fixture(scope="module")
def trained():
    return showers.pretrained("electrons-ds2")


def test_its_showers_have_the_response_hits_and_profiles_of_geant4(trained):
    true = read_showers(sample_path(), DS2, 0, 400)
    made = trained.draw(jax.random.key(0), true.energies)
    mean = lambda a: (a.mean(axis=0), a.std(axis=0) / np.sqrt(len(a)))
    numbers = {
        "response": lambda s: s.voxels.sum(axis=1) / s.energies,
        "hits": lambda s: np.sum(s.voxels > 0, axis=1) / np.sqrt(s.energies),
        "layers": lambda s: s.voxels.reshape(-1, 9, 720).sum(axis=2) / s.energies[:, None],
        "rings": lambda s: s.voxels.reshape(-1, 720, 9).sum(axis=1) / s.energies[:, None],
    }
    for name, number in numbers.items():
        (a, da), (b, db) = mean(number(true)), mean(number(made))
        # Errors are of 400 showers each; a bias of 3 % of the mean is within what the card says.
        assert (abs(a - b) < 4 * np.hypot(da, db) + 0.03 * a).all(), name


def test_it_is_found_by_its_name_and_others_are_refused(trained):
    again = showers.load_trained("electrons-ds2")
    jax.tree.map(np.testing.assert_array_equal, dict(again.networks), dict(trained.networks))
    assert showers.PRETRAINED == ("electrons-ds2",)
    assert trained.energy_range == pytest.approx((1e3, 3e4), rel=1e-3)
    with pytest.raises(ValueError, match="name must be one of"):
        showers.pretrained("photons")
    with pytest.raises(ValueError, match="none of the generators .*: electrons-ds2"):
        showers.load_trained("nowhere")
    with pytest.raises(ValueError, match="name a run folder .*: electrons-ds2"):
        showers.load_trained("")
    with pytest.raises(ValueError, match="from 1.* MeV, those of the training sample"):
        trained.draw(jax.random.key(0), np.full(3, 1e5))


def test_a_folder_that_lacks_a_file_is_refused(tmp_path):
    folder = Path(showers.__file__).parent / "pretrained" / "electrons-ds2"
    for lacking in ("preprocessing.npz", "student/params.npz"):
        copy = tmp_path / lacking.replace("/", "-")
        shutil.copytree(folder, copy)
        (copy / lacking).unlink()
        with pytest.raises(ValueError, match=f"not finished its training .{lacking} is missing"):
            showers.load_trained(copy)


def test_the_weights_are_small_and_have_a_card():
    folder = Path(showers.__file__).parent / "pretrained" / "electrons-ds2"
    assert sum(p.stat().st_size for p in folder.rglob("*.*")) < 12e6
    card = (folder / "README.md").read_text()
    for word in ("Trained on", "Command", "Licence", "auc_high", "truth"):
        assert word in card, word
