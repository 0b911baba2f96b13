"""The study of particles: what it hands to its models, and files it cannot use."""

import numpy as np
import pytest

from experiments.jets import particles
from jgen.jets import particle_map, read_jets, sample_jets_path, write_jets

pytestmark = pytest.mark.study


def test_one_hot_events_are_the_jets_again():
    jets, _ = particles.inputs(particles.SMOKE)
    scale = particle_map(jets)
    points = particles.one_hot(scale.forward(jets), jets.n)
    there = np.arange(6) < jets.n[:, None]
    np.testing.assert_array_equal(points[..., 5:].sum(axis=-1), there)
    # The largest counts, whatever it is.
    points[..., 5:] = 0.3 * points[..., 5:] - 2
    back = scale.inverse(particles.from_one_hot(points), jets)
    np.testing.assert_array_equal(back.pid, jets.pid)
    np.testing.assert_array_equal(back.charge, jets.charge)
    np.testing.assert_allclose(back.impact, jets.impact, rtol=1e-4, atol=1e-5)


def test_files_without_particles_are_refused(command, tmp_path):
    jets = read_jets(sample_jets_path()).of("gluon", "top").take(slice(0, 4000))
    write_jets(tmp_path / "jets.h5", jets._replace(pid=None))
    for options, said in (
        (("--data", tmp_path / "jets.h5"), "no kinds, charges and impact parameters"),
        (("--classes", "gluon", "W"), "a class has 0 jets"),
        (("--modes", "masks"), "modes must be of jumps, one-hot"),
        (("--impact-unit", 0), "impact_unit must be positive"),
    ):
        with pytest.raises(SystemExit, match=said):
            command("particles", "--out", tmp_path / "none", *options)
    assert not (tmp_path / "none").exists()
