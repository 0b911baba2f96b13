import sys

import h5py
import jax
import numpy as np
import pytest

from jgen.jets import (
    check_constituents,
    draw_multiplicities,
    finished,
    from_columns,
    jet_kinematics,
    jet_sample,
    mean_image,
    point_map,
    read_jetnet,
    read_jets,
    sample_jets_path,
    to_columns,
    write_jetnet,
    write_jets,
)
from jgen.sets import SetCondition
from jgen.sets import points as points_of_events


@pytest.fixture(scope="module")
def jets():
    return read_jets(sample_jets_path())


def test_the_bundled_jets_are_what_the_readme_says(jets):
    two = jets.of("top", "gluon")
    assert two.classes == ("top", "gluon")
    np.testing.assert_array_equal(np.bincount(two.labels), [6688, 6625])
    assert jets.points.shape == (13313, 30, 3)
    assert jets.jets[:, 0].min() > 500
    there = np.arange(30) < jets.n[:, None]
    assert set(np.unique(jets.pid[there])) == {1, 2, 3, 4, 5}
    charged = np.isin(jets.pid, (1, 4, 5))
    assert ((np.abs(jets.charge) == 1) == charged).all()
    assert (jets.impact[~charged] == 0).all()
    # Half of the constituents, nine tenths of pT, and most of the top's mass.
    assert jets.total.mean() == pytest.approx(60, abs=1)
    assert jets.points[..., 2].sum(axis=1).mean() == pytest.approx(0.93, abs=0.01)
    top = two.take(two.labels == 0)
    masses = np.asarray(jax.vmap(jet_kinematics)(top.points))[:, 3] * top.jets[:, 0]
    assert np.median(masses) == pytest.approx(155, rel=0.02)
    displaced = [(np.abs(two.impact[two.labels == k, :, 0]) > 0.1).mean() for k in (0, 1)]
    assert displaced[0] > 2 * displaced[1]


def test_files_come_back_as_they_were(jets, tmp_path):
    some = jets.of("top", "gluon").take(slice(0, 50))
    write_jets(tmp_path / "jets.h5", some)
    back = read_jets(tmp_path / "jets.h5", rows=20).of("top", "gluon")
    for name, value in some.leading(20)._asdict().items():
        np.testing.assert_array_equal(getattr(back, name), value, err_msg=name)

    write_jetnet(tmp_path / "t.hdf5", some)
    with h5py.File(tmp_path / "t.hdf5") as file:
        mask = file["particle_features"][..., 3]
        np.testing.assert_array_equal(file["jet_features"][:, 3], mask.sum(axis=1))
    both = read_jetnet({"t": tmp_path / "t.hdf5", "g": tmp_path / "t.hdf5"})
    np.testing.assert_array_equal(both.labels, np.repeat([0, 1], 50))
    np.testing.assert_array_equal(both.points[50:], some.points)
    np.testing.assert_array_equal(both.jets[:50, [0, 1, 3]], some.jets[:, [0, 1, 3]])


def test_columns_go_through_awkward_arrays(jets):
    awkward = pytest.importorskip("awkward")
    some = jets.take(slice(0, 40))
    # Rounded momenta are equal here and there, and equal ones have no order.
    order = 1 - 1e-4 * np.arange(30, dtype=np.float32)[:, None]
    some = some._replace(points=some.points * np.concatenate([np.ones((30, 2)), order], axis=1))
    some = some._replace(points=some.points.astype(np.float32))
    columns = to_columns(some)
    total = awkward.sum(columns["part_px"], axis=1)
    exact = np.asarray(jax.vmap(jet_kinematics)(some.points))
    px = exact[:, 0] * some.jets[:, 0] * np.cos(exact[:, 2] + some.jets[:, 2])
    np.testing.assert_allclose(np.asarray(total), px, rtol=1e-4, atol=0.02)
    # In another order of particles, and as lists of arrays.
    shuffled = {
        name: column[:, ::-1] if name.startswith("part_") else column
        for name, column in columns.items()
    }
    lists = {name: [np.asarray(row) for row in column] for name, column in columns.items()}
    for given in (shuffled, lists):
        back = from_columns(given)
        np.testing.assert_allclose(back.points, some.points, atol=2e-6)
        np.testing.assert_allclose(back.jets, some.jets, rtol=1e-4)
        for name in ("n", "labels", "classes"):
            np.testing.assert_array_equal(getattr(back, name), getattr(some, name))
        np.testing.assert_array_equal(back.pid, some.pid)
        np.testing.assert_array_equal(back.charge, some.charge)
        np.testing.assert_allclose(back.impact, some.impact, rtol=1e-6)


def test_bad_jets_are_refused(jets, tmp_path, monkeypatch):
    some = jets.take(slice(0, 5))
    bad = {
        "rows with pT are others": some._replace(n=some.n - 1),
        "need": some._replace(pid=some.pid[:, :4]),
        "not finite": some._replace(impact=some.impact * np.nan),
        "labels must be 0 to": some._replace(labels=some.labels + 6),
        "must be relative": some._replace(points=some.points * np.float32(600)),
        "no more of them than total": some._replace(total=some.n - 1),
    }
    for said, broken in bad.items():
        with pytest.raises(ValueError, match=said):
            check_constituents(broken)
    with pytest.raises(ValueError, match="classes must be of gluon, .*'b'"):
        jets.of("b")
    with pytest.raises(ValueError, match="at least one constituent"):
        jets.leading(0)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["kin"] = np.zeros((3, 4, 3))
    with pytest.raises(ValueError, match="'jet' is missing"):
        read_jets(tmp_path / "other.h5")
    with pytest.raises(ValueError, match="'particle_features' is missing"):
        read_jetnet({"g": tmp_path / "other.h5"})
    with pytest.raises(ValueError, match="bits must be"):
        write_jets(tmp_path / "none.h5", some, bits=12)
    columns = {"part_px": [[1.0]]}
    with pytest.raises(ValueError, match="part_py, .* are missing"):
        from_columns(columns)
    # Columns with as many particles in all, but of other jets.
    particles = {name: [[1.0, 2.0], [3.0]] for name in ("part_px", "part_py", "part_pz")}
    whole = dict.fromkeys(("jet_pt", "jet_eta", "jet_phi", "jet_energy", "label_g"), [1.0, 1.0])
    for name, column in (("part_charge", [[1.0], [1.0, -1.0]]), ("jet_phi", [1.0])):
        with pytest.raises(ValueError, match=f"{name} must have as many entries as part_px, 2 je"):
            from_columns(particles | whole | {name: column})
    monkeypatch.setitem(sys.modules, "awkward", None)
    with pytest.raises(ValueError, match="pip install awkward"):
        to_columns(some)


def test_points_are_mapped_to_width_one_and_back(jets):
    some = jets.take(slice(0, 200)).leading(25)
    bijector = point_map(some.points, some.n)
    cond = SetCondition(some.n)
    z, log_det = jax.vmap(bijector.forward)(some.points, cond)
    there = np.asarray(z)[np.arange(25) < some.n[:, None]]
    np.testing.assert_allclose(there.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(there.std(axis=0), 1, rtol=1e-4)
    back, inverse = jax.vmap(bijector.inverse)(z, cond)
    np.testing.assert_allclose(back, some.points, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(log_det, -inverse, rtol=1e-5)
    # The determinant of one point, by differentiation.
    point, one = some.points[:1, :1].reshape(1, 3), SetCondition(np.int32(1))
    slope = jax.jacobian(lambda x: bijector.forward(x, one)[0])(point).reshape(3, 3)
    exact = np.log(np.abs(np.linalg.det(slope)))
    np.testing.assert_allclose(bijector.forward(point, one)[1], exact, rtol=1e-4)
    with pytest.raises(ValueError, match="need a positive pT"):
        point_map(some.points * 0, some.n)


def test_multiplicities_follow_the_density_of_their_class():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 4000)
    total = np.where(labels == 0, rng.poisson(20, 8000), rng.poisson(50, 8000))
    wanted = np.repeat([1, 0], 4000)
    n = draw_multiplicities(total, labels, wanted, jax.random.key(1), 55)
    assert n[wanted == 0].mean() == pytest.approx(20, abs=0.3)
    exact = np.minimum(total[labels == 1], 55)
    assert n[wanted == 1].mean() == pytest.approx(exact.mean(), abs=0.3)
    assert n.max() == 55
    assert (
        draw_multiplicities(np.full(9, 4), labels[:9], labels[:3], jax.random.key(1), 9) == 4
    ).all()
    with pytest.raises(ValueError, match="class 2 needs two training jets"):
        draw_multiplicities(total, labels, np.array([2]), jax.random.key(1), 55)


def test_generated_points_are_finished_as_published():
    points = np.array([[[0.01, 0.02, 0.3], [0.03, -0.02, 9.0], [9, 9, 9]]] * 2, np.float32)
    points[1, 0, 2] = -0.1
    done = finished(points, np.array([2, 1]), (0.01, 1.0))
    np.testing.assert_array_equal(done[0, :2], points[0, [1, 0]] * [[1, 1, 1 / 9], [1, 1, 1]])
    assert done[1, 0, 2] == np.float32(0.01)
    assert (done[0, 2] == 0).all()
    assert (done[1, 1:] == 0).all()
    centred = finished(points, np.array([2, 1]), (0.01, 1.0), centre=True)
    axes = np.asarray(jax.vmap(jet_kinematics)(centred))[:, 1:3]
    np.testing.assert_allclose(axes, 0, atol=1e-3)


@pytest.mark.parametrize(
    ("n", "message"),
    [
        ([3, 1], "numbers of points must be from 0 to 2, got 1 to 3"),
        ([-1, 1], "numbers of points must be from 0 to 2, got -1 to 1"),
        ([2.0, 1.0], "2 events need as many whole numbers of points"),
        ([np.nan, 1.0], "2 events need as many whole numbers of points"),
        ([1], "2 events need as many whole numbers of points"),
        (np.ma.masked_equal([1, 2], 2), "1 of 2 entries of numbers of points are masked"),
    ],
    ids=str,
)
def test_numbers_of_points_that_no_jet_has_are_refused(n, message):
    x, n = np.full((2, 2, 3), 0.1, np.float32), n if np.ma.isMaskedArray(n) else np.array(n)
    for use in (
        jet_sample,
        point_map,
        points_of_events,
        lambda x, n: finished(x, n, (0.01, 1.0)),
    ):
        with pytest.raises(ValueError, match=message):
            use(x, n)


@pytest.mark.parametrize("label", [0.4, np.nan, 2.0, -1.0, 0.0])
def test_a_column_of_labels_is_one_or_zero(label):
    columns = {name: [[1.0, 2.0], [3.0]] for name in ("part_px", "part_py", "part_pz")}
    columns |= {"jet_pt": [4.0, 5.0], "jet_eta": [0.1, 0.2], "jet_phi": [0.1, 0.2]}
    columns |= {"jet_energy": [9.0, 9.0], "label_a": [1.0, 0.0], "label_b": [0.0, 1.0]}
    from_columns(columns)
    with pytest.raises(ValueError, match="every jet needs one label_NAME that is one"):
        from_columns(columns | {"label_b": [0.0, label]})


def test_images_hold_all_pt_inside():
    points = np.array([[[0.1, 0.1, 0.6], [-0.1, 0.1, 0.4]]] * 4, np.float32)
    image = mean_image(points, np.array([-0.2, 0.0, 0.2]))
    np.testing.assert_allclose(image, [[0, 0.4], [0, 0.6]], rtol=1e-6)
