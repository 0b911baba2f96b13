"""One smoke run of each study, made by the first test of the session that asks for it."""

import fcntl
import importlib
import os

import pytest

from experiments import study
from experiments.__main__ import studies


def evaluate_arguments(folder, smoke):
    """Two files of Geant4 showers."""
    from jgen.showers import get_geometry, read_showers, sample_path, write_showers

    geometry = get_geometry("ds2")
    paths = folder / "reference.h5", folder / "generated.h5"
    for i, path in enumerate(paths):
        if not path.exists():
            showers = read_showers(sample_path(), geometry, 150 * i, 150 * (i + 1))
            write_showers(path, showers, geometry)
    return paths


# What some studies need on the command line: name -> (folder for files, smoke) -> arguments.
ARGUMENTS = {
    "evaluate": evaluate_arguments,
    "generate": lambda folder, smoke: ("--model", smoke("calodream"), "--num", 20),
}


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A folder for all workers of the session."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "studies"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def command(shared):
    """The command line of a study in this process: command(name, *arguments) -> metrics."""

    def smoke(name):
        """Folder of the finished run of the preset smoke; tests that change it take a copy."""
        out = shared / name
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (out / "metrics.json").exists():
                command(name, "--out", out)
        return out

    def command(name, *arguments):
        module = importlib.import_module(studies()[name][0])
        needed = ARGUMENTS.get(name, lambda folder, smoke: ())(shared, smoke)
        return study.run(module.STUDY, [*needed, "--preset", "smoke", *arguments])

    command.smoke = smoke
    return command


@pytest.fixture(scope="session")
def smoke(command):
    """Folder of the finished smoke run of a study: smoke(name)."""
    return command.smoke
