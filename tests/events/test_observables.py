"""Observables of events against the library `vector`."""

import numpy as np
import pytest

from jgen.events import (
    event_features,
    event_observables,
    observable_label,
    particle_names,
    read_events,
)

vector = pytest.importorskip("vector")


def test_observables_are_those_of_the_library():
    events = read_events(num_jets=1)[:30].astype(float)
    found = event_observables(events)
    p = vector.array(dict(zip(("E", "px", "py", "pz"), np.moveaxis(events, -1, 0), strict=True)))
    top, w = p[:, 3] + p[:, 4] + p[:, 5], p[:, 1] + p[:, 2]
    both = p[:, 0] + w + top
    exact = {
        "m_tt": both.mass, "pt_tt": both.pt, "m_tbar": top.mass, "m_W+": w.mass, "pt_W+": w.pt,
        "pt_j1": p[:, 6].pt, "m_b2": p[:, 3].mass, "dr_q1_j1": p[:, 1].deltaR(p[:, 6]),
    }  # fmt: skip
    for name, values in exact.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6, atol=1e-4, err_msg=name)
    assert len(found) == 2 * 5 + 2 * 7 + 21


def test_classifiers_see_59_numbers_of_six_particles():
    events = read_events()[:20]
    features = event_features(events)
    assert features.shape == (20, 59)
    observed = event_observables(events)
    np.testing.assert_allclose(features[:, 0], observed["pt_b1"])
    np.testing.assert_allclose(features[:, -5], observed["m_tt"])
    np.testing.assert_allclose(features[:, 24], observed["dr_b1_q1"])


def test_names_and_labels():
    assert particle_names(8) == ("b1", "q1", "q2", "b2", "q3", "q4", "j1", "j2")
    assert observable_label("m_tt") == r"$m(t\bar{t})$ [GeV]"
    assert observable_label("dr_b1_q1") == r"$\Delta R(b_1,q_1)$"
    assert observable_label("pt_W+") == "$p_T(W^+)$ [GeV]"


@pytest.mark.parametrize("name", ["foo", "phi_b1", "m", "dr_b1", "m_"])
def test_labels_are_of_observables(name):
    with pytest.raises(ValueError, match="such as m_tt"):
        observable_label(name)


def test_fewer_particles_are_no_top_pair():
    with pytest.raises(ValueError, match="6 particles at least, got 5"):
        event_observables(read_events()[:3, :5])
