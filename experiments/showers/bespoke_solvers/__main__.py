"""python -m experiments.showers.bespoke_solvers."""

from experiments.showers.bespoke_solvers.study import STUDY
from experiments.study import main

main(STUDY)
