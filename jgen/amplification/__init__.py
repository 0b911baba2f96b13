"""How many true events generated ones are worth (arXiv:2509.08048).

The front door is `forecast`: training, held-out and generated events in, numbers, words and figures
out. What it is made of answers one question each:

What is my ensemble worth in regions?           `region_fractions`, `averaging_amplification`
... if the truth is known?                      `true_amplification`, `calibration`
What is it worth at full resolution?            `differential_amplification` of one observable, a
                                                classifier's ratio or the true `log_density_ratio`
... from a distance that is known already?      `ks_distances`, `equivalent_events`
... as published, for the paper's figures?      `differential_on_training_set`
... in a part of phase space that it knows?     `refinement_mask`
What is it worth in bins of equal probability?  `quantile_mse`, `mse_equivalent_events` (GANs,
                                                arXiv:2008.06545), `median_splits`,
                                                `jsd_equivalent_events` (arXiv:2202.07352)
How does a sample of true events fare?          `expected_distance`, `kolmogorov_band`,
                                                `sample_quantile_mse`, `sample_jensen_shannon`
"""

from jgen.amplification.averaging import (
    Averaging,
    Interval,
    averaging_amplification,
    calibration,
    region_fractions,
    true_amplification,
)
from jgen.amplification.differential import (
    differential_amplification,
    differential_on_training_set,
    equivalent_events,
    ks_distances,
    log_density_ratio,
    prefix_sizes,
    refinement_mask,
)
from jgen.amplification.forecasting import Classifiers, Forecast, Selection, Statistic, forecast
from jgen.amplification.kolmogorov import expected_distance, kolmogorov_band
from jgen.amplification.quantiles import (
    bin_fractions,
    fit_quantile_mse,
    jensen_shannon,
    jsd_equivalent_events,
    mean_and_error,
    median_splits,
    mse_equivalent_events,
    product_bins,
    quantile_mse,
    sample_jensen_shannon,
    sample_quantile_edges,
    sample_quantile_mse,
    split_bins,
)

__all__ = [
    "Averaging",
    "Classifiers",
    "Forecast",
    "Interval",
    "Selection",
    "Statistic",
    "averaging_amplification",
    "bin_fractions",
    "calibration",
    "differential_amplification",
    "differential_on_training_set",
    "equivalent_events",
    "expected_distance",
    "fit_quantile_mse",
    "forecast",
    "jensen_shannon",
    "jsd_equivalent_events",
    "kolmogorov_band",
    "ks_distances",
    "log_density_ratio",
    "mean_and_error",
    "median_splits",
    "mse_equivalent_events",
    "prefix_sizes",
    "product_bins",
    "quantile_mse",
    "refinement_mask",
    "region_fractions",
    "sample_jensen_shannon",
    "sample_quantile_edges",
    "sample_quantile_mse",
    "split_bins",
    "true_amplification",
]
