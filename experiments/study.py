"""The harness of all studies: a study is a value, and everything around it is here.

    STUDY = Study({"default": Config(), "smoke": Config(...)}, compute, report, check, build)

    if __name__ == "__main__":
        main(STUDY)

gives a module its command line (presets, all fields of the configuration, --dry-run, --plot-only,
--distributed), refuses bad options before a folder exists, opens the locked run folder, writes
metrics.json in one convention and prints the report. `experiments/models/moons_gaps.py` is the
example to copy.
"""

import dataclasses
import inspect
import json
import math
import re
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import tyro
from jax.errors import JaxRuntimeError

from jgen import plotting
from jgen.checks import LARGEST_COUNT, check_literals, check_memory, check_positive
from jgen.estimate import Estimate, flatten
from jgen.files import make_folder
from jgen.training import (
    Fitted,
    RunFolder,
    initialize_distributed,
    tensorboard,
    weights_and_biases,
)

Log = Literal["none", "tensorboard", "wandb"]


class Run(RunFolder):
    """The run folder of a study, with its stages (`fit`, `cached`), keys and figures."""

    note = ""
    log: Log = "none"

    def fit(self, name: str, *args: Any, **options: Any) -> Fitted:
        """As that of `RunFolder`; a training that is not finished is logged as `log` says."""
        if self.log == "none" or not self.is_writer or (self.path / name / "params.npz").exists():
            return super().fit(name, *args, **options)
        if self.log == "tensorboard":
            logger = tensorboard(self.path / "tensorboard" / name)
        else:
            make_folder(folder := self.path / "wandb")
            title = f"{self.path.name}/{name}"
            logger = weights_and_biases(project="jgen", name=title, dir=str(folder))
        with logger as callback:
            return super().fit(name, *args, callbacks=[callback], **options)

    def part(self, path: str | Path, config: Any) -> "Run":
        """A folder within, or an absolute one, of a part with a configuration of its own."""
        part = Run(self.path / path, config, read_only=self.read_only)
        part.note, part.log = self.note, self.log
        return part

    def save(self, name: str, figure: Any) -> None:
        """Write a figure as figures/NAME.pdf and .png."""
        if self.is_writer:
            if self.note:
                # In the corner below the axes, where no title or label stands.
                figure.text(0.005, 0.005, self.note, va="bottom", fontsize=6, color="#a03030")
            plotting.save(figure, self.figure(name))


@dataclasses.dataclass(frozen=True)
class Study:
    """A study.

    Attributes:
      presets: configurations by name, frozen dataclasses of one type with a docstring a field and
        a `seed`, or one in the block of data and networks; "default" and "smoke" are among them.
      compute: (config, run) -> metrics: numbers, `Estimate` and `Judged` by name. Long work is in
        `run.fit` and `run.cached`, so that a rerun goes on and --plot-only only reads.
      report: (config, run, metrics) -> the table that is printed; draws figures by `run.save`.
      check: (config) -> None, raises a ValueError for options that do not fit together. What has a
        `check` of its own among the configuration's fields is checked before.
      build: (config) -> {part: model, network or its `init`}, for the parameter counts of
        --dry-run and, since a network refuses sizes that cannot be, as another check.
      inputs: (config) -> reads a user's files, before the folder is made and not in --dry-run, so
        that bad ones are refused; a function with a cache, which `compute` calls again.
      stored: (config) -> the configuration as the run folder keeps it, without options that change
        no result.
    """

    presets: Mapping[str, Any]
    compute: Callable[[Any, Run], dict[str, Any]]
    report: Callable[[Any, Run, dict[str, Any]], str]
    check: Callable[[Any], None] = lambda config: None
    build: Callable[[Any], Mapping[str, Any]] = lambda config: {}
    inputs: Callable[[Any], Any] = lambda config: None
    stored: Callable[[Any], Any] = lambda config: config


def main(study: Study) -> None:
    """Run a study that is the program, `python -m experiments.TOPIC.NAME`."""
    run(study, sys.argv[1:])


def run(study: Study, argv: Sequence[str]) -> dict[str, float] | None:
    """Parse the command line of a study and run it; returns the metrics as metrics.json has them.

    What a user can mend ends the process with a sentence; --traceback shows where it came from.
    """
    name, description = identity(study)
    args = _parse(name, description, study.presets, list(map(str, argv)))
    out = args.out or Path("runs") / f"{name.replace('.', '-')}-{args.preset}"
    try:
        if args.distributed:
            initialize_distributed()
        if args.dry_run:
            counts = _parameter_counts(_checked_parts(study, args.config))
            config = dataclasses.asdict(args.config)
            resolved = {"preset": args.preset, "config": config, "parameters": counts}
            print(json.dumps(resolved, indent=2, default=str))
            return None
        note = "preset smoke: not trained" if args.preset == "smoke" else ""
        options = {"plot_only": args.plot_only, "note": note, "log": args.log}
        return execute(study, args.config, out, **options)
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on from the last checkpoint")
    except (ValueError, OSError, FloatingPointError, MemoryError, JaxRuntimeError) as error:
        what = _memory(error) if isinstance(error, MemoryError | JaxRuntimeError) else str(error)
        if args.traceback or not what:
            raise
        sys.exit(f"error: {what}")


def _memory(error: Exception) -> str:
    """What to say where the memory is too small; nothing for other errors of the device."""
    text = (str(error) or "the host has no more").splitlines()[0]
    if isinstance(error, JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in text:
        return ""
    return f"out of memory ({text}); choose smaller batches, networks or samples"


def execute(
    study: Study,
    config: Any,
    out: Path,
    *,
    plot_only: bool = False,
    note: str = "",
    log: Log = "none",
) -> dict[str, float]:
    """Check a configuration, run the study in a folder and print its report.

    Args:
      study: what is run.
      config: its configuration.
      out: run folder.
      plot_only: read the stages of a finished run and draw it again.
      note: small print on all figures.
      log: where trainings are logged beside their folders.
    """
    _checked_parts(study, config)
    if not plot_only:
        study.inputs(config)
    with Run(out, study.stored(config), read_only=plot_only) as folder:
        folder.note, folder.log = note, log
        metrics = study.compute(config, folder)
        flat = folder.write_metrics(metrics)
        if folder.is_writer:
            if text := study.report(config, folder, metrics):
                print(text)
            print(f"\n{len(flat)} metrics and everything else are in {out}")
        return flat


def check_options(study: Study, argv: Sequence[str]) -> None:
    """Refuse a command line that the study would refuse before it reads files."""
    name, description = identity(study)
    _checked_parts(study, _parse(name, description, study.presets, list(argv)).config)


def _checked_parts(study: Study, config: Any) -> Mapping[str, Any]:
    _check_fields(config)
    study.check(config)
    return study.build(config)


def identity(study: Study) -> tuple[str, str]:
    """The name of a study on the command line and the docstring of its module."""
    module = sys.modules[study.compute.__module__]
    spec = module.__spec__
    name = spec.name if spec is not None else module.__name__
    return short_name(name), module.__doc__ or ""


def short_name(module: str) -> str:
    """experiments.TOPIC.NAME[.study] -> NAME; studies of benchmarks and simulate keep the topic."""
    parts = module.removeprefix("experiments.").split(".")
    if parts[-1] in ("study", "__main__"):
        parts = parts[:-1]
    return ".".join(parts if parts[0] in ("benchmarks", "simulate") else parts[1:] or parts)


def at_least(config: Any, **least: float) -> None:
    """Refuse numbers, also in tuples, below a smallest one: `at_least(config, num_train=100)`."""
    for name, bound in least.items():
        value = getattr(config, name)
        numbers = value if isinstance(value, tuple) else (value,)
        if not min(numbers, default=bound) >= bound:
            raise ValueError(f"{name} must be at least {bound}, got {value}")
        if math.inf in numbers:
            raise ValueError(f"{name} must be finite, got {value}")


def positive(config: Any, *names: str, block: str = "") -> None:
    """Refuse numbers of a block that are not above zero, and tuples of such or of none."""
    for name in names:
        value = getattr(config, name)
        for number in value if isinstance(value, tuple) and value else (value,):
            check_positive(**{block + name: number})


def known(config: Any, **choices: Sequence[str]) -> None:
    """Refuse names that are not among the choices, and an empty tuple of names."""
    for name, allowed in choices.items():
        value = getattr(config, name)
        given = value if isinstance(value, tuple) else (value,)
        if not given or set(given) - set(allowed):
            raise ValueError(f"{name} must be of {', '.join(allowed)}, got {value!r}")


def finite(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Flat metrics without infinite ones, such as the open ends of intervals."""
    return {name: value for name, value in flatten(metrics).items() if math.isfinite(value)}


def variant(config: Any, **changes: Any) -> Any:
    """A configuration with changes, those of a block in a dictionary: how presets are written.

    SMOKE = variant(DEFAULT, num_test=100, training={"steps": 20, "optimizer": {"warmup": 0.1}})
    """
    for name, value in changes.items():
        if isinstance(value, Mapping):
            changes[name] = variant(getattr(config, name), **value)
    return dataclasses.replace(config, **changes)


def table(
    columns: Sequence[str],
    rows: Mapping[str, Sequence[Any]],
    *,
    title: str = "",
    digits: int = 3,
) -> str:
    """Text of a table: estimates as 0.018(2), floats with `digits` significant ones, "-" for None.

    Args:
      columns: their headings.
      rows: label -> cells, one a column.
      title: above the labels.
      digits: of numbers without an error.
    """
    cells = [[title, *columns]]
    cells += [[label, *(_cell(c, digits) for c in row)] for label, row in rows.items()]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    lines = []
    for first, *rest in cells:
        right = (f"  {cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True))
        lines.append((f"{first:<{widths[0]}}" + "".join(right)).rstrip())
    return "\n".join(lines)


def metric_table(
    metrics: Mapping[str, Any],
    columns: Sequence[str],
    rows: Mapping[str, str],
    *,
    title: str = "",
    digits: int = 3,
) -> str:
    """A table of metrics: the cell of a row `label: name` in a column is `metrics[name/column]`."""
    cells = {label: [metrics.get(f"{name}/{c}") for c in columns] for label, name in rows.items()}
    return table(columns, cells, title=title, digits=digits)


def _cell(value: Any, digits: int) -> str:
    if value is None:
        return "-"
    if isinstance(value, str | Estimate) or hasattr(value, "_fields"):
        return str(value)
    return f"{float(value):.{digits}g}" if abs(float(value)) < 10**digits else f"{float(value):.0f}"


def _parameter_counts(parts: Mapping[str, Any]) -> dict[str, int]:
    counts = {}
    for name, part in parts.items():
        shapes = jax.eval_shape(getattr(part, "init", part), jax.random.key(0))
        check_memory(shapes, name)
        counts[name] = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    return counts


def _check_fields(value: Any) -> None:
    """Let everything in a configuration that can check itself do so, the innermost first."""
    if isinstance(value, tuple):
        for inner in value:
            _check_fields(inner)
    if dataclasses.is_dataclass(value):
        check_literals(value)
        for field in dataclasses.fields(value):
            inner = getattr(value, field.name)
            for one in inner if isinstance(inner, tuple) else (inner,):
                _check_number(field.name, one)
            _check_fields(inner)
        if hasattr(value, "check"):
            value.check()


def _check_number(name: str, value: Any) -> None:
    """Refuse what is a number of nothing: NaN, and more than can be counted."""
    if isinstance(value, float) and math.isnan(value):
        raise ValueError(f"{name} must be a number, got nan")
    if type(value) is int and name != "seed" and abs(value) > LARGEST_COUNT:
        raise ValueError(f"{name} must not be larger than {LARGEST_COUNT}, got {value}")


_HELP = {
    "preset": "Configuration that the options below change.",
    "out": "Run folder; the same folder resumes. Default: runs/NAME-PRESET.",
    "dry_run": "Print the resolved configuration and parameter counts as JSON, then exit.",
    "plot_only": "Draw the figures of a finished run again.",
    "distributed": "Join the other processes of a multi-host run.",
    "log": "Log trainings to OUT/tensorboard, or to Weights & Biases (wandb), too.",
    "traceback": "Show the full traceback of an error.",
}


def _parse(name: str, description: str, presets: Mapping[str, Any], argv: list[str]):
    """Arguments with the chosen preset's values as defaults of the configuration's options."""
    chosen = "default"
    for i, arg in enumerate(argv):
        if arg == "--preset" and i + 1 < len(argv):
            chosen = argv[i + 1]
        elif arg.startswith("--preset="):
            chosen = arg.removeprefix("--preset=")
    if chosen not in presets:
        chosen = "default"  # the parser below refuses the unknown name and lists the known ones
    config = presets[chosen]
    if {"-h", "--help"} & set(argv):
        print(short_help(name, description, presets, config))
        sys.exit(0)
    argv = ["--help" if arg == "--help-all" else arg for arg in argv]
    kind = Annotated[type(config), tyro.conf.arg(name="")]
    options = dataclasses.make_dataclass(
        "Arguments",
        [
            ("preset", Annotated[Literal[tuple(presets)], _help("preset")], chosen),
            ("out", Annotated[Path | None, _help("out")], None),
            *(_flag(flag) for flag in ("dry_run", "plot_only", "distributed", "traceback")),
            ("log", Annotated[Log, _help("log")], "none"),
            ("config", kind, config),
        ],
        frozen=True,
    )
    prog, convert = f"python -m experiments {name}", (tyro.conf.AvoidSubcommands,)
    return tyro.cli(options, args=argv, prog=prog, description=description, config=convert)


def _help(name: str):
    return tyro.conf.arg(help=_HELP[name])


def _flag(name: str):
    return (name, Annotated[bool, tyro.conf.FlagCreatePairsOff, _help(name)], False)


def short_help(name: str, description: str, presets: Mapping[str, Any], config: Any) -> str:
    """What fits two screens: the first paragraphs, presets, and options that are no block."""
    paragraphs = description.strip().split("\n\n")
    needed = [f.name for f in dataclasses.fields(config) if getattr(config, f.name) is tyro.MISSING]
    usage = " ".join([f"usage: python -m experiments {name} [options]", *map(str.upper, needed)])
    lines = ["\n\n".join(paragraphs[:3]), "", usage, ""]
    lines += [f"  --preset {{{','.join(presets)}}}"]
    for flag in ("out", "dry_run", "plot_only", "distributed", "log", "traceback"):
        lines.append(f"  --{flag.replace('_', '-'):<22} {_HELP[flag]}")
    lines += [f"  --{'help-all':<22} All options, those of networks and trainings included.", ""]
    docs, blocks = field_docs(type(config)), []
    for field in dataclasses.fields(config):
        value, option = getattr(config, field.name), field.name.replace("_", "-")
        if dataclasses.is_dataclass(value):
            blocks.append(option)
            continue
        shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
        first = re.split(r"[.;:](?:\s|$)", docs.get(field.name, ""))[0]
        if field.name in needed:
            lines.append(f"  {field.name.upper():<24} {first}"[:118])
            continue
        lines.append(f"  --{option:<22} {' '.join(first.split())} ({shown})"[:118])
    if blocks:
        named = f"blocks of options (--help-all): {', '.join(f'--{b}.*' for b in blocks)}"
        lines += ["", *textwrap.wrap(named, 100, break_on_hyphens=False)]
    return "\n".join(lines)


def field_docs(kind: type) -> dict[str, str]:
    """The string that stands below each field of a dataclass in its source, or in a base's."""
    pattern, docs = r'^    (\w+):[^\n]*(?:\n     [^\n]*)*?\n    """(.*?)"""', {}
    for base in filter(dataclasses.is_dataclass, reversed(kind.__mro__)):
        docs |= re.findall(pattern, inspect.getsource(base), re.MULTILINE | re.DOTALL)
    return docs
