"""How to set the temperature and the degrees of freedom of t-SimCLR, and what they do."""

from sscl_experiments.study import Study

from .parameters import TemperatureAndDf

STUDY = Study("09_temperature_and_df", TemperatureAndDf)
