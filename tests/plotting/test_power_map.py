import numpy as np
import pytest

from jgen.plotting import power_map, save

POWERS = {"turned": np.array([[0.0, 1.0], [0.25, 0.5]]), "dropped": np.array([[0.05], [0.1]])}
SIZES = {"turned": ["1%", "3%"], "dropped": ["10%"]}


def test_cells_hold_the_powers_in_per_cent(tmp_path):
    figure = power_map(POWERS, ["first", "second"], SIZES, title="Faults")
    turned, dropped = figure.axes
    assert [text.get_text() for text in turned.texts] == ["0", "100", "25", "50"]
    assert [text.get_text() for text in dropped.texts] == ["5", "10"]
    np.testing.assert_array_equal(turned.images[0].get_array(), POWERS["turned"])
    assert [label.get_text() for label in turned.get_yticklabels()] == ["first", "second"]
    assert [label.get_text() for label in dropped.get_xticklabels()] == ["10%"]
    save(figure, tmp_path / "a")


def test_labels_have_to_fit():
    with pytest.raises(ValueError, match=r"powers of 'turned' have shape \(2, 2\), not \(3, 2\)"):
        power_map(POWERS, ["a", "b", "c"], SIZES)
