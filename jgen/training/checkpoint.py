"""Checkpoints by orbax: atomic, sharded, restored onto any mesh."""

import warnings
from pathlib import Path

import jax

from jgen.files import make_folder
from jgen.typing import PyTree


class Checkpoints:
    """Numbered checkpoints of one training in a folder; all processes call every method.

    A context manager: writes go on beside the training and are finished when it is closed.
    """

    def __init__(self, folder: Path, keep: int = 2):
        """Open (and make) the folder; the `keep` newest checkpoints stay.

        Raises:
          ValueError: if there is a file of that name.
        """
        # It takes as long to import as all else, and a training without a folder needs none of it.
        import orbax.checkpoint as ocp

        self._args = ocp.args
        self._path = Path(folder)
        make_folder(self._path)
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        self._open = lambda: ocp.CheckpointManager(self._path.resolve(), options=options)
        self._manager = self._open()

    def latest(self) -> int | None:
        """Step of the newest complete checkpoint, None if there is none."""
        return self._manager.latest_step()

    def save(self, step: int, tree: PyTree) -> None:
        """Write a checkpoint unless that step has one; returns when the device copy is made."""
        if self.latest() != step:
            self._manager.save(step, args=self._args.StandardSave(tree))

    def newest(self, like: PyTree) -> tuple[PyTree | None, int]:
        """The newest checkpoint that can be read, and its step; (None, 0) if there is none at all.

        Damaged ones, of a full disk or a copy that stopped, are deleted with a warning.

        Args:
          like: arrays or shapes with shardings that say where the restored arrays go.

        Raises:
          ValueError: if they are of another model, ensemble or optimiser, or all are damaged.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                return self.restore(step, like), step
            except Exception as error:  # orbax, tensorstore and json have many kinds
                if self._is_of_another(step, like):
                    raise ValueError(
                        f"{self._path} holds a training of another model, ensemble or optimiser; "
                        "choose another folder"
                    ) from error
                warnings.warn(
                    f"the checkpoint of step {step} in {self._path} is damaged "
                    f"({type(error).__name__}) and is deleted; going on from the one before",
                    stacklevel=2,
                )
                self._manager.delete(step)
                # What a manager takes for the layout of all comes from the newest when it opens.
                self._manager.close()
                self._manager = self._open()
        if steps:
            raise ValueError(
                f"all checkpoints in {self._path} were damaged; delete the folder to begin anew"
            )
        return None, 0

    def _is_of_another(self, step: int, like: PyTree) -> bool:
        """Whether a checkpoint that cannot be restored says that it has other arrays."""
        try:
            stored = self._manager.item_metadata(step).tree
        except Exception:
            return False
        shapes = lambda tree: {
            jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        }
        plain = lambda tree: {k.replace("'", ""): v for k, v in shapes(tree).items()}
        return plain(stored) != plain(like)

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

    def __enter__(self) -> "Checkpoints":
        """Itself."""
        return self

    def __exit__(self, *_) -> None:
        """Wait for writes to finish, also where the training was interrupted."""
        try:
            self._manager.wait_until_finished()
        finally:  # also where a write failed, of which that tells
            self._manager.close()
