"""python -m experiments.energies.boltzmann."""

from experiments.energies.boltzmann.study import STUDY
from experiments.study import main

main(STUDY)
