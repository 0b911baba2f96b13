"""`python -m experiments.amplification.ganplification`."""

from experiments.amplification.ganplification.study import STUDY
from experiments.study import main

main(STUDY)
