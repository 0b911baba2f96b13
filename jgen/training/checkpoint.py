"""Checkpoints by orbax: atomic, sharded, restored onto any mesh."""

from pathlib import Path

import jax

from jgen.typing import PyTree


class Checkpoints:
    """Numbered checkpoints of one training in a folder; all processes call every method."""

    def __init__(self, folder: Path, keep: int = 2):
        """Open (and make) the folder; the `keep` newest checkpoints stay."""
        # It takes as long to import as all else, and a training without a folder needs none of it.
        import orbax.checkpoint as ocp

        self._args = ocp.args
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        self._manager = ocp.CheckpointManager(Path(folder).resolve(), options=options)

    def latest(self) -> int | None:
        """Step of the newest complete checkpoint, None if there is none."""
        return self._manager.latest_step()

    def save(self, step: int, tree: PyTree) -> None:
        """Write a checkpoint unless that step has one; returns when the device copy is made."""
        if self.latest() != step:
            self._manager.save(step, args=self._args.StandardSave(tree))

    def restore(self, step: int, like: PyTree) -> PyTree:
        """Read a checkpoint.

        Args:
          step: its step.
          like: arrays or shapes with shardings that say where the restored arrays go.

        Raises:
          ValueError: if what was saved has another structure than `like`.
        """
        shapes = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), like
        )
        return self._manager.restore(step, args=self._args.StandardRestore(shapes))

    def close(self) -> None:
        """Wait for writes to finish."""
        self._manager.wait_until_finished()
        self._manager.close()
