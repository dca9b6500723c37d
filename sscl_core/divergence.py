"""When a loss stops being a number: which runs, at which step, and what can be behind it."""

from collections.abc import Iterator, Mapping, Sequence

from .config import (
    MLP,
    Agnostic,
    Images,
    Mixture,
    Noise,
    Points,
    SpectralContrastive,
    TrainConfig,
    TSimCLR,
)


class NonFiniteLossError(ArithmeticError):
    """Training met a loss that is NaN or infinite; `finished` are the results of runs beside it."""

    def __init__(self, message: str, finished: Sequence = ()) -> None:
        super().__init__(message)
        self.finished = list(finished)


def diverged(config: TrainConfig, steps: Mapping[int, int], name: str = "the loss") -> str:
    """What happened, in which seeds at which steps, and every setting that can be behind it."""
    seeds = [f"seed {seed} (at or before step {step})" for seed, step in steps.items()]
    causes = "; ".join(_remedies(config))
    what = f"{name} became NaN or infinite in {', '.join(seeds)}"
    return f"{what}: what can cause that here, one at a time: {causes}"


def _remedies(config: TrainConfig) -> Iterator[str]:
    yield f"lower optimizer.lr ({config.optimizer.lr:g})"
    if config.optimizer.weight_decay:
        yield f"lower optimizer.weight_decay ({config.optimizer.weight_decay:g})"
    if not isinstance(config.loss, SpectralContrastive):
        yield f"raise loss.temperature ({config.loss.temperature:g})"
    if isinstance(config.loss, TSimCLR) and config.loss.learn_df:
        yield f"start the learned loss.df elsewhere ({config.loss.df:g}), or leave it fixed"
    if isinstance(config.backbone, MLP) and config.backbone.init_scale != 1:
        yield f"move backbone.init_scale ({config.backbone.init_scale:g}) towards 1"
    if config.weights:
        yield f"move weights.temperature ({config.weights.temperature:g}) away from 0"
    for step in _agnostic_steps(config):
        if isinstance(step, Noise):
            yield f"lower the scale of the noise ({step.scale:g})"
    if isinstance(config.data, Mixture):
        yield f"look at the size of data.means and data.std ({config.data.std:g})"
    if config.precision != "32-true":
        yield "use precision '32-true'"


def _agnostic_steps(config: TrainConfig) -> Sequence[Agnostic]:
    if isinstance(config.data, Points):
        return config.data.augmentation
    return config.data.augmentation.then if isinstance(config.data, Images) else ()
