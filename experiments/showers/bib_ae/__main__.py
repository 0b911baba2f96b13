"""python -m experiments.showers.bib_ae."""

from experiments.showers.bib_ae.study import STUDY
from experiments.study import main

main(STUDY)
