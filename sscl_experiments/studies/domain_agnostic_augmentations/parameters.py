"""What the notebook runs: noise as SNE, a map of clouds, and noise of the data's covariance."""

import math
from typing import Annotated, Any

from pydantic import Field, PositiveInt, model_validator

from sscl_core.config import MLP, Agnostic, Cloud, Mixup, Noise, Points, TrainConfig, TSimCLR
from sscl_experiments.covariance_config import COVARIANCE, whitened
from sscl_experiments.parameters import Parameters
from sscl_experiments.settings import METHODS, NETWORK, Setting, vector_run
from sscl_experiments.variants import untrained, with_seeds

CloudKey = tuple[str, str, float]  # cloud, augmentation, strength
# One setting of noise as SNE, as (factor, level): the others differ from it in one factor.
BASE = ("noise σ", "0.4")
BASE_NOISE = Noise(scale=0.4)
# The similarity exp(-‖·‖²), normalised over all pairs.
SYMMETRIC_SNE = Setting(loss=TSimCLR(temperature=0.5, df=math.inf), batchnorm=False)


class DomainAgnostic(Parameters):
    """Sizes; every part has `seeds` seeds, and every network is trained for `steps`.

    Noise as SNE: clouds of `points` points. The map: networks on each of the clouds named in
    `clouds`, for every augmentation and strength. Noise of the data's covariance: on
    `control_clouds`, which are among `clouds`.
    """

    points: Annotated[int, Field(ge=30, le=2000)]
    clouds: Annotated[tuple[str, ...], Field(min_length=1)]
    control_clouds: tuple[str, ...]
    steps: PositiveInt

    @model_validator(mode="after")
    def _known_clouds(self) -> "DomainAgnostic":
        if unknown := set(self.clouds) - set(CLOUDS):
            raise ValueError(f"clouds must be among {list(CLOUDS)}, got {sorted(unknown)}")
        needed = {"clouds": PREMISE_CLOUDS + NUISANCE_CLOUDS, "control_clouds": NUISANCE_CLOUDS}
        for name, own in needed.items():
            if missing := sorted(set(own) - set(getattr(self, name))):
                raise ValueError(f"{name} must include {missing}: claims are decided on them")
        if unknown := set(self.control_clouds) - set(self.clouds):
            raise ValueError(f"control_clouds must be among clouds, got {sorted(unknown)}")
        return self

    def noise_runs(self) -> dict[tuple[str, str], list[TrainConfig]]:
        """(factor, level) and its runs: each but the controls changes one thing in `BASE`."""
        few, many = self.points // 3, 2 * self.points
        steps = {f"{std:g}": Noise(scale=std) for std in (0.1, 0.2, 0.4, 0.8)}
        changes: dict[tuple[str, str], dict[str, Any]] = {
            **{("noise σ", level): {"step": step} for level, step in steps.items()},
            ("network", "linear"): {"backbone": MLP(depth=0)},
            ("network", "width 8"): {"backbone": MLP(width=8)},
            ("network", "depth 4"): {"backbone": MLP(width=64, depth=4)},
            ("points", str(few)): {"n_train": few},
            ("points", str(many)): {"n_train": many},
            ("input dimension", "10"): {"dim": 10},
            ("kind of noise", "uniform"): {"step": Noise(scale=0.4, kind="uniform")},
            ("control", "mixup"): {"step": Mixup(strength=1.0)},
        }
        runs = {key: self._noise_group(**change) for key, change in changes.items()}
        return runs | {("control", "untrained"): untrained(runs[BASE])}

    def _noise_group(
        self, step: Agnostic = BASE_NOISE, backbone: MLP = NETWORK, **changes: int
    ) -> list[TrainConfig]:
        """Runs with SNE's own similarity on a cloud in the plane, `changes` in the cloud."""
        cloud = Cloud(dim=2, components=3, std=0.2, n_train=self.points).replace(**changes)
        points = Points(points=cloud, augmentation=(step,))
        first = vector_run(
            points, SYMMETRIC_SNE, 2, self.steps, self.seed, backbone=backbone, batch=64
        )
        return with_seeds(first, self.seed_range)

    def map_runs(self) -> dict[CloudKey, list[TrainConfig]]:
        """(cloud, augmentation, strength) and its runs."""
        runs: dict[CloudKey, list[TrainConfig]] = {}
        for cloud in self.clouds:
            for strength, step in CLOUD_STEPS:
                points = Points(points=CLOUDS[cloud], augmentation=(step,))
                first = vector_run(points, METHODS["SimCLR"], 8, self.steps, self.seed)
                runs[cloud, step.name, strength] = with_seeds(first, self.seed_range)
        return runs

    def untrained_runs(self) -> dict[str, list[TrainConfig]]:
        """The networks of the map before training, by cloud."""
        trained = {cloud: runs for (cloud, _, _), runs in self.map_runs().items()}
        return {cloud: untrained(runs) for cloud, runs in trained.items()}

    def control_runs(self) -> dict[CloudKey, list[TrainConfig]]:
        """(cloud, "covariance noise", strength) and its runs.

        The noise is isotropic in whitened coordinates, so its strength is in units of the data's
        own standard deviation.
        """
        runs: dict[CloudKey, list[TrainConfig]] = {}
        for cloud in self.control_clouds:
            for strength in CONTROL_STRENGTHS:
                step = Noise(scale=strength)
                points = Points(points=CLOUDS[cloud], augmentation=(step,))
                first = vector_run(points, METHODS["SimCLR"], 8, self.steps, self.seed)
                group = with_seeds(first, self.seed_range)
                runs[cloud, COVARIANCE, strength] = whitened(group)
        return runs

    def runs(self) -> list[TrainConfig]:
        groups = [
            *self.noise_runs().values(),
            *self.map_runs().values(),
            *self.control_runs().values(),
            *self.untrained_runs().values(),
        ]
        return [run for runs in groups for run in runs]


# The clouds of the map: one thing changes at a time. Unless they say otherwise they are 500 points
# of five components of standard deviation 0.2.
CLOUDS: dict[str, Cloud] = {
    **{f"isotropic, d={d}": Cloud(dim=d) for d in (8, 64, 256, 512, 1000)},
    **{f"isotropic, σ={std:g}": Cloud(dim=64, std=std) for std in (0.05, 0.1, 0.4)},
    **{f"isotropic, n={n}": Cloud(dim=64, n_train=n) for n in (100, 2000)},
    **{
        f"complement, σ={std:g}": Cloud(dim=64, std=std, structure="complement")
        for std in (0.2, 0.4)
    },
    **{
        f"5 nuisances, σ={std:g}": Cloud(dim=64, std=std, structure="complement", rank=5)
        for std in (0.1, 0.3, 0.5, 1.0, 2.0)
    },
    **{
        f"5 nuisances, d={d}": Cloud(dim=d, std=1.0, structure="complement", rank=5)
        for d in (16, 512)
    },
    **{
        f"{k} nuisances, σ=1": Cloud(dim=64, std=1.0, structure="complement", rank=k)
        for k in (1, 20)
    },
    **{f"manifold, d={d}": Cloud(dim=d, std=0.3, structure="manifold") for d in (64, 512)},
}
# Each augmentation has five strengths, among which the validation part decides.
CLOUD_STEPS: list[tuple[float, Agnostic]] = [
    *((scale, Noise(scale=scale)) for scale in (0.01, 0.03, 0.1, 0.3, 1.0)),
    *((strength, Mixup(strength=strength)) for strength in (0.05, 0.1, 0.3, 0.6, 1.0)),
]
CONTROL_STRENGTHS = (0.1, 0.3, 0.6, 1.0, 2.0)
# Whatever the scale, claims are decided on these. The premise holds (see `separation`) in the
# first, and two directions of nuisance or more are wider than the means are apart in the second.
PREMISE_CLOUDS = ("isotropic, d=8", "5 nuisances, σ=0.3", "manifold, d=64")
NUISANCE_CLOUDS = ("5 nuisances, σ=0.5", "5 nuisances, σ=1")


def separation(cloud: Cloud) -> float:
    """Distance of two means over the root mean square distance of two points of one component.

    C4 speaks of components that are separated and light-tailed: its premise holds where this is
    above 1. The mean square distance is twice the trace of a component's covariance.
    """
    inside = {
        "isotropic": cloud.dim,
        "complement": cloud.rank or cloud.dim - cloud.components + 1,
        "manifold": cloud.components - 1,
    }
    return 1 / math.sqrt(2 * inside[cloud.structure] * cloud.std**2)
