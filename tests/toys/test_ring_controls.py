"""Spoiled generators of a ring: their densities against their events."""

import jax
import numpy as np
import pytest

from jgen.toys import ring, ring_controls, true_events


def test_spoiled_events_have_the_stated_ratio():
    """Over events of a spoiled generator the mean of p_true / p is one, but for its norm."""
    toy, params = ring(2), {"mean": 1.0, "width": 0.1}
    events = true_events(toy, jax.random.key(0), 20_000)
    shifted = events * (1 + 0.02 / np.linalg.norm(events, axis=1))[:, None]
    thinned = events[~(ring_controls.in_sector(events) & (np.arange(len(events)) % 10 == 0))]
    for name, sample, norm in (("shifted", shifted, 1.0), ("thinned", thinned, 1 / 0.975)):
        ratio = np.exp(ring_controls.spoiled_log_ratios(toy, params, name, {"x": sample})["x"])
        error = ratio.std() / len(ratio) ** 0.5
        assert abs(ratio.mean() - norm) < 4 * error, name
        assert error < 0.01
    assert ring_controls.in_sector(events).mean() == pytest.approx(0.25, abs=0.015)
