"""Jets with kinds, charges and impact parameters of their particles: two ways to make states.

    python -m experiments particles

trains two generators of the leading constituents of gluon and top jets, given the class and the
number of points. "jumps": flow matching of momenta and impact parameters beside a jump process of
eight charge states (2509.01736). "one-hot": flow matching of everything, states as ones and zeros
whose largest is taken in the end (2312.00123). Half of the jets are trained on, the other half is
the truth; both halves are compared as well. About ten minutes on 2 cores.

`--preset six-classes` has 64 constituents of all classes of this project's sample, and `paper` the
published sizes; both read a file in the layout of `jgen.jets.read_jets` that has them (`--data`).
Numbers: results/jets.md.
"""

from dataclasses import dataclass

import numpy as np

from experiments.jets.generators import condition
from experiments.jets.jets import load
from experiments.study import Run, Study, at_least, known, main, positive, table, variant
from jgen import Batch, GenerativeModel, OptimizerConfig, TrainConfig, models, nets, plotting
from jgen import jets as jet_tools
from jgen.jets import CHARGE_STATES, LABELS, PARTICLES, Constituents
from jgen.metrics import SetClassifierConfig, set_classifier_auc
from jgen.plotting import Panel
from jgen.solvers import runge_kutta
from jgen.training import timed_draw

MODES = ("jumps", "one-hot")
_NAMES = ("h$^+$", "h$^-$", "h$^0$", r"$\gamma$", "e$^+$", "e$^-$", r"$\mu^+$", r"$\mu^-$")
_FEATURES, _STATES = len(jet_tools.PARTICLE_FEATURES), len(CHARGE_STATES)


@dataclass(frozen=True)
class Config:
    """Generators of particles."""

    data: str = ""
    """A file in the layout of `jgen.jets.read_jets`, with kinds, charges and impact parameters; the
    bundled jets unless given."""
    classes: tuple[str, ...] = ("gluon", "top")
    """Classes of jets, by their names in the file."""
    num_points: int = 30
    """Leading constituents."""
    most_jets: int = 1_000_000
    """Jets of each class at most, one half of which is trained on."""
    modes: tuple[str, ...] = MODES
    """What is trained and compared."""
    impact_unit: float = 0.01
    """Where asinh(d0 / unit) turns from linear to logarithmic [mm]; 1000 takes d0 as it is."""
    network: nets.EpicConfig = nets.EpicConfig(64, 10, 4)
    """Network of either."""
    training: TrainConfig = TrainConfig(
        4000,
        128,
        ema_decay=0.998,
        optimizer=OptimizerConfig(4e-3, warmup=0.05, clip_norm=0.5, method="muon"),
    )
    """Training of either."""
    entropy_weight: float = 1.0
    """Of the cross-entropy beside the squared error of velocities."""
    steps: int = 24
    """Steps of two calls each: midpoint, or Heun's with jumps."""
    classifier: SetClassifierConfig = SetClassifierConfig()
    """What looks for differences."""
    bootstrap: int = 20
    """Resamplings behind the errors."""
    seed: int = 0
    """Seed of everything random."""


def check(config: Config) -> None:
    """Refuse bad options."""
    at_least(config, num_points=2, most_jets=200, bootstrap=2, steps=1, entropy_weight=0)
    positive(config, "impact_unit")
    known(config, modes=MODES)
    if len(set(config.classes)) < len(config.classes) or not config.classes:
        raise ValueError(f"classes must be different ones, one at least, got {config.classes}")


def inputs(config: Config) -> tuple[Constituents, ...]:
    """Training and true jets."""
    halves = load(config.data, config.classes, config.num_points, config.most_jets, config.seed)
    jet_tools.charge_states(halves[0])  # refuses files without them
    return halves


def build(config: Config) -> dict[str, GenerativeModel]:
    """The generators."""
    network = nets.epic(_FEATURES + _STATES, len(config.classes), config.network)
    both = {
        "jumps": lambda: models.mixed_flow_matching(
            network, (config.num_points, _FEATURES), _STATES, steps=config.steps,
            defined=jet_tools.defined_features(), weight=config.entropy_weight,
        ),
        "one-hot": lambda: models.flow_matching(
            network, (config.num_points, _FEATURES + _STATES),
            solver=runge_kutta("midpoint", config.steps),
        ),
    }  # fmt: skip
    return {mode: both[mode]() for mode in config.modes}


def one_hot(events: models.MixedEvent, n: np.ndarray) -> np.ndarray:
    """Events as points alone, with ones and zeros behind their numbers."""
    there = np.arange(events.states.shape[1]) < n[:, None]
    codes = np.eye(_STATES, dtype=np.float32)[events.states] * there[..., None]
    return np.concatenate([events.points, codes], axis=-1)


def from_one_hot(points: np.ndarray) -> models.MixedEvent:
    """The inverse of `one_hot` for any numbers in the place of ones and zeros."""
    return models.MixedEvent(points[..., :_FEATURES], points[..., _FEATURES:].argmax(axis=-1))


def generate(config: Config, run: Run, mode: str) -> dict:
    """As many jets of each class as are true, with what they cost."""
    jets, truth = inputs(config)
    scale = jet_tools.particle_map(jets, config.impact_unit)
    z, num_classes = scale.forward(jets), len(config.classes)
    x = z if mode == "jumps" else one_hot(z, jets.n)
    model, cond = build(config)[mode], condition(jets.n, jets.labels, num_classes)
    params = run.fit(mode, model, Batch(x, cond), config.training).one
    n = jet_tools.draw_multiplicities(
        jets.total, jets.labels, truth.labels, run.key("n"), config.num_points
    )
    cond = condition(n, truth.labels, num_classes)
    events, milliseconds = timed_draw(
        model, params, run.key(f"jets {mode}"), len(n), cond, batch_size=min(len(n), 500)
    )
    events = events if mode == "jumps" else from_one_hot(events)
    made = scale.inverse(events, truth._replace(n=n, total=n))
    arrays = {name: getattr(made, name) for name in ("points", "n", "pid", "charge", "impact")}
    return arrays | {"ms_per_jet": milliseconds}


def sample(config: Config, run: Run, name: str) -> Constituents:
    """Jets of a mode, with the classes of the true ones; of "truth" those of the training half."""
    jets, truth = inputs(config)
    if name == "truth":
        return jets
    made = dict(run.stage(f"{name}/jets"))
    made.pop("ms_per_jet")
    return truth._replace(**made, total=made["n"])


def judge(config: Config, run: Run, name: str) -> dict:
    """Particles of each class, and a classifier of all jets."""
    jets, truth = inputs(config)
    made, num_classes = sample(config, run, name), len(config.classes)
    found = {
        of_class: jet_tools.compare_particles(
            truth.take(truth.labels == k), made.take(made.labels == k),
            run.key(f"compare {of_class}"), config.bootstrap,
        )
        for k, of_class in enumerate(config.classes)
    }  # fmt: skip
    scale = jet_tools.particle_map(jets, config.impact_unit)
    sets = [
        (one_hot(scale.forward(s), s.n), condition(s.n, s.labels, num_classes))
        for s in (truth, made)
    ]
    found["auc"] = set_classifier_auc(*sets, run.key("classifier"), config.classifier)
    return found


def compute(config: Config, run: Run) -> dict:
    """Train, generate and compare.

    CLASS/MODE/NAME   see `jgen.jets.compare_particles`; of the mode "truth" the training half
    CLASS/true/NAME   what the true jets have themselves
    auc/MODE          of a classifier of jets
    ms_per_jet/MODE   from numbers of points to particles in memory
    """
    _, truth = inputs(config)
    results = {}
    for mode in ("truth", *config.modes):
        if mode != "truth":
            made = run.cached(f"{mode}/jets", generate, config, run, mode)
            results[f"ms_per_jet/{mode}"] = float(made["ms_per_jet"])
        found = dict(run.cached(f"{mode}/judged", judge, config, run, mode))
        results[f"auc/{mode}"] = found.pop("auc")
        results |= {f"{c}/{mode}/{k}": v for c, names in found.items() for k, v in names.items()}
    for k, of_class in enumerate(config.classes):
        numbers = jet_tools.particle_numbers(truth.take(truth.labels == k))
        results |= {f"{of_class}/true/{name}": value for name, value in numbers.items()}
    return results


def impact_panels(of_class: str, shown: dict[str, Constituents]) -> list[Panel]:
    """d0 of charged hadrons, electrons and muons."""
    edges = np.linspace(-7.5, 7.5, 31)
    made = []
    for which, kind in ((1, r"h$^\pm$"), (4, r"e$^\pm$"), (5, r"$\mu^\pm$")):
        values = {
            name: np.arcsinh(jets.impact[..., 0][jets.pid == which] / 0.01)
            for name, jets in shown.items()
        }
        label = rf"{of_class}, {kind}: asinh($d_0$ / 10 $\mu$m)"
        made.append(Panel(edges, values.pop("truth"), values, label, log_y=True))
    return made


def state_panels(of_class: str, shown: dict[str, Constituents]) -> list[Panel]:
    """Charge states of particles, and charges of jets."""
    states, charges = {}, {}
    for name, jets in shown.items():
        there = np.arange(jets.pid.shape[1]) < jets.n[:, None]
        states[name] = jet_tools.charge_states(jets)[there]
        charges[name] = jets.charge.sum(axis=1, dtype=int)
    edges = np.arange(_STATES + 1) - 0.5
    wide = max(np.abs(charges["truth"]).max(), 1) + 0.5
    charge_edges = np.arange(-wide, wide + 1)
    return [
        Panel(
            edges, states.pop("truth"), states, f"{of_class}: particle", log_y=True, names=_NAMES
        ),
        Panel(charge_edges, charges.pop("truth"), charges, f"{of_class}: charge of the jet"),
    ]


def report(config: Config, run: Run, results: dict) -> str:
    """Draw impact parameters, states and charges; a table for each class."""
    _, truth = inputs(config)
    all_jets = {"truth": truth} | {mode: sample(config, run, mode) for mode in config.modes}
    panels = [], []
    for k, of_class in enumerate(config.classes):
        shown = {name: jets.take(jets.labels == k) for name, jets in all_jets.items()}
        panels[0].extend(impact_panels(of_class, shown))
        panels[1].extend(state_panels(of_class, shown))
    run.save("impact", plotting.histogram_grid(panels[0], num_columns=3))
    run.save("states", plotting.histogram_grid(panels[1], num_columns=2))
    columns = (*PARTICLES[1:], "displaced", "charge", "charge width", "KLD pT", "KLD eta", "KLD d0")
    rows = {"true": "true", "training half": "truth"} | {mode: mode for mode in config.modes}
    lines = []
    for c in config.classes:
        cells = {
            label: [results.get(f"{c}/{name}/{column}") for column in columns]
            for label, name in rows.items()
        }
        lines.append(table(columns, cells, title=c))
    cells = {
        mode: [results[f"auc/{mode}"], results.get(f"ms_per_jet/{mode}")]
        for mode in ("truth", *config.modes)
    }
    return "\n\n".join([*lines, table(("AUC", "ms a jet"), cells, title="all jets")])


DEFAULT = Config()
_SMALL = nets.EpicConfig(8, 4, 1)
SMOKE = variant(
    DEFAULT,
    num_points=6,
    most_jets=300,
    network=_SMALL,
    training={"steps": 10, "batch_size": 16},
    steps=2,
    classifier={
        "epic": _SMALL,
        "training": {"steps": 10, "batch_size": 16, "validate_every": 5},
    },
    bootstrap=2,
)
SIX = variant(DEFAULT, classes=LABELS, num_points=64)
# The paper trains 500 epochs of 3 million jets of JetClass, with two more numbers in the condition.
PAPER = variant(
    SIX,
    num_points=128,
    network=nets.EpicConfig(300, 16, 20),
    training=TrainConfig(
        1_470_000,
        1024,
        ema_decay=0.999,
        optimizer=OptimizerConfig(1e-3, warmup=0.04, weight_decay=5e-5, clip_norm=0.5),
    ),
    steps=100,
)
STUDY = Study(
    {"default": DEFAULT, "smoke": SMOKE, "six-classes": SIX, "paper": PAPER},
    compute,
    report,
    check,
    build,
    inputs,
)

if __name__ == "__main__":
    main(STUDY)
