"""Evaluations as text."""

from collections.abc import Mapping, Sequence

from jgen.estimate import Estimate, Judged


def summary_table(metrics: Mapping[str, Judged | float], notes: Sequence[str] = ()) -> str:
    """The main metrics as text: generated and truth, both against the reference; then the notes.

    Every metric with a truth beside it has a row, but for numbers of bins and for the entries
    outside of histograms, of which a note says where they matter.
    """
    lines = [f"{'against the reference':<26}  {'generated':>16}  {'truth':>16}"]
    for name, value in metrics.items():
        hidden = name.startswith(("underflow/", "overflow/")) or name == "response/bins"
        if isinstance(value, Judged) and not hidden:
            lines.append(f"{name:<26}  {_text(value.value):>16}  {_text(value.truth):>16}")
    for name in ("incident_energy_p", "num_showers"):
        if name in metrics:
            lines.append(f"{name:<26}  {_text(metrics[name]):>16}")
    return "\n".join([*lines, *(f"Note: {note}" for note in notes)])


def _text(value: Estimate | float) -> str:
    return str(value) if isinstance(value, Estimate) else f"{value:.4g}"
