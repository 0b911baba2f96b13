"""`python -m experiments.amplification.shower_amplification`."""

from experiments.amplification.shower_amplification.study import STUDY
from experiments.study import main

main(STUDY)
