"""Options that cannot be are refused by name where a network, layer, model or solver is made."""

import dataclasses
from typing import Literal

import numpy as np
import pytest

from jgen import OptimizerConfig, TrainConfig, bijectors, couplings, lattice, models, nets, solvers
from jgen.checks import check_literals, check_memory
from jgen.metrics import ClassifierConfig
from jgen.training import RepulsionConfig, make_optimizer, per_player
from jgen.transforms import bayesian

NAN, INF = float("nan"), float("inf")
SIZES = (0, -1, NAN, INF, 2.5, 10**14, "8", None, True)
# Where one number is meant, several are none, nor is one number where several are.
SEVERAL = ([3], (3,), (3, 4), (), np.array([3]))
# What takes a size, by the name of the option: a call with that option.
MLP = {"hidden": (4,)}
VIT = nets.ViTConfig(patch=(1, 1, 1), width=12, heads=2, blocks=1, mlp_width=8)
TRANSFUSION = nets.TransfusionConfig(8, 2, 1, 8, 8, 3)
CONV = nets.ConvAutoencoderConfig(4, 2, (3, 2, 1), (3, 2, 1), 1, 8)
ONE = lambda make, config, field: lambda v: make(dataclasses.replace(config, **{field: v}))
SPLINE = bijectors.affine()
MODEL = models.flow(bijectors.flip(), 2)
TAKES_A_SIZE = {
    "mlp num_inputs": lambda v: nets.mlp(v, 2, **MLP),
    "mlp num_outputs": lambda v: nets.mlp(2, v, **MLP),
    "mlp hidden": lambda v: nets.mlp(2, 2, hidden=(4, v)),
    "velocity_mlp num_features": lambda v: nets.velocity_mlp(v),
    "velocity_mlp hidden": lambda v: nets.velocity_mlp(2, hidden=(v,)),
    "encoder_mlp num_latent": lambda v: nets.encoder_mlp(4, v, **MLP),
    "encoder_mlp shape": lambda v: nets.encoder_mlp((2, v), 2, **MLP),
    "decoder_mlp num_latent": lambda v: nets.decoder_mlp(v, 4, **MLP),
    "decoder_mlp shape": lambda v: nets.decoder_mlp(2, (v,), **MLP),
    "generator_mlp num_features": lambda v: nets.generator_mlp(v),
    "generator_mlp num_noise": lambda v: nets.generator_mlp(2, num_noise=v),
    "critic_mlp num_features": lambda v: nets.critic_mlp(v),
    "critic_mlp embedding": lambda v: nets.critic_mlp(2, embedding=(v,)),
    "pair_critic shape": lambda v: nets.pair_critic((v,), 0, **MLP),
    "latent_critic num_latent": lambda v: nets.latent_critic(v, **MLP),
    "elementwise_map shape": lambda v: nets.elementwise_map((v,), 0, **MLP),
    "conditioner num_inputs": lambda v: nets.conditioner(v, 2),
    "conditioner hidden": lambda v: nets.conditioner(2, 2, hidden=(v,)),
    "image_conditioner num_outputs": lambda v: nets.image_conditioner(2, v),
    "made num": lambda v: nets.made(v, 2),
    "made hidden": lambda v: nets.made(2, 2, hidden=(v,)),
    "resnet3d shape": lambda v: nets.resnet3d((4, 4, v)),
    "conv_autoencoder shape": lambda v: nets.conv_autoencoder((v, 4, 2), 0, CONV),
    "sequence num": lambda v: nets.sequence(v, 1, nets.SequenceConfig(8, 2, 1, 8)),
    "vit shape": lambda v: nets.vit((v, 2, 2), 1, VIT),
    "vit patch": ONE(lambda c: nets.vit((2, 2, 2), 1, c), VIT, "patch"),
    "transfusion num": lambda v: nets.transfusion(v, TRANSFUSION),
    "causal num": lambda v: nets.causal(v, 2),
    "causal num_outputs": lambda v: nets.causal(2, v),
    "epic num_features": nets.epic,
    "point_wise num_features": nets.point_wise,
    "point_wise hidden": lambda v: nets.point_wise(3, 0, nets.PointWiseConfig((4, v))),
    "set_transformer num_features": nets.set_transformer,
    "plu num": bijectors.plu,
    "householder num": bijectors.householder,
    "qr num": bijectors.qr,
    "actnorm shape": bijectors.actnorm,
    "squeeze factor": bijectors.squeeze,
    "planar num": bijectors.planar,
    "radial num": bijectors.radial,
    "residual num": bijectors.residual,
    "residual hidden": lambda v: bijectors.residual(2, hidden=(v,)),
    "rational_quadratic num_bins": bijectors.rational_quadratic,
    "coupling_flow num": lambda v: bijectors.coupling_flow(v, SPLINE, 2),
    "coupling_flow depth": lambda v: bijectors.coupling_flow(4, SPLINE, v),
    "autoregressive_flow depth": lambda v: bijectors.autoregressive_flow(4, SPLINE, v),
    "glow num_levels": lambda v: bijectors.glow((4, 4, 1), v, 1),
    "glow depth": lambda v: bijectors.glow((4, 4, 1), 1, v),
    "checkerboard_flow length": lattice.checkerboard_flow,
    "checkerboard_flow depth": lambda v: lattice.checkerboard_flow(4, v),
    "equivariant_velocity num_times": lambda v: lattice.equivariant_velocity(4, num_times=v),
    "standard_normal shape": models.standard_normal,
    "uniform shape": models.uniform,
    "flow_matching shape": lambda v: models.flow_matching(nets.velocity_mlp(2), (v,)),
    "gaussian_mixture num_gauss": models.gaussian_mixture,
    "equal_bins bins": lambda v: models.equal_bins(np.zeros((3, 2)), v),
    "bayesian num_train": lambda v: bayesian(MODEL, num_train=v),
    "runge_kutta steps": lambda v: solvers.runge_kutta("euler", v),
    "EulerMaruyama steps": solvers.EulerMaruyama,
    "DDIM steps": solvers.DDIM,
    "AnnealedLangevin num_corrections": lambda v: solvers.AnnealedLangevin(2, v),
    "NonStationary n_eval": solvers.NonStationary.euler,
    "TrainConfig steps": ONE(lambda c: c.check(), TrainConfig(), "steps"),
    "TrainConfig batch_size": ONE(lambda c: c.check(), TrainConfig(), "batch_size"),
    "TrainConfig ensemble": ONE(lambda c: c.check(), TrainConfig(), "ensemble"),
    "make_optimizer steps": lambda v: make_optimizer(OptimizerConfig(), v),
    "per_player every": lambda v: per_player({"a": None}, {"a": v}),
    "ClassifierConfig epochs": lambda v: ClassifierConfig(epochs=v),
    "ClassifierConfig hidden": lambda v: ClassifierConfig(hidden=(v,)),
}
for _name, _make, _config in (
    ("resnet3d", lambda c: nets.resnet3d((4, 4, 4), config=c), nets.ResNetConfig((4,), 1, 2)),
    ("causal", lambda c: nets.causal(3, 2, 0, c), nets.CausalConfig(8, 2, 1, 8)),
    ("sequence", lambda c: nets.sequence(3, 1, c), nets.SequenceConfig(8, 2, 1, 8)),
    ("epic", lambda c: nets.epic(3, 0, c), nets.EpicConfig()),
    ("point_wise", lambda c: nets.point_wise(3, 0, c), nets.PointWiseConfig()),
    ("set_transformer", lambda c: nets.set_transformer(3, 0, c), nets.SetTransformerConfig()),
    ("vit", lambda c: nets.vit((2, 2, 2), 1, c), VIT),
    ("transfusion", lambda c: nets.transfusion(3, c), TRANSFUSION),
    ("conv_autoencoder", lambda c: nets.conv_autoencoder((6, 4, 2), 0, c), CONV),
):
    for _field in dataclasses.fields(_config):
        if type(getattr(_config, _field.name)) is int and _field.name != "angular_padding":
            TAKES_A_SIZE[f"{_name} {_field.name}"] = ONE(_make, _config, _field.name)


@pytest.mark.parametrize("what", [w for w in TAKES_A_SIZE if not w.endswith("shape")])
def test_several_sizes_are_not_one(what):
    for value in SEVERAL:
        with pytest.raises(ValueError, match=f"{what.split()[1]}.* must be .*got .*"):
            TAKES_A_SIZE[what](value)


@pytest.mark.parametrize("what", TAKES_A_SIZE)
def test_sizes_that_cannot_be_are_refused_by_name(what):
    for value in SIZES:
        with pytest.raises(ValueError, match=f"{what.split()[1]}.* must be .*got .*"):
            TAKES_A_SIZE[what](value)


NUMBERS = (-1.0, NAN, INF, "1", None)
TAKES_A_NUMBER = {
    "affine max_log_scale": bijectors.affine,
    "rational_quadratic bound": lambda v: bijectors.rational_quadratic(4, v),
    "residual lipschitz": lambda v: bijectors.residual(2, lipschitz=v),
    "mlp dropout": lambda v: nets.mlp(2, 2, hidden=(4,), dropout=v),
    "gaussian scale": lambda v: models.gaussian(v if v is not None else 0),
    "with_width scale": lambda v: models.with_width(nets.velocity_mlp(2), v),
    "preconditioned data_std": lambda v: models.preconditioned(nets.velocity_mlp(2), None, v),
    "voxel_score floor": models.voxel_score,
    "BibAeWeights kl": lambda v: models.BibAeWeights(kl=v).check(),
    "bayesian prior_scale": lambda v: bayesian(MODEL, num_train=3, prior_scale=v),
    "bayesian temperature": lambda v: bayesian(MODEL, num_train=3, temperature=v),
    "DDIM eta": lambda v: solvers.DDIM(3, eta=v),
    "EDMHeun churn": lambda v: solvers.EDMHeun(3, churn=v),
    "AnnealedLangevin snr": lambda v: solvers.AnnealedLangevin(2, 1, v),
    "TrainConfig ema_decay": lambda v: TrainConfig(ema_decay=v).check(),
    "RepulsionConfig strength": lambda v: RepulsionConfig(strength=v).check(),
    "ClassifierConfig learning_rate": lambda v: ClassifierConfig(learning_rate=v),
    "ClassifierConfig train_fraction": lambda v: ClassifierConfig(train_fraction=v),
    **{
        f"OptimizerConfig {field}": ONE(lambda c: c.check(), OptimizerConfig(), field)
        for field in ("learning_rate", "warmup", "weight_decay", "beta1", "epsilon", "clip_norm")
    },
}


@pytest.mark.parametrize("what", TAKES_A_NUMBER)
def test_numbers_that_cannot_be_are_refused_by_name(what):
    for value in NUMBERS:
        with pytest.raises(ValueError, match=f"{what.split()[1]} must be .*, got "):
            TAKES_A_NUMBER[what](value)


@pytest.mark.parametrize(
    "make",
    [
        lambda v: TrainConfig(keep=v).check(),
        lambda v: TrainConfig(axis=v).check(),
        lambda v: TrainConfig(members=v).check(),
        lambda v: OptimizerConfig(schedule=v).check(),
        lambda v: ClassifierConfig(network=v),
        lambda v: nets.generator_mlp(2, noise=v),
        lambda v: nets.image_conditioner(2, 2, padding=v),
        lambda v: nets.vit((2, 2, 2), 1, dataclasses.replace(VIT, dtype=v)),
        lambda v: nets.vit((2, 2, 2), 1, dataclasses.replace(VIT, attention=v)),
        lambda v: nets.conv_autoencoder((6, 4, 2), 0, dataclasses.replace(CONV, dtype=v)),
        lambda v: bijectors.residual(2, log_det=v),
        lambda v: models.gan(nets.generator_mlp(2), nets.critic_mlp(2), objective=v),
        lambda v: models.flow_matching(nets.velocity_mlp(2), (2,), divergence=v),
        lambda v: solvers.Ancestral(2, v),
        lambda v: solvers.SolverConfig(v).check(),
    ],
)
def test_names_that_are_none_of_the_choices_are_refused(make):
    for value in ("first", "", None, 3, NAN):
        with pytest.raises(ValueError, match="must be one of .*, got "):
            make(value)


def test_literals_of_a_tuple_are_checked_one_by_one():
    @dataclasses.dataclass
    class Judges:
        kinds: tuple[Literal["high", "low"], ...]

    check_literals(Judges(("high", "low")))
    with pytest.raises(ValueError, match="kinds must be one of high, low, got 'mid'"):
        check_literals(Judges(("high", "mid")))


@pytest.mark.parametrize("value", [(), (1.0,), (1.0, 2.0, 3.0), 1.0])
def test_a_pair_has_two_entries(value):
    @dataclasses.dataclass
    class Range:
        range: tuple[float, float]
        other: tuple[float, float] | None = None

    check_literals(Range((1.0, 2.0)))
    check_literals(Range((1.0, 2.0), (1.0, 2.0)))
    with pytest.raises(ValueError, match="range must be 2 values, got"):
        check_literals(Range(value))
    with pytest.raises(ValueError, match="other must be 2 values, got"):
        check_literals(Range((1.0, 2.0), value))


def test_a_coupling_weight_is_a_number():
    for value in (-1, NAN, "x", None):
        with pytest.raises(ValueError, match="condition_weight must not be negative"):
            couplings.optimal_transport(value)


def test_models_that_no_memory_holds_are_refused_with_their_size():
    check_memory({"a": np.zeros(3)}, copies=10**9)
    with pytest.raises(ValueError, match=r"the model has 3e\+11 parameters, 1\.2e\+12 bytes"):
        check_memory({"a": np.zeros(3)}, copies=10**11)
