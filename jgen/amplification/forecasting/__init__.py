"""The forecast of what generated events are worth: arrays or files in, numbers and words out."""

from jgen.amplification.forecasting.estimates import Selection, Statistic
from jgen.amplification.forecasting.inputs import Inputs, check_inputs
from jgen.amplification.forecasting.measure import Classifiers
from jgen.amplification.forecasting.result import Forecast, forecast

__all__ = [
    "Classifiers",
    "Forecast",
    "Inputs",
    "Selection",
    "Statistic",
    "check_inputs",
    "forecast",
]
