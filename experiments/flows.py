"""Every family of bijectors on toys, jets and digits, beside exact entropies and mixtures.

    python -m experiments.flows

takes 17 minutes on 2 idle cores (the sum of 74 trainings of 2 to 38 seconds, half of that
compilation, and of their judgement; 29 minutes beside other work), the preset smoke under one
minute. Three toys whose entropy is known (moons and circles of noise 0.05, eight Gaussians), four
features of Pythia jets (pT, mass, tau21, tau32) and scikit-learn's digits of 8 x 8 pixels; flows of
the same sizes, one training each, no options tuned for a single family but for the continuous ones.

What the default preset gave. Negative log-likelihoods in nats over the truth (toys) or over ten
Gaussians behind the same fixed map (jets); of digits the log-likelihood itself:

    moons             RQ coupling 0.006(1), quadratic 0.007(1), cubic 0.009(1), MAF-RQS 0.012(1),
                      continuous 0.026(2), the same net flow-matched 0.030(2), RealNVP 0.041(2),
                      planar 0.062(3), residual 0.15, radial 0.56, a Gaussian 1.59. The entropy is
                      0.289; that of 10,000 test events 0.286(7).
    circles           continuous and RQ coupling 0.021(1), MAF-RQS 0.024(2), MAF 0.15, residual 0.85
    eight Gaussians   cubic 0.013(1), MAF-RQS 0.020(2), planar 0.023(2), RealNVP 0.32, MAF 0.35
    jets              RQ coupling -0.039(4), quadratic -0.037(3), RealNVP -0.020(3), linear 0.38
    digits            quadratic 96.4(6), cubic 95.8, RQ 95.4, Glow 93.2, RealNVP 92.5, linear 87.5
                      nats of log-likelihood; ten Gaussians on the pixels 67.5(11), behind the map
                      91.8(6)

A flow of additive or Lipschitz-bounded layers is slow to tear a blob into rings: NICE stays a
Gaussian on the circles, and residual layers at 0.85 nats.

Digits are (level + noise) / 17. All families train behind a fixed map under which every pixel by
itself is normal, and with other noise at every step; most of what separates them from ten Gaussians
on the pixels is that map. One seed: errors are those of the test
events, and another training moves small gaps by as much as their size. In the continuous flow's
training the solver needs eight steps: with four, the loss of the discrete solver went to -6
nats in a pilot, and that of the flow to +12.
"""

from pathlib import Path

import jax

from experiments._command_line import run
from experiments._flows import (
    Config,
    baselines,
    check_options,
    pairs,
    train_and_judge,
)
from experiments._flows_data import make_data
from experiments._flows_families import make_model
from experiments._flows_presets import DEFAULT, SMOKE
from experiments._flows_report import data_figures, data_metrics, gap_figure, table
from jgen.nets import num_parameters
from jgen.training import RunFolder

PRESETS = {"default": DEFAULT, "smoke": SMOKE}


def main(config: Config, out: Path, *, plot_only: bool = False) -> dict[str, float]:
    """Train all families on all data sets, judge and draw them; returns metrics, see metrics.json.

    With f for a family and d for a data set; each with an error in <kind>_error/...:

    nll/f/d              mean of -log q over the test events, in nats and in the data's own units
    entropy/d            of a toy: the best that can be, by quadrature
    truth/d              of a toy: -log p over the same test events
    mixture/d            of jets and digits: NLL of ten Gaussians in the data's own units, and
    mapped_mixture/d     behind the map that the flows train behind
    gap/f/d              nll minus truth or mapped_mixture, event by event: for toys an estimate of
                         the Kullback-Leibler divergence, with a far smaller error than the NLL
    w1/f/d, w1/truth/d   mean over columns of the Wasserstein distance to the test events, in their
                         standard deviations; truth: training events, as many as are drawn
    continuous_minus_matching/d   difference in NLL of one velocity trained in both ways

    and without an error ms_sample/f/d and ms_log_prob/f/d, milliseconds an event in batches of
    1000, without compilation; train_s/f/d, seconds with compilation; parameters/f/d.
    """
    check_options(config)
    wanted = {pair: out / pair[0] / pair[1] for pair in pairs(config)}
    if plot_only:
        for path in wanted.values():
            if not (path / "results.npz").exists():
                raise ValueError(f"{path} is not there to plot; run without --plot-only first")
    folder = RunFolder(out, config)
    metrics = {}
    for name in config.data:
        data = make_data(name, config.num_train, config.num_test, config.seed)
        found = {
            family: train_and_judge(config, name, family, data, path)
            for (d, family), path in wanted.items()
            if d == name
        }
        if jax.process_index() != 0 or not found:
            continue
        baseline = baselines(config, data, out / name / "baselines.npz")
        metrics |= data_metrics(config, name, data, found, baseline)
        data_figures(config, folder, name, data, found)
    if jax.process_index() != 0:
        return {}
    gap_figure(config, folder, metrics)
    folder.write_metrics(metrics)
    print(table(config, metrics))
    return metrics


def count_parameters(config: Config) -> dict[str, int]:
    """Of every model."""
    dims = {"jets": 4, "digits": 64}
    return {
        f"{family} {name}": num_parameters(make_model(family, config.sizes, dims.get(name, 2)).init)
        for name, family in pairs(config)
    }


if __name__ == "__main__":
    run("flows", __doc__, PRESETS, main, count_parameters)
