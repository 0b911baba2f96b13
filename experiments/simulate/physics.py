"""Which physics list Geant4 can run with the data that are installed."""

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path

DATA = {
    "G4EMLOW": "G4LEDATA",
    "G4PARTICLEXS": "G4PARTICLEXSDATA",
    "PhotonEvaporation": "G4LEVELGAMMADATA",
    "G4ENSDFSTATE": "G4ENSDFSTATEDATA",
}
"""Geant4's data sets and the variables that may point to them: the first for electromagnetic
physics, all for FTFP_BERT."""
ADVICE = (
    'run `python -c "import geant4_pybind"` in a terminal and answer y to download the data, or '
    "set GEANT4_DATA_DIR to the folder that holds them"
)


def choose_physics(wanted: str, particle: str, environment: Mapping[str, str] | None = None) -> str:
    """The physics list to run.

    Args:
      wanted: its name, or auto: FTFP_BERT if its data are installed, else G4EmStandardPhysics.
      particle: Geant4's name of the incident particle.
      environment: variables, those of this process unless given.

    Raises:
      ValueError: if Geant4 or data are missing; says what to install.
    """
    environment = os.environ if environment is None else environment
    if importlib.util.find_spec("geant4_pybind") is None:
        raise ValueError('Geant4 is not installed; run `pip install -e ".[simulation]"` first')
    missing = [name for name in DATA if not _is_installed(name, environment)]
    if "G4EMLOW" in missing:
        raise ValueError(f"Geant4's data set G4EMLOW was not found; {ADVICE}")
    if particle == "pi+" and wanted == "G4EmStandardPhysics":
        raise ValueError(f"pi+ needs hadronic physics, which {wanted} has not; use FTFP_BERT")
    if not missing:
        return "FTFP_BERT" if wanted == "auto" else wanted
    if wanted == "FTFP_BERT" or particle == "pi+":
        raise ValueError(
            f"the physics list FTFP_BERT needs Geant4's data sets {', '.join(missing)}, which were "
            f"not found; {ADVICE}. e-, e+ and gamma also run with --physics G4EmStandardPhysics"
        )
    return "G4EmStandardPhysics"


def _is_installed(name: str, environment: Mapping[str, str]) -> bool:
    """Whether a data set is where Geant4 and geant4-pybind look for it, and not empty."""
    variable = environment.get(DATA[name])
    folders = [Path(variable)] if variable else []
    folder = environment.get("GEANT4_DATA_DIR")
    downloads = Path(environment.get("HOME") or Path.home()) / ".geant4_pybind"
    folders += Path(folder or downloads).glob(f"{name}[0-9]*")
    return any(path.is_dir() and any(path.iterdir()) for path in folders)
