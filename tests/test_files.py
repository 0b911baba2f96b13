"""Trees of arrays in one file: what comes back, and what is refused."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from jgen import Batch, Estimate, load, load_metadata, save
from jgen.files import read_json
from jgen.nets import mlp


class Own(NamedTuple):
    """A user's type, which a file may not import."""

    a: np.ndarray
    b: tuple


TREE = {
    "nested": ({"kernel": np.arange(6.0).reshape(2, 3)}, [np.float32(1.5), None, ()]),
    "names": ["adam", "flow"],
    "empty": {},
    "batch": Batch(np.ones((2, 1), np.float32), cond=np.arange(2)),
    "estimate": Estimate(0.5, 0.01),
    "step": 7,
    "mask": np.array([True, False]),
    "wave": np.array([1 + 2j]),
}


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if isinstance(x, str):
            assert x == y
        else:
            assert np.asarray(x).dtype == np.asarray(y).dtype
            np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def test_trees_come_back_as_they_were(tmp_path):
    path = tmp_path / "deep" / "tree.npz"
    save(path, TREE, metadata={"data": "moons", "steps": [1, 2]})
    same(load(path), TREE)
    assert load_metadata(path) == {"data": "moons", "steps": [1, 2]}
    assert [p.name for p in path.parent.iterdir()] == ["tree.npz"]
    for bare in (np.arange(3), None, "text", ()):
        save(path, bare)
        same(load(path), bare)


@pytest.mark.parametrize(
    "dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float16", "int4", "uint8", "float64"]
)
def test_types_of_jax_come_back(tmp_path, dtype):
    values = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, 4.0]]).astype(
        getattr(ml_dtypes, dtype, None) or dtype
    )
    path = tmp_path / "a.npz"
    save(path, {"a": jnp.asarray(values) if dtype != "float64" else values})
    same(load(path), {"a": values})
    same(load(path, {"a": values}), {"a": values})


def test_parameters_of_a_network_and_of_an_ensemble(tmp_path):
    network, path = mlp(2, 1, hidden=(3,)), tmp_path / "params.npz"
    params = network.init(jax.random.key(0))
    save(path, params)
    for like in (None, network, network.init, params):
        same(load(path, like), params)
    stacked = jax.vmap(network.init)(jax.random.split(jax.random.key(0), 4))
    save(path, stacked)
    same(load(path, network), stacked)


def test_own_types_need_a_template(tmp_path):
    path, tree = tmp_path / "own.npz", Own(np.ones(2), (np.zeros(3, int),))
    save(path, {"own": tree})
    with pytest.raises(ValueError, match=r"holds a Own of .*; give load\(path, like\) a model"):
        load(path)
    same(load(path, {"own": tree}), {"own": tree})


GOOD = {"a": {"kernel": np.zeros((2, 3), np.float32)}, "b": [np.zeros(4, np.float32), np.zeros(())]}


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"a": GOOD["a"]}, "has 'b/0', which the model has not"),
        (GOOD | {"c": np.zeros(1)}, "it has no 'c', which this one has"),
        (GOOD | {"a": {"bias": np.zeros(1)}}, "it has no 'a/bias'"),
        (
            GOOD | {"b": [np.zeros(5, np.float32), np.zeros(())]},
            r"'b/0' has shape \(4,\) and type float32, this one's \(5,\) and float32",
        ),
        (
            GOOD | {"b": [np.zeros(4, np.float16), np.zeros(())]},
            r"'b/0' has shape \(4,\) and type float32, this one's \(4,\) and float16",
        ),
        # An axis of members is one for all leaves.
        (GOOD | {"a": {"kernel": np.zeros(3, np.float32)}}, "'b/0' has shape"),
    ],
)
def test_another_tree_is_refused_by_its_first_path(tmp_path, like, message):
    path = tmp_path / "good.npz"
    save(path, GOOD)
    with pytest.raises(ValueError, match=message):
        load(path, like)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"key": jax.random.key(0)}, "key is a .* of PRNG keys; save arrays.*key_data"),
        ({"a": [1, object()]}, "a/1 is a object"),
        (lambda x: x, "params is a function"),
        ({"a": np.array(["x"])}, "a is an array of <U1; save numbers"),
        ({"a": {1: np.zeros(2)}}, "a has the key 1; keys must be strings"),
        ({"a": np.array([None])}, "a is an array of object"),
        ({"a": np.ma.masked_less(np.arange(3), 1)}, "1 of 3 entries of a are masked"),
    ],
)
def test_what_is_no_tree_of_numbers_is_refused(tmp_path, tree, message):
    with pytest.raises(ValueError, match=message):
        save(tmp_path / "a.npz", tree)
    with pytest.raises(ValueError, match="metadata must be what JSON can hold"):
        save(tmp_path / "a.npz", {}, metadata={"path": tmp_path})
    assert not list(tmp_path.iterdir())


def test_parameters_that_are_nan_are_refused(tmp_path):
    """What a damaged file holds would be drawn as events that are NaN."""
    save(tmp_path / "a.npz", {"a": np.ones(3), "b": np.array([1, 2])})
    like = load(tmp_path / "a.npz")
    save(tmp_path / "b.npz", like | {"a": np.array([1, np.nan, 1])})
    load(tmp_path / "a.npz", like)
    assert np.isnan(load(tmp_path / "b.npz")["a"][1])  # without a model they may mean something
    with pytest.raises(ValueError, match="damaged: .*a.* holds NaN"):
        load(tmp_path / "b.npz", like)


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path):
    (tmp_path / "runs").write_text("")
    for path in ("runs/a.npz", "runs/deeper/a.npz"):
        with pytest.raises(ValueError, match="runs.* is in the way of a folder; choose another"):
            save(tmp_path / path, {})


def test_a_file_that_was_cut_off_or_is_another_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    save(path, {"a": np.arange(1000)})
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    contents = (whole[: len(whole) // 2], whole[:10], b"", b"text", bytes(flipped), b"\x80\x04.")
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is no file of jgen.save, or was cut off"):
            load(path)
    headers = (b"[]", b"{}", b'{"tree": 3, "metadata": {}}', b"\xff", b"")
    headers += (b'{"tree": {"array": "b", "dtype": "float32"}, "metadata": {}}',)
    for header in headers:
        np.savez(path, a=np.zeros(2), __tree__=np.frombuffer(header, np.uint8))
        for like in (None, {"a": np.zeros(2)}):
            with pytest.raises(ValueError, match="is no file of jgen.save"):
                load(path, like)
    np.savez(path, a=np.zeros(2))
    with pytest.raises(ValueError, match="is no file of jgen.save"):
        load_metadata(path)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "b.npz")


def test_a_damaged_json_file_is_named_with_what_to_do(tmp_path):
    path = tmp_path / "record.json"
    for content, why in ((b"", "it is empty"), (b"{", "Expecting"), (b"\xff\xfe", "utf-8")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"record.json is damaged \(.*{why}.*; delete it"):
            read_json(path, "delete it")
    path.write_text("[1]")
    with pytest.raises(ValueError, match=r"record.json is damaged \(it holds a list, no object\)"):
        read_json(path)
