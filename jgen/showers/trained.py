"""Generators of showers that are trained: run folders, and those that come with the package."""

import os
from pathlib import Path

from jgen.checks import check_known
from jgen.showers import bib_ae, calodream, clouds, layer_flows

_FOLDER = Path(__file__).parent / "pretrained"
PRETRAINED = tuple(sorted(p.parent.name for p in _FOLDER.glob(f"*/{clouds.CONFIG}")))
"""Names of the generators that come with the package."""


def pretrained(name: str) -> clouds.Trained:
    """A generator that comes with the package.

        trained = pretrained("electrons-ds2")
        energies = calodream.incident_energies(1000, *trained.energy_range)
        showers = trained.draw(jax.random.key(0), energies)

    What it was trained on, for how long, and how near it is to Geant4 is in its card,
    `jgen/showers/pretrained/NAME/README.md`.

    Args:
      name: one of `PRETRAINED`.

    Raises:
      ValueError: for another name.
    """
    check_known(PRETRAINED, name=name)
    return clouds.load(_FOLDER / name)


def load_trained(model: str | os.PathLike) -> calodream.Trained | clouds.Trained:
    """A generator from the run folder of a training, or one of `PRETRAINED` by its name.

    Raises:
      ValueError: if there is no such folder or name, or its training has not ended.
    """
    if not str(model):
        raise ValueError(
            "name a run folder of a trained CaloDREAM or CaloClouds, or one of the generators that "
            f"come with the package: {', '.join(PRETRAINED)}"
        )
    folder = Path(model)
    if (folder / clouds.CONFIG).exists():
        return clouds.load(folder)
    if (folder / calodream.CONFIG).exists():
        return calodream.load(folder)
    if str(model) in PRETRAINED:
        return pretrained(str(model))
    others = {bib_ae.CONFIG: "bib_ae", layer_flows.CONFIG: "layer_flows"}
    for config, room in others.items():
        if (folder / config).exists():
            raise ValueError(
                f"{model} holds showers of merged cells, not those of a file's voxels; "
                f"jgen.showers.{room}.load reads it"
            )
    raise ValueError(
        f"{model} is no run folder of a trained CaloDREAM or CaloClouds, and none of the "
        f"generators that come with the package: {', '.join(PRETRAINED)}"
    )
