"""Events from columns of several libraries, and ROOT files: the same numbers on every way."""

import jax.numpy as jnp
import numpy as np
import pytest

from jgen import Batch, columns
from jgen.columns import read_root, to_batch, to_columns, write_root
from jgen.sets import SetCondition

NAMES = ("pt", "eta", "phi")
LENGTHS = np.array([2, 0, 3, 1])


@pytest.fixture
def flat():
    rng = np.random.default_rng(0)
    made = {name: rng.normal(size=5) for name in NAMES}
    return made | {"label": np.arange(5), "weight": rng.normal(size=5)}


def ragged():
    rng = np.random.default_rng(1)
    return {name: [rng.normal(size=k).astype(np.float32) for k in LENGTHS] for name in NAMES}


def structured(data):
    made = np.zeros(5, [(name, np.asarray(column).dtype) for name, column in data.items()])
    for name, column in data.items():
        made[name] = column
    return made


def same(found: Batch, expected: Batch):
    np.testing.assert_array_equal(found.x, expected.x)
    np.testing.assert_array_equal(found.cond, expected.cond)
    np.testing.assert_array_equal(found.weight, expected.weight)
    assert found.cond.dtype == expected.cond.dtype


def test_all_kinds_of_flat_columns_give_the_same_batch(flat):
    x = np.stack([flat[name] for name in NAMES], axis=1)
    expected = Batch(x, np.arange(5), flat["weight"])
    awkward, pandas = pytest.importorskip("awkward"), pytest.importorskip("pandas")
    for data in (
        flat, {name: jnp.asarray(c) for name, c in flat.items()} | flat, structured(flat),
        {name: list(column) for name, column in flat.items()}, awkward.Array(flat),
        pandas.DataFrame(flat), pandas.DataFrame(flat, index=[5, 5, 2, 1, 0]),
    ):  # fmt: skip
        same(to_batch(data, cond="label", weight="weight"), expected)
    vector = to_batch(flat, NAMES[1:], cond=("label", "pt"))
    np.testing.assert_array_equal(vector.cond, np.stack([flat["label"], flat["pt"]], axis=1))
    np.testing.assert_array_equal(vector.x, x[:, 1:])
    assert vector.weight is None
    assert to_batch(flat, ("pt",)).cond is None
    wide = to_batch({"e": np.arange(6).reshape(2, 3), "f": [7.5, 8.5]}).x
    np.testing.assert_array_equal(wide, [[0, 1, 2, 7.5], [3, 4, 5, 8.5]])
    for name, column in to_columns(x, NAMES).items():
        np.testing.assert_array_equal(column, flat[name])


def test_ragged_columns_are_padded_with_their_number():
    awkward, pandas = pytest.importorskip("awkward"), pytest.importorskip("pandas")
    data, energy = ragged(), np.arange(4.0)
    expected = np.zeros((4, 3, 3), np.float32)
    for event, k in enumerate(LENGTHS):
        for column, name in enumerate(NAMES):
            expected[event, :k, column] = data[name][event]
    jets = awkward.zip({name: awkward.Array(column) for name, column in data.items()})
    nested = awkward.Array({"jet": jets, "energy": energy})
    inside = tuple(f"jet.{name}" for name in NAMES)
    for given, names, cond in (
        (data | {"energy": energy}, NAMES, "energy"),
        (pandas.DataFrame(data | {"energy": energy}), NAMES, ("energy",)),
        (nested, inside, "energy"),
        ({name: [list(row) for row in column] for name, column in data.items()}, NAMES, ()),
        (jets, NAMES, ()),
    ):
        batch = to_batch(given, names, cond=cond)
        np.testing.assert_array_equal(batch.x, expected)
        assert batch.x.dtype == np.float32
        assert isinstance(batch.cond, SetCondition)
        np.testing.assert_array_equal(batch.cond.n, LENGTHS)
        np.testing.assert_array_equal(batch.cond.cond, energy[:, None] if cond else None)
    few = to_batch(data, rows=2)
    np.testing.assert_array_equal(few.x, expected[:, :2])
    np.testing.assert_array_equal(few.cond.n, [2, 0, 2, 1])
    back = to_columns(expected, NAMES, LENGTHS)
    for name in NAMES:
        assert back[name].tolist() == [row.tolist() for row in data[name]]


def test_what_is_no_events_is_refused(flat):
    awkward = pytest.importorskip("awkward")
    sets = ragged()
    uneven = sets | {"eta": sets["eta"][::-1]}
    missing = awkward.Array([{"a": 1.0}, {"a": None}])
    for message, data, options in (
        ("a frame of pandas, a dictionary of columns, .* got list; a plain", [1, 2], {}),
        ("got ndarray; a plain array", np.ones((3, 2)), {}),
        ("no column 'mass'; found pt, eta", flat, {"names": ("mass",)}),
        ("no column 'jet.x'", awkward.Array([{"jet": {"pt": 1.0}}]), {"names": ("jet.x",)}),
        ("no column is left", {"a": [1.0]}, {"cond": "a"}),
        ("as many events", {"a": [1.0, 2.0], "b": [1.0]}, {}),
        ("one at least", {"a": []}, {}),
        ("real numbers, got text", {"a": ["x", "y"]}, {}),
        ("are masked", missing, {}),
        ("are masked", awkward.Array([{"a": [1.0, None]}]), {}),
        (
            "a number or a list of them an event, got 1 [*] string",
            awkward.Array([{"a": "words"}]),
            {},
        ),
        ("got 1 [*] var [*] var", awkward.Array([{"a": [[1.0], []]}]), {}),
        ("a list of numbers an event", {"a": [[[1.0]], [[2.0]]]}, {}),
        ("rows are of sets", flat, {"rows": 3}),
        ("pt has a list an event and e a number", sets | {"e": np.ones(4)}, {}),
        ("pt and eta have lists of different lengths", uneven, {}),
        ("conditions and weights are numbers", sets, {"cond": "pt"}),
        ("points must be finite", {"a": [[np.nan], [1.0]]}, {}),
        ("has the shape", {"a": np.ones((2, 3, 4))}, {}),
        ("'pt' is there twice", flat, {"names": ("pt", "eta", "pt")}),
        ("rows must be a whole number", sets, {"rows": 2.5}),
        ("no event has a point", {"a": [[], []]}, {}),
        (r"names must be a list of names, got 'pt'; give \['pt'\]", flat, {"names": "pt"}),
        ("up to 16777217, which single", flat | {"id": np.arange(5) + 2**24 - 3}, {"cond": ["id"]}),
        ("16777219, which single", sets | {"id": np.arange(4) + 2**24}, {"cond": "id"}),
    ):
        with pytest.raises(ValueError, match=message):
            to_batch(data, **options)
    with pytest.raises(ValueError, match=r"x must be \[events, columns\] with 2 columns"):
        to_columns(np.ones((3, 3)), ("a", "b"))
    labels = np.arange(5) + 2**24  # of one alone the type is kept
    assert to_batch(flat | {"id": labels}, ["pt"], cond="id").cond.tolist() == labels.tolist()
    with pytest.raises(ValueError, match="must be a list of names, got 'ab'"):
        to_columns(np.ones((3, 2)), "ab")
    with pytest.raises(ValueError, match="'a' is there twice"):
        to_columns(np.ones((3, 2)), ("a", "a"))
    with pytest.raises(ValueError, match="from 0 to 3"):
        to_columns(np.ones((1, 3, 1)), ("a",), np.array([4]))


def test_root_files_keep_events(flat, tmp_path):
    uproot = pytest.importorskip("uproot")
    awkward = pytest.importorskip("awkward")
    path, sets = tmp_path / "events.root", ragged()
    layers = np.arange(10, dtype=np.float32).reshape(5, 2)
    write_root(path, flat | {"layers": layers})
    back = read_root(path)
    assert sorted(back) == sorted([*flat, "layers"])
    for name, column in (flat | {"layers": layers}).items():
        assert back[name].dtype == column.dtype
        np.testing.assert_array_equal(back[name], column)
    x = to_batch(sets).x
    write_root(path, to_columns(x, NAMES, LENGTHS) | {"energy": np.ones(4)}, "jets")
    back = read_root(path, "jets")
    assert sorted(back) == ["energy", "eta", "phi", "pt"]
    batch = to_batch(back, NAMES, cond=("energy",))
    np.testing.assert_array_equal(batch.x, x)
    np.testing.assert_array_equal(batch.cond.n, LENGTHS)
    np.testing.assert_array_equal(batch.cond.cond, np.ones((4, 1)))
    write_root(tmp_path / "half.root", {"x": np.float16([0.5, 2])})
    assert read_root(tmp_path / "half.root")["x"].tolist() == [0.5, 2]
    with uproot.open(path) as file:  # what others see
        assert file["jets"].num_entries == 4
        assert awkward.num(file["jets"]["pt"].array()).tolist() == LENGTHS.tolist()
    assert list(read_root(path, names=("energy",))) == ["energy"]
    pandas = pytest.importorskip("pandas")
    write_root(path, pandas.DataFrame({"p t": [0.5, 2]}), "jets/first")
    assert read_root(path)["p t"].tolist() == [0.5, 2]


def test_root_files_that_are_none(tmp_path):
    uproot = pytest.importorskip("uproot")
    path = tmp_path / "two.root"
    with uproot.recreate(path) as file:
        file.mktree("a", {"x": np.ones(3)})
        file.mktree("b", {"x": np.ones(3)})
    (tmp_path / "text.root").write_text("x,y")
    for message, options in (
        ("has 2 trees; found a, b", {}),
        ("no tree 'c'; found a, b", {"tree": "c"}),
        ("no branch 'y'; found", {"tree": "a", "names": ("y",)}),
    ):
        with pytest.raises(ValueError, match=message):
            read_root(path, **options)
    with pytest.raises(ValueError, match="no readable ROOT file"):
        read_root(tmp_path / "text.root")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_root(tmp_path / "none.root")
    before = path.read_bytes()
    write_root(tmp_path / "text.root", {"x": np.arange(500.0)})
    damaged = bytearray((tmp_path / "text.root").read_bytes())
    with uproot.open(tmp_path / "text.root") as file:
        start = file["events/x"].basket_key(0).fSeekKey
    damaged[start + 200] ^= 255  # in the compressed numbers
    (tmp_path / "text.root").write_bytes(damaged)
    with pytest.raises(ValueError, match="events is damaged"):
        read_root(tmp_path / "text.root")
    for message, bad in (
        ("as many events", {"a": np.ones(2), "b": np.ones(3)}),
        ("real numbers", {"a": np.array(["x"])}),
        ("a dictionary of name -> array", {}),
        ("a dictionary of name -> array, .* got ndarray", np.ones(3)),
        ("need names, got 3", {3: np.ones(3)}),
        ("need names, got ''", {"": np.ones(3)}),
    ):
        with pytest.raises(ValueError, match=message):
            write_root(path, bad)
    with pytest.raises(ValueError, match="must be a list of names, got 'x'"):
        read_root(path, names="x")
    with pytest.raises(ValueError, match="the cycle of a tree"):
        write_root(path, {"x": np.ones(3)}, "events;2")
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["text.root", "two.root"]


def test_what_is_not_installed_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "uproot", None)
    with pytest.raises(ValueError, match=r'needs uproot: pip install "jgen\[hep\]"'):
        columns.read_root("events.root")
