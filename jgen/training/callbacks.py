"""What is told how a training goes: callbacks for TensorBoard and Weights & Biases.

with tensorboard("logs/first") as log:
    fit(model, data, key, config, callbacks=[log])
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

Callback = Callable[[int, dict[str, Any]], None]
"""(step, metrics): what a line of the metrics file holds, such as {"loss": [0.31], "grad_norm":
[0.2], "seconds": 1.5} or {"validation_loss": [0.33]}; lists have a number for each member."""


@contextmanager
def tensorboard(folder: str | os.PathLike) -> Iterator[Callback]:
    """A callback that writes scalars for TensorBoard: `tensorboard --logdir FOLDER`.

    A resumed training writes the steps after its last checkpoint once more.

    Raises:
      ValueError: if tensorboardX is not installed.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise ValueError(
            "logs for TensorBoard need tensorboardX: pip install tensorboardX"
        ) from error
    with SummaryWriter(os.fspath(folder)) as writer:

        def log(step, metrics):
            for name, value in scalars(metrics).items():
                writer.add_scalar(name, value, step)

        yield log


@contextmanager
def weights_and_biases(**options: Any) -> Iterator[Callback]:
    """A callback that logs to a run of Weights & Biases, finished at the end of the block.

    Of a resumed training it keeps what it has: Weights & Biases ignores steps that go back.

    Args:
      **options: of `wandb.init`, such as project="showers", name="first", mode="offline".

    Raises:
      ValueError: if wandb is not installed.
    """
    try:
        import wandb
    except ImportError as error:
        raise ValueError("logs for Weights & Biases need wandb: pip install wandb") from error
    with wandb.init(**options) as run:
        yield lambda step, metrics: run.log(scalars(metrics), step=step)


def check_callbacks(callbacks: Sequence[Callback]) -> None:
    """Refuse what cannot be called, such as a context that was not entered, or is no list."""
    if not isinstance(callbacks, Sequence):
        raise ValueError(
            f"callbacks must be a list of functions (step, metrics), got {callbacks!r}; use [one]"
        )
    for one in callbacks:
        if not callable(one) or hasattr(one, "__enter__"):
            raise ValueError(
                f"callbacks must be functions (step, metrics), got {type(one).__name__}; those of "
                "TensorBoard and Weights & Biases are what `with tensorboard(folder) as log:` names"
            )


def scalars(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Numbers by name: `loss` of one member, `loss/0`, `loss/1`, ... of several."""
    flat = {}
    for name, value in metrics.items():
        values = np.ravel(value).tolist()
        names = [name] if len(values) == 1 else [f"{name}/{i}" for i in range(len(values))]
        flat |= dict(zip(names, values, strict=True))
    return flat
