"""L2LFlows (2302.11594, 2405.20407) and CaloFlow's student (2210.14245): the models.

p(shower | E) = p(E_1 ... E_L | E) prod_n p(I_n | I_{n-5} ... I_{n-1}, E_n, E): an autoregressive
flow of the energies of the layers and a flow of the cells of each, autoregressive or of
convolutional couplings, with rational-quadratic splines. Together they are one `GenerativeModel` of
showers [layers, angles, radii] in MeV given the incident energy in MeV, whose `log_prob` is the
exact sum of all parts.

Deviations: cells are shared out of the layer's energy by a recursion (`preprocessing`), so that a
layer's cells are one number less and its energy is conserved by construction, where the published
flows have as many numbers as cells, a thin density around the layer's energy, and are scaled
afterwards; smaller networks; cells below the threshold are not shown to the next layers, being
noise; no map of the spectrum of cells at the end.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jgen import bijectors, nets
from jgen.bijectors import TrainableBijector
from jgen.checks import check_depths, check_literals, check_sizes, check_widths
from jgen.generative_model import Batch, GenerativeModel, SampleFunction, loss_at, mean_loss
from jgen.models import flow, guided_loss
from jgen.models.guided_flow import Layers
from jgen.nets import Network
from jgen.showers.layer_flows.convolutional import convolutional_flow
from jgen.showers.layer_flows.preprocessing import LayerPreprocessing
from jgen.transforms import causal_layers, chain, preprocessed
from jgen.transforms.causal_layers import by_layer
from jgen.typing import Key, Params

_BOUND = 6.0
"""Of the splines: of energies in MeV all logarithms are within."""


@dataclass(frozen=True)
class EnergyConfig:
    """The flow of the energies of layers."""

    depth: int = 4
    """Autoregressive layers."""
    bins: int = 8
    """Of a spline."""
    hidden: tuple[int, ...] = (64,)
    """Widths of the network of a layer."""

    def check(self) -> None:
        """Refuse bad options."""
        check_depths(depth=self.depth)
        check_sizes(bins=self.bins)
        check_widths(1, hidden=self.hidden)


@dataclass(frozen=True)
class CellsConfig:
    """The flows of cells, one a layer of the calorimeter."""

    form: Literal["autoregressive", "convolutional"] = "autoregressive"
    """Of a flow; the second are couplings of the image of a layer."""
    before: int = 5
    """Layers before it that one is given."""
    embedding: tuple[int, ...] = (64, 32)
    """Widths of the network that makes a few numbers of these, or channels of few images."""
    depth: int = 4
    """Autoregressive layers, or couplings."""
    bins: int = 8
    """Of a spline."""
    hidden: tuple[int, ...] = (64,)
    """Widths, or channels, of the network of each."""

    def check(self) -> None:
        """Refuse bad options."""
        check_literals(self)
        check_depths(depth=self.depth)
        check_sizes(before=self.before, bins=self.bins)
        check_widths(1, hidden=self.hidden)
        check_widths(1, embedding=self.embedding)


class Parts(NamedTuple):
    """Models of one shower's parts.

    Attributes:
      energies: of layers [layers] in MeV given the incident energy in MeV.
      cells: [layers, cells] in MeV, in the order of `LayerPreprocessing.cells`, given the energies
        of the layers and the incident energy, each [layers].
    """

    energies: GenerativeModel
    cells: GenerativeModel


def parts(
    energies: EnergyConfig,
    cells: CellsConfig,
    preprocessing: LayerPreprocessing,
    *,
    student: bool = False,
) -> Parts:
    """Both models; a student has inverse autoregressive flows of cells, whose sample is one pass.

    The student's parameters have the shapes of its teacher's.
    """
    layers = preprocessing.geometry.num_layers
    first = preprocessed(
        flow(energies_flow(energies, preprocessing), layers),
        preprocessing.energy_map,
        lambda energy: preprocessing.energy(energy)[None],
    )
    one = layer_model(cells, preprocessing, student=student)
    return Parts(first, causal_layers(one, layers, preprocessing.num_cells, cells.before))


def layer_model(
    config: CellsConfig, preprocessing: LayerPreprocessing, *, student: bool = False
) -> GenerativeModel:
    """Cells of one layer, given (cells of the layers before, (its energy, incident energy))."""
    one = flow(cells_flow(config, preprocessing, student=student), preprocessing.num_cells - 1)
    return preprocessed(one, preprocessing.cell_map, preprocessing.features)


def energies_flow(config: EnergyConfig, preprocessing: LayerPreprocessing) -> TrainableBijector:
    """The flow of the energies of layers, given the scaled incident energy [1]."""
    num, spline = (
        preprocessing.geometry.num_layers,
        bijectors.rational_quadratic(config.bins, _BOUND),
    )
    return bijectors.autoregressive_flow(num, spline, config.depth, 1, hidden=config.hidden)


def cells_flow(
    config: CellsConfig, preprocessing: LayerPreprocessing, *, student: bool = False
) -> TrainableBijector:
    """The flow of the cells of one layer, given `LayerPreprocessing.features`.

    Raises:
      ValueError: for a student of couplings, which need none: they sample in one pass.
    """
    if config.form == "convolutional":
        if student:
            raise ValueError("couplings sample in one pass: students are of autoregressive flows")
        spline = bijectors.rational_quadratic(config.bins, _BOUND)
        sizes = preprocessing.geometry.shape[1:], spline, config.depth, config.before
        return convolutional_flow(*sizes, embedding=config.embedding, hidden=config.hidden)
    embedding, layers = cell_networks(config, preprocessing)
    make = bijectors.inverse_autoregressive_flow if student else bijectors.autoregressive_flow
    sizes = layers.num, layers.element, config.depth, config.embedding[-1]
    return bijectors.embedded(make(*sizes, hidden=config.hidden), embedding)


def cell_networks(config: CellsConfig, preprocessing: LayerPreprocessing) -> tuple[Network, Layers]:
    """Of autoregressive flows: the network of the condition, and the form of one layer."""
    *hidden, last = config.embedding
    num = preprocessing.num_cells
    embedding = nets.mlp(config.before * num + 2, last, hidden=tuple(hidden))
    spline = bijectors.rational_quadratic(config.bins, _BOUND)
    network = nets.made(num - 1, spline.num_params, last, hidden=config.hidden)
    return embedding, Layers(network, spline, num - 1)


def cells_condition(energy: jax.Array, layers: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What the cells of all layers are given: the energy of each, and the incident energy."""
    return layers, jnp.full_like(layers, energy)


def whole(made: Parts) -> GenerativeModel:
    """Both as one, of (energies of the layers, cells) given the incident energy.

    Its density is that of the cells, which are positive: their sum is the energy of the layer.
    """
    return chain(made.energies, made.cells, cells_condition, ("energies", "cells"))


def shower_model(made: Parts, preprocessing: LayerPreprocessing) -> GenerativeModel:
    """Showers [*geometry.shape] in MeV given incident energies in MeV.

    Parameters are {"energies": ..., "cells": ...}. The loss fills the cells without energy anew in
    every step, and is -log p of the numbers that the flows see, which differs from that of the
    cells by a mean over the data; samples have no cell below the threshold. `log_prob` of a shower
    without empty cells is the exact log-density; of others a draw log p(filled) - log q(noise)
    whose mean over keys is a lower bound of it.
    """
    model = whole(made)

    def loss(params, key, batch, progress=1.0):
        key, x = _filled(preprocessing, key, batch)
        return loss_at(model, params, key, batch._replace(x=(jnp.sum(x, axis=2), x)), progress)

    def sample(params, key, cond):
        layers, cells = model.sample(params, key, cond)
        return preprocessing.shower(preprocessing.cut(cells, layers))

    def log_prob(params, key, x, cond):
        key_noise, key = jax.random.split(key)
        cells, log_q = preprocessing.filled(key_noise, preprocessing.cells(x))
        layers = jnp.sum(cells, axis=1)
        return model.log_prob(params, key, (layers, cells), cond) - log_q

    return GenerativeModel(model.init, loss, sample, log_prob)


def trained_cells(made: Parts, preprocessing: LayerPreprocessing) -> GenerativeModel:
    """The model of cells, which learns from showers given incident energies, for training alone."""

    def loss(params, key, batch, progress=1.0):
        key, batch = _cells_batch(preprocessing, key, batch)
        return loss_at(made.cells, params, key, batch, progress)

    return GenerativeModel(made.cells.init, loss, made.cells.sample)


def trained_energies(made: Parts, preprocessing: LayerPreprocessing) -> GenerativeModel:
    """The model of layer energies, likewise."""

    def loss(params, key, batch, progress=1.0):
        key, cells = _filled(preprocessing, key, batch)
        batch = batch._replace(x=jnp.sum(cells, axis=2))
        return loss_at(made.energies, params, key, batch, progress)

    return GenerativeModel(made.energies.init, loss, made.energies.sample)


def _filled(preprocessing, key, batch):
    """A key, and the cells of a batch of showers with new noise."""
    key_noise, key = jax.random.split(key)
    cells = jax.vmap(preprocessing.cells)(batch.x)
    return key, preprocessing.filled(key_noise, cells)[0]


def student_cells(
    config: CellsConfig, preprocessing: LayerPreprocessing, teacher: Params
) -> GenerativeModel:
    """The student of trained flows of cells, which learns from showers, for training alone.

    See `jgen.models.guided_loss`. All layers learn under one vmap, from true layers before them. It
    is best started from the teacher's parameters.
    """
    embedding, layers = cell_networks(config, preprocessing)
    cells = parts(EnergyConfig(), config, preprocessing, student=True).cells

    def one(teacher, params, key, batch):
        def single(key, x, cond):
            features = preprocessing.features(cond)
            seen = tuple(embedding.apply(p["network"], features) for p in (teacher, params))
            pair = teacher["bijector"], params["bijector"]
            return guided_loss(layers, *pair, key, preprocessing.cell_map.forward(x, cond)[0], seen)

        return mean_loss(single, key, batch)

    def loss(params, key, batch):
        key_noise, key = jax.random.split(key)
        batch = layer_batch(preprocessing, key_noise, batch, config.before)
        keys = jax.random.split(key, preprocessing.geometry.num_layers)
        axes = (0, 0, 0, Batch(0, 0, None))
        return jnp.sum(jax.vmap(one, axes)(teacher, params, keys, batch))

    return GenerativeModel(cells.init, loss, cells.sample)


def _cells_batch(preprocessing, key, batch):
    """The same as a batch of the model of cells."""
    key, cells = _filled(preprocessing, key, batch)
    cond = jax.vmap(cells_condition)(batch.cond, jnp.sum(cells, axis=2))
    return key, batch._replace(x=cells, cond=cond)


def layer_batch(preprocessing: LayerPreprocessing, key: Key, batch: Batch, before: int) -> Batch:
    """What each layer's flow learns from showers, layers on the first axis of all arrays.

    Args:
      preprocessing: of the showers.
      key: of the noise in cells without energy.
      batch: showers given incident energies.
      before: layers before it that one is given.
    """
    return by_layer(_cells_batch(preprocessing, key, batch)[1], before)


def layers_and_cells(made: Parts, preprocessing: LayerPreprocessing) -> SampleFunction:
    """(params, key, incident energy) -> (energies of the layers, shower), both in MeV.

    What `shower_model` samples, beside the energies that the shower was given.
    """
    model = whole(made)

    def sample(params, key, cond):
        layers, cells = model.sample(params, key, cond)
        return layers, preprocessing.shower(preprocessing.cut(cells, layers))

    return sample
