"""Layer flows and a BIB-AE are found again in their run folders, and draw what they drew."""

import dataclasses
import pickle

import jax
import numpy as np
import pytest

from jgen.showers import Showers, bib_ae, layer_flows
from jgen.showers.bib_ae import AutoencoderConfig, BibAeConfig, FlowsConfig, PostConfig
from jgen.showers.layer_flows import CellsConfig, EnergyConfig, LayerFlowsConfig
from jgen.training import RunFolder, TrainConfig

RNG = np.random.default_rng(0)
ENERGIES = RNG.uniform(1e3, 4e3, 60).astype(np.float32)
KEY = jax.random.key(3)
SHORT = TrainConfig(2, 8, validate_every=1, keep="best")


def some_showers(cells):
    """Of a random 30 % of the cells, with all of the energy."""
    voxels = RNG.lognormal(0, 3, (60, cells)) * (RNG.random((60, cells)) < 0.3)
    voxels *= (0.9 * ENERGIES / voxels.sum(axis=1))[:, None]
    return Showers(ENERGIES, voxels.astype(np.float32))


@pytest.fixture(scope="module")
def flows(tmp_path_factory):
    config = LayerFlowsConfig(
        block=(15, 8, 3), copies=2, num_validation=20, energies=EnergyConfig(1, 4, (4,)),
        cells=CellsConfig("autoregressive", 1, (4, 2), 1, 4, (4,)),
        energy_training=SHORT, cell_training=SHORT, student_training=SHORT,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("runs") / "flows"
    with RunFolder(folder, config) as run:
        return folder, layer_flows.train(config, some_showers(45 * 16 * 9), run)


@pytest.fixture(scope="module")
def coder(tmp_path_factory):
    short = dataclasses.replace(SHORT, keep="last")
    config = BibAeConfig(
        AutoencoderConfig(2, (8,), (4,), (4,), training=short),
        FlowsConfig(1, (4,), SHORT, SHORT),
        PostConfig((4,), num=24, window=8, stride=8, training=short, sorted_training=short),
    )
    folder = tmp_path_factory.mktemp("runs") / "coder"
    showers = some_showers(24)
    with RunFolder(folder, config) as run:
        options = {"validation": showers, "threshold": 20.0}
        return folder, bib_ae.train(config, (2, 3, 4), showers, run, **options), showers


def test_layer_flows_are_loaded_as_they_were_trained(flows):
    folder, trained = flows
    again = layer_flows.load(folder)
    jax.tree.map(np.testing.assert_array_equal, dict(again.networks), dict(trained.networks))
    assert set(again.networks) == {"energies", "teacher", "student"}
    first, second = (t.draw(KEY, ENERGIES[:3]) for t in (trained, again))
    np.testing.assert_array_equal(first.voxels, second.voxels)
    assert first.voxels.shape == (3, trained.geometry.num_voxels) == (3, 3 * 2 * 3)
    # The first showers, without those to validate on, fit the scales.
    assert trained.energy_range == (ENERGIES[:40].min(), ENERGIES[:40].max())


def test_a_bib_ae_is_loaded_as_it_was_trained(coder):
    folder, trained, _ = coder
    again = bib_ae.load(folder)
    jax.tree.map(np.testing.assert_array_equal, dict(again.networks), dict(trained.networks))
    first, second = (t.draw(KEY, ENERGIES[:3]) for t in (trained, again))
    np.testing.assert_array_equal(first.voxels, second.voxels)
    assert ((first.voxels == 0) | (first.voxels >= 20 * (1 - 1e-5))).all()


def test_a_bib_ae_makes_the_energy_that_its_response_drew(coder):
    """With the same key, those of all samplers and of the response's flow alone."""
    _, trained, showers = coder
    logs = bib_ae.logarithms(showers)
    np.testing.assert_allclose(trained.statistics.centre, logs.mean(axis=0))
    log_energy = (np.log(ENERGIES[0]) - logs[:, 0].mean()) / logs[:, 0].std()
    key = jax.random.split(KEY)[0]
    response = bib_ae.response_model().sample(
        trained.networks["response"], key, np.float32([log_energy])
    )
    wanted = ENERGIES[0] * np.exp(response[0] * logs[:, 1].std() + logs[:, 1].mean())
    for name in bib_ae.SAMPLERS:
        one = trained.with_sampler(name)
        cells, free = one.cells_and_free(one.params, KEY, ENERGIES[0])
        np.testing.assert_allclose(cells.sum(), wanted, rtol=1e-4)
        assert free > 0


@pytest.mark.parametrize("module", [layer_flows, bib_ae])
def test_unfinished_folders_and_energies_beyond_the_training_are_refused(
    module, flows, coder, tmp_path
):
    folder, trained, *_ = flows if module is layer_flows else coder
    (tmp_path / module.CONFIG).write_text((folder / module.CONFIG).read_text())
    with pytest.raises(ValueError, match="not finished its training .*npz is missing"):
        module.load(tmp_path)
    for energies in ([9e3], [], [np.nan], [[2e3]]):
        with pytest.raises(ValueError, match="energies must be"):
            trained.draw(KEY, np.array(energies))
    with pytest.raises(ValueError, match="sampler must be one of"):
        trained.with_sampler("none")


def test_a_model_that_has_drawn_can_be_sent_to_other_processes(flows, coder):
    for _, trained, *_ in (flows, coder):
        first = trained.draw(KEY, ENERGIES[:3])
        again = pickle.loads(pickle.dumps(trained))
        assert again.__dict__.keys() == {f.name for f in dataclasses.fields(trained)}
        assert again.config == trained.config
        jax.tree.map(np.testing.assert_array_equal, dict(again.networks), dict(trained.networks))
        assert np.isfinite(first.voxels).all()


def test_showers_that_cannot_be_trained_on_are_refused(flows, coder, tmp_path):
    _, trained = flows
    few = Showers(*(a[:21] for a in some_showers(45 * 16 * 9)))
    with RunFolder(tmp_path / "a", trained.config) as run, pytest.raises(ValueError, match="few"):
        layer_flows.train(trained.config, few, run)
    _, trained, showers = coder
    empty = showers._replace(voxels=np.zeros_like(showers.voxels))
    with RunFolder(tmp_path / "b", trained.config) as run:
        with pytest.raises(ValueError, match="60 of 60 showers have no energy"):
            bib_ae.train(trained.config, (2, 3, 4), empty, run, validation=showers)
        with pytest.raises(ValueError, match="must have 36 cells each"):
            bib_ae.train(trained.config, (3, 3, 4), showers, run, validation=showers)
    with pytest.raises(ValueError, match="copies must be a whole number from 1"):
        LayerFlowsConfig(copies=0).check()
    with pytest.raises(ValueError, match="scale must be positive"):
        BibAeConfig(scale=0.0).check()


def test_a_folder_keeps_its_showers_and_options(flows, coder, tmp_path):
    """What a first try has left behind must not go with other data or options."""
    folder, trained, showers = coder
    with RunFolder(folder, trained.config) as run:
        options = {"validation": showers, "threshold": 20.0}
        train = lambda config=trained.config, shape=(2, 3, 4), **other: bib_ae.train(
            config, shape, showers, run, **options | other
        )
        assert train().statistics.threshold == 20
        for other, message in (
            ({"threshold": 30.0}, "another sample .threshold: 20.0 -> 30.0"),
            ({"shape": (4, 3, 2)}, "another sample .shape"),
            ({"validation": Showers(*(a[:30] for a in showers))}, "another sample .validation"),
            ({"config": dataclasses.replace(trained.config, scale=3.0)}, "scale: 10.0 -> 3.0"),
        ):
            with pytest.raises(ValueError, match=message):
                train(**other)
    assert bib_ae.load(folder).config.scale == 10
    folder, trained = flows
    with RunFolder(folder, trained.config) as run:
        with pytest.raises(ValueError, match="another sample .showers"):
            layer_flows.train(trained.config, some_showers(45 * 16 * 9), run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: Showers(s.energies / 1e3, s.voxels), "look like GeV"),
        (lambda s: Showers(s.energies, s.voxels / 1e3), "look like voxels in GeV"),
        (lambda s: Showers(s.energies, -s.voxels), "is negative"),
        (lambda s: Showers(s.energies, s.voxels * np.nan), "is nan; remove showers"),
        (
            lambda s: Showers(0 * s.energies + 2e3, s.voxels),
            "60 showers have the incident energy 2",
        ),
        (lambda s: Showers(s.energies[:5], s.voxels), "do not belong together"),
        (lambda s: tuple(s), r"must be Showers.energies, voxels., got tuple"),
        (lambda s: None, r"must be Showers.energies, voxels., got NoneType"),
    ],
)
def test_bad_showers_are_refused_before_anything_is_written(change, message, coder, tmp_path):
    _, trained, showers = coder
    with RunFolder(tmp_path / "run", trained.config) as run:
        before = set(run.path.iterdir())
        with pytest.raises(ValueError, match=message):
            bib_ae.train(trained.config, (2, 3, 4), change(showers), run, validation=showers)
        if "incident energy" not in message:
            with pytest.raises(ValueError, match=message):
                bib_ae.train(trained.config, (2, 3, 4), showers, run, validation=change(showers))
        assert set(run.path.iterdir()) == before


def test_bad_options_of_a_bib_ae_are_refused_before_it_is_trained(coder, tmp_path):
    _, trained, showers = coder
    config = dataclasses.replace(trained.config, post=PostConfig((4,), num=25, window=8))
    with RunFolder(tmp_path / "run", config) as run:
        train = lambda config, shape: bib_ae.train(config, shape, showers, run, validation=showers)
        with pytest.raises(ValueError, match="at most the 24 cells.*choose PostConfig.num"):
            train(config, (2, 3, 4))
        none = dataclasses.replace(config, post=PostConfig((4,), num=0, window=8))
        with pytest.raises(ValueError, match="at most the 24 cells .* got 8 and 0"):
            train(none, (2, 3, 4))
        with pytest.raises(ValueError, match="layers and two more numbers of cells"):
            train(trained.config, (4, 6))
        one = dataclasses.replace(SHORT, batch_size=1)
        coder_config = dataclasses.replace(trained.config.autoencoder, training=one)
        with pytest.raises(ValueError, match="batch_size must be at least 2"):
            train(dataclasses.replace(trained.config, autoencoder=coder_config), (2, 3, 4))
