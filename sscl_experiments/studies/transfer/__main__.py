"""The search for the settings, which writes its table among the records."""

from sscl_experiments.paths import results_dir

from .tuning import tune, write

if __name__ == "__main__":
    write(tune(results_dir() / "runs"))
