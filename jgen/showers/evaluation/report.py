"""Evaluations as text."""

from collections.abc import Mapping, Sequence


def summary_table(metrics: Mapping[str, float], notes: Sequence[str] = ()) -> str:
    """The main metrics as text: generated and truth, both against the reference; then the notes.

    Every metric with a truth beside it has a row, but for numbers of bins and for the entries
    outside of histograms, of which a note says where they matter.
    """
    lines = [f"{'against the reference':<28}{'generated':>22}{'truth':>22}"]
    for name in metrics:
        hidden = name.startswith(("underflow/", "overflow/")) or name == "response/bins"
        if hidden or f"{name}_truth" not in metrics:
            continue
        columns = "".join(f"{_text(metrics, name + suffix):>22}" for suffix in ("", "_truth"))
        lines.append(f"{name:<28}{columns}")
    for name in ("incident_energy_p", "num_showers"):
        if name in metrics:
            lines.append(f"{name:<28}{metrics[name]:>22.4g}")
    return "\n".join([*lines, *(f"Note: {note}" for note in notes)])


def _text(metrics, name):
    """A value with its error, both to the same digit, if it has one."""
    value, error = metrics[name], metrics.get(f"{name}_error")
    return f"{value:.4g}" if error is None else f"{value:.4g} +- {error:.1g}"
