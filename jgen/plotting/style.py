"""The look of all figures: one dict of settings, colours, and how a figure is written.

No global state is changed: settings hold inside `styled` functions and in `save`, and figures are
`matplotlib.figure.Figure` objects, which need no display and no pyplot. A notebook shows them
after `%matplotlib inline`. `with style(mplhep.style.CMS): ...` draws and saves in another style.
"""

import contextlib
import functools
import os
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FuncFormatter,
    LogFormatterMathtext,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)

from jgen.files import make_folder

REFERENCE = "#333333"
"""Colour of the truth."""
BAND = "#c4c4c4"
"""Colour of the truth's statistical band."""
COLORS = (
    "#0a5fb4", "#d1541b", "#1f8a5b", "#8a3f9e", "#b8860b", "#2aa0b8", "#c2185b", "#5d6d1e",
    "#6b4a3a", "#7f8fd9",
)  # fmt: skip
"""Colours of the samples in the order they are given; they differ in lightness, too."""
MARKERS = "osD^vP<>Xp"
"""Markers of points, in the order of the colours."""
ENERGY_MAP = "viridis"
"""Colour map of energies."""
RATIO_MAP = "RdBu_r"
"""Colour map of ratios, white at one."""
TEXT_WIDTH = 7.0
"""Width in inches of a figure across a page."""

RC = {
    "font.family": "sans-serif",
    "font.size": 9.0,
    "mathtext.fontset": "dejavusans",
    "axes.labelsize": 9.0,
    "axes.titlesize": 9.0,
    "axes.linewidth": 0.8,
    "axes.formatter.use_mathtext": True,
    "axes.formatter.limits": (-3, 4),
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "xtick.minor.visible": True,
    "ytick.minor.visible": True,
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "lines.linewidth": 1.3,
    "savefig.dpi": 200,
    "figure.dpi": 120,
    "pdf.fonttype": 42,
}
"""Settings of matplotlib; text in PDFs stays text (font type 42)."""


_STYLE: ContextVar[Mapping[str, Any]] = ContextVar("style", default=MappingProxyType({}))


@contextlib.contextmanager
def style(*settings: Mapping[str, Any]) -> Iterator[None]:
    """Draw in another style: matplotlib settings over those of this package, as mplhep has them.

    Figures are to be made and saved inside the block.

    Raises:
      KeyError: by matplotlib, naming a setting that it does not know.
    """
    merged = dict(_STYLE.get())
    for setting in settings:
        merged |= dict(setting)
    with matplotlib.rc_context(merged):
        pass  # a setting that matplotlib refuses is refused here
    token = _STYLE.set(merged)
    try:
        yield
    finally:
        _STYLE.reset(token)


def styled(function):
    """Decorator: run a plotting function with the settings `RC` and those of `style`."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        with matplotlib.rc_context(RC | dict(_STYLE.get())):
            return function(*args, **kwargs)

    return wrapper


def new_figure(width: float = TEXT_WIDTH, height: float = 4.0) -> Figure:
    """An empty figure in inches whose parts make room for each other."""
    return Figure(figsize=(width, height), layout="constrained")


def stack_panels(figure: Figure) -> None:
    """Let panels above each other touch, with a margin around the figure only."""
    figure.get_layout_engine().set(h_pad=0.0, hspace=0.0, rect=(0.0, 0.01, 1.0, 0.98))


def linear_axis(axis) -> None:
    """Linear ticks without a label at the lower end, where another panel begins."""
    axis.set_major_locator(MaxNLocator(6, prune="lower", steps=[1, 2, 2.5, 5, 10]))


def ratio_axis(axis, limits: tuple[float, float]) -> None:
    """Limits and three labels of a ratio panel, away from the panel above.

    Ratios that span decades have a logarithmic axis.
    """
    low, high = limits
    if low > 0 and high / low >= 100:
        axis.axes.set_yscale("log")
        axis.axes.set_ylim(low, high)
        axis.set_ticks({10: [0.3, 1, 3], 100: [0.1, 1, 10]}.get(round(high), [0.03, 1, 30]))
        axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axis.set_minor_locator(NullLocator())
        return
    axis.axes.set_ylim(low, high)
    axis.set_ticks([round(low + f * (high - low), 3) for f in (0.2, 0.5, 0.8)])


def log_axis(axis) -> None:
    """Logarithmic ticks that do not run into each other on short axes.

    Below two decades 1, 2 and 5 of each are labelled, as plain numbers where these are short.
    """
    low, high = sorted(axis.get_view_interval())
    power = LogFormatterMathtext()

    def plain(x, _):
        if 1e-3 <= x < 1e4:
            return f"{x:g}"
        digits, exponent = f"{x:.0e}".split("e")
        return power(x) if digits == "1" else rf"${digits}\cdot10^{{{int(exponent)}}}$"

    short = high < 100 * low
    subs = (1.0, 2.0, 5.0) if short else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(plain) if short else power)
    axis.set_minor_locator(LogLocator(subs=np.arange(1.0, 10.0)))
    axis.set_minor_formatter(NullFormatter())


def color(index: int) -> str:
    """Colour of the sample number `index`; they repeat after the last."""
    return COLORS[index % len(COLORS)]


def image_ticks(axes: Axes) -> None:
    """Ticks outside of a picture, where they do not cover it."""
    axes.tick_params(which="both", direction="out", top=False, right=False)
    axes.minorticks_off()


@styled
def save(figure: Figure, path: str | Path) -> tuple[Path, Path]:
    """Write `path`.pdf and `path`.png and return both names.

    Each file is complete or absent: it is written beside its place and then moved there.

    Raises:
      ValueError: if `path` already ends in .pdf or .png.
    """
    path = Path(path)
    if path.suffix in (".pdf", ".png"):
        raise ValueError(f"{path} ends in {path.suffix}, but both kinds are written: leave it out")
    make_folder(path.parent)
    written = []
    for suffix in (".pdf", ".png"):
        final = path.with_name(path.name + suffix)
        partial = path.with_name(f".{path.name}.partial{suffix}")
        # Without a date the same figure gives the same file.
        figure.savefig(partial, metadata={"CreationDate": None} if suffix == ".pdf" else None)
        os.replace(partial, final)
        written.append(final)
    return tuple(written)
