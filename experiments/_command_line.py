"""The command line that all studies share."""

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import tyro

from jgen.training import initialize_distributed


def run(
    name: str,
    description: str,
    presets: dict[str, Any],
    main: Callable[..., dict[str, float]],
    count_parameters: Callable[[Any], dict[str, int]],
    argv: list[str] | None = None,
) -> dict[str, float] | None:
    """Parse the command line of a study and run it.

    Args:
      name: of the study, for its default folder.
      description: shown by --help.
      presets: configurations by name; "default" is taken unless --preset says otherwise.
      main: (config, out, plot_only=False) -> metrics.
      count_parameters: config -> numbers of trainable parameters, printed by --dry-run.
      argv: arguments, those of the process unless given.
    """
    argv = sys.argv[1:] if argv is None else argv
    args = _parse(name, description, presets, argv)
    out = args.out or Path("runs") / f"{name}-{args.preset}"
    try:
        if args.distributed:
            initialize_distributed()
        if args.dry_run:
            resolved = {
                "preset": args.preset,
                "config": dataclasses.asdict(args.config),
                "parameters": count_parameters(args.config),
            }
            print(json.dumps(resolved, indent=2, default=str))
            return None
        metrics = main(args.config, out, plot_only=args.plot_only)
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on from the last checkpoint")
    except (ValueError, OSError, FloatingPointError) as error:
        # What a user can mend is said in a sentence; --traceback shows where it came from.
        if args.traceback:
            raise
        sys.exit(f"error: {error}")
    if jax.process_index() == 0:
        print(f"\n{len(metrics)} metrics and everything else are in {out}")
    return metrics


def _parse(name: str, description: str, presets: dict[str, Any], argv: list[str]):
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
    options = dataclasses.make_dataclass(
        "Arguments",
        [
            ("preset", Literal[tuple(presets)], chosen),
            ("out", Annotated[Path | None, tyro.conf.arg(help=_HELP["out"])], None),
            _flag("dry_run"),
            _flag("plot_only"),
            _flag("distributed"),
            _flag("traceback"),
            ("config", Annotated[type(config), tyro.conf.arg(name="")], config),
        ],
        frozen=True,
    )
    return tyro.cli(
        options,
        args=argv,
        prog=f"python -m experiments.{name}",
        description=description,
        config=(tyro.conf.AvoidSubcommands,),
    )


def _flag(name: str):
    kind = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help=_HELP[name])]
    return (name, kind, False)


_HELP = {
    "out": "Run folder; the same folder resumes. Default: runs/<study>-<preset>.",
    "dry_run": "Print the resolved configuration and parameter counts as JSON, then exit.",
    "plot_only": "Draw the figures of a finished run again.",
    "distributed": "Join the other processes of a multi-host run.",
    "traceback": "Show the full traceback of an error.",
}
