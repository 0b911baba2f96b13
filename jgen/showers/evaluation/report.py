"""Evaluations as text."""

from collections.abc import Mapping, Sequence

from jax.typing import ArrayLike

from jgen.estimate import Estimate, Judged


def summary_table(metrics: Mapping[str, Judged | float], notes: Sequence[str] = ()) -> str:
    """The main metrics as text: generated and truth, both against the reference; then the notes.

    Copies and the structure have a block of their own: they are numbers of the samples, only their
    p-values come from a comparison with the reference. Every metric with a truth beside it has a
    row, but for numbers of bins and for the entries outside of histograms, of which a note says
    where they matter.
    """
    lines = [_row("against the reference", "generated", "truth")]
    own = [_row("copies and structure", "generated", "truth")]
    for name, value in metrics.items():
        hidden = name.startswith(("underflow/", "overflow/")) or name == "response/bins"
        if isinstance(value, Judged) and not hidden:
            block = own if name.startswith(("copies/", "structure/")) else lines
            block.append(_row(name, *map(_text, value)))
    if len(own) > 1:
        lines += ["", *own, ""]
    for name in ("incident_energy_p", "num_showers"):
        if name in metrics:
            lines.append(f"{name:<26}  {_text(metrics[name]):>16}")
    return "\n".join([*lines, *(f"Note: {note}" for note in notes)])


def _row(name: str, generated: str, truth: str) -> str:
    return f"{name:<26}  {generated:>16}  {truth:>16}"


def _text(value: Estimate | ArrayLike) -> str:
    return str(value) if isinstance(value, Estimate) else f"{value:.4g}"
