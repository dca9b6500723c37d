"""MoCo-v2 and t-MoCo: a slowly moving key encoder, and a queue of its keys as negatives.

One view of an image is the query q, the other its positive key k⁺; the negatives are the keys of
earlier batches. Source: He et al. 2020 and Chen et al. 2020 (MoCo, MoCo-v2); for Student's t, and
for BatchNorm on the features in the place of the sphere, the authors' t-MoCo-v2. BatchNorm on z is
`config.Projector.batchnorm`.
"""

import copy
import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from .batches import Batch, Data, source
from .checks import Scalar, check_floating, check_values, check_whole, features, require, single
from .config import InfoNCE, SpectralContrastive, TrainConfig
from .fit import fit
from .models import Encoder
from .similarities import Cosine, Student, full_precision, in_precision_of
from .train import TrainResult, computing, device_of, initial_network, precision

Similarity = Cosine | Student


def moco(
    q: Float[Tensor, "n d"],
    k: Float[Tensor, "n d"],
    queue: Float[Tensor, "K d"],
    *,
    temperature: Scalar = 0.2,
    validate: bool = True,
) -> Float[Tensor, ""]:
    """Mean over the n queries of  -l_i + log(exp l_i + Σ_j exp(cos(q_i, queue_j)/temperature)).

    l_i = cos(q_i, k_i)/temperature. No gradient flows into `k` and `queue`. An empty queue gives 0.
    Raises what `losses` says, and `ValueError` for shapes that do not fit.
    """
    return _against_queue(Cosine(temperature), q, k, queue, validate=validate)


def t_moco(
    q: Float[Tensor, "n d"],
    k: Float[Tensor, "n d"],
    queue: Float[Tensor, "K d"],
    *,
    temperature: Scalar = 0.2,
    df: Scalar = 5.0,
    validate: bool = True,
) -> Float[Tensor, ""]:
    """Mean over the n queries of  -log s(q_i, k_i) + log(s(q_i, k_i) + Σ_j s(q_i, queue_j)).

    s(a, b) = (1 + ‖a - b‖² / (temperature · df))^(-(df + 1)/2), as in `losses.t_simclr`; normalised
    for each query, as in the authors' code. Otherwise as `moco`.
    """
    return _against_queue(Student(temperature, df), q, k, queue, validate=validate)


def _against_queue(
    similarity: Similarity, q: Tensor, k: Tensor, queue: Tensor, *, validate: bool
) -> Float[Tensor, ""]:
    cosine = similarity.metric == "cosine"
    q = features(q, name="q", validate=validate, cosine=cosine)
    k = features(k, name="k", validate=validate, cosine=cosine).detach()
    check_floating("queue", queue)
    if q.shape != k.shape or queue.ndim != 2 or queue.shape[1] != q.shape[1]:
        shapes = f"{tuple(q.shape)}, {tuple(k.shape)} and {tuple(queue.shape)}"
        raise ValueError(f"q, k and queue must have shapes (n, d), (n, d) and (K, d), got {shapes}")
    if validate and len(queue):
        check_values("queue", queue.detach(), cosine=cosine)
    negatives = single(queue).detach().to(q.dtype)
    with full_precision(q):
        # All in one call, so that all are in the same units and precision.
        rows = similarity.rows(torch.cat([q, k, negatives]), validate=validate)
        a, b, n = rows.split([len(q), len(k), len(negatives)])
        positive = similarity.log_s_of_pairs(a, b)
        excess = _log_s_between(similarity, a, n) - positive[:, None]
        # log(1 + Σ s / s⁺): never below 0, and exact however small.
        zero = excess.new_zeros(len(excess), 1)
        return in_precision_of(q, torch.cat([zero, excess], 1).logsumexp(1).mean())


def _log_s_between(
    similarity: Similarity, a: Float[Tensor, "n d"], b: Float[Tensor, "K d"]
) -> Float[Tensor, "n K"]:
    """log s of every row of a with every row of b, both in the units of `rows`: n·K memory."""
    if isinstance(similarity, Cosine):
        return a @ b.T
    # Centred first: the products would lose everything far from the origin.
    center = b.mean(0) if len(b) else a.new_zeros(a.shape[1])
    a, b = a - center, b - center
    lengths = a.square().sum(1)[:, None] + b.square().sum(1)
    squared = torch.addmm(lengths, a, b.T, alpha=-2).clamp_min(0)
    df = similarity.degrees_of_freedom
    if isinstance(df, float) and math.isinf(df):
        return -squared
    return -(df + 1) / 2 * squared.log1p()


class Queue(nn.Module):
    """The last `size` keys, in the order in which they came; fewer until so many have come.

    It starts empty: random keys, which the published code begins with, have no meaning where the
    scale of the features counts. `ValueError`: a size below 1.
    """

    buffer: Tensor
    start: Tensor
    filled: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        check_whole("size", size, 1)
        check_whole("dim", dim, 1)
        self.register_buffer("buffer", torch.zeros(size, dim))
        self.register_buffer("start", torch.zeros((), dtype=torch.long))  # where the next key goes
        self.register_buffer("filled", torch.zeros((), dtype=torch.long))

    def __len__(self) -> int:
        return int(self.filled)

    @torch.no_grad()
    def push(self, keys: Float[Tensor, "n d"]) -> None:
        """Takes the keys of a batch of any size in; the oldest go.

        `ValueError`: keys of another width.
        """
        size, dim = self.buffer.shape
        require(keys.shape[1] == dim, "keys", keys, f"of shape (n, {dim}), the queue's width")
        kept = keys.detach()[-size:].to(self.buffer)
        place = (self.start + torch.arange(len(kept), device=self.start.device)) % size
        self.buffer[place] = kept
        self.start.copy_((self.start + len(kept)) % size)
        self.filled.copy_((self.filled + len(kept)).clamp_max(size))

    def keys(self) -> Float[Tensor, "filled d"]:
        """The keys that are in it, in the order of the buffer: a loss is a sum over them."""
        return self.buffer[: len(self)].clone()

    def in_order(self) -> Float[Tensor, "filled d"]:
        """The keys, the oldest first."""
        return self.keys().roll(-int(self.start) if len(self) == len(self.buffer) else 0, 0)


@torch.no_grad()
def momentum_update(keys: nn.Module, queries: nn.Module, momentum: float) -> None:
    """θ_key ← momentum · θ_key + (1 - momentum) · θ_query, for every parameter.

    Buffers are left alone: running statistics come from what the key encoder itself sees.
    """
    for slow, fast in zip(keys.parameters(), queries.parameters(), strict=True):
        slow.mul_(momentum).add_(fast, alpha=1 - momentum)


def dealt(n: int, groups: int) -> list[Int64[Tensor, "..."]]:
    """The rows 0..n-1 dealt like cards to groups: g, g + groups, g + 2·groups, …"""
    return [torch.arange(first, n, groups) for first in range(groups)]


def contiguous(n: int, groups: int) -> list[Int64[Tensor, "..."]]:
    """The rows 0..n-1 cut into groups of neighbors."""
    return list(torch.arange(n).tensor_split(groups))


class MoCo(nn.Module):
    """Query encoder, key encoder and queue; `forward` is one step's loss, which fills the queue.

    BatchNorm leaks where a query and its positive key are normalised with the same images: both
    then carry the statistics of their batch, as no key of the queue does, and the network can tell
    the positive by them (He et al. 2020, section 3.3). So queries and keys are normalised in
    `groups` parts of a batch each: queries in parts of neighbors, keys in parts that are dealt like
    cards, so that the images that a query shares with the part of its key are as few as can be.
    That is MoCo's shuffling between GPUs, on one device. `shuffle=False` leaves it out, to show
    what it is for.

    A batch with fewer than two images for each group, as the last one of an epoch may be, has as
    many groups as it has pairs of images.

    `ValueError`: a momentum outside [0, 1), fewer than one group or place in the queue.
    """

    def __init__(
        self,
        queries: Encoder,
        dim: int,
        *,
        queue_size: int,
        similarity: Similarity,
        momentum: float = 0.999,
        groups: int = 8,
        shuffle: bool = True,
    ) -> None:
        super().__init__()
        require(0 <= momentum < 1, "momentum", momentum, "in [0, 1)")
        check_whole("groups", groups, 1)
        self.queries, self.key_encoder = queries, copy.deepcopy(queries)
        self.key_encoder.requires_grad_(False)
        self.queue = Queue(queue_size, dim)
        self.similarity, self.momentum = similarity, momentum
        self.groups, self.shuffle = groups, shuffle

    def forward(self, x1: Float[Tensor, "n ..."], x2: Float[Tensor, "n ..."]) -> Float[Tensor, ""]:
        n = len(x1)
        groups = max(1, min(self.groups, n // 2))
        q = in_groups(self.queries, x1, contiguous(n, groups))
        momentum_update(self.key_encoder, self.queries, self.momentum)
        with torch.no_grad():
            k, of_all = self.keys(x2, groups)
        loss = _against_queue(self.similarity, q, k, self.queue.keys(), validate=False)
        self.queue.push(of_all)
        return loss

    def keys(
        self, x2: Float[Tensor, "n ..."], groups: int
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, "m d"]]:
        """The keys of these images, and those that go into the queue: here the same."""
        parts = (dealt if self.shuffle else contiguous)(len(x2), groups)
        k = in_groups(self.key_encoder, x2, parts)
        return k, k


def in_groups(
    encoder: nn.Module, x: Float[Tensor, "n ..."], groups: list[Int64[Tensor, "..."]]
) -> Float[Tensor, "n d"]:
    """z of every row in at least float32, each group through the encoder by itself."""
    parts = [encoder(x[rows.to(x.device)])[1] for rows in groups]
    back = torch.cat(groups).argsort().to(x.device)
    return single(torch.cat(parts))[back]


def train_moco(
    config: TrainConfig,
    data: Data,
    *,
    queue_size: int = 4096,
    momentum: float = 0.999,
    groups: int = 8,
    device: str = "auto",
    progress: bool = False,
) -> TrainResult:
    """`train.train` with this objective: batches, optimiser and random streams are the same.

    `config.loss`: InfoNCE for MoCo-v2, t_simclr for t-MoCo, which is normalised for each query
    whatever its `normalization`. The network that is handed back is the query encoder.

    `ValueError`: what `MoCo` refuses, a batch too small for its groups, or a loss, weights or a
    learned df, which this objective does not have.
    """
    similarity = similarity_of(config)
    rule = f"{2 * groups} or more: two images for each of {groups} groups"
    require(config.batch_size >= 2 * groups, "batch_size", config.batch_size, rule)
    with computing(config):
        place = device_of(device)
        network = initial_network(config, source(config, data, place).sample_shape).to(place)
        model = MoCo(
            network,
            config.projector.dim,
            queue_size=queue_size,
            similarity=similarity,
            momentum=momentum,
            groups=groups,
        ).to(place)

        def loss_of(batch: Batch, step: int) -> Tensor:
            with precision(config, place):
                return model(batch.x1, batch.x2)

        return fit(config, data, network, loss_of, progress=progress)


def similarity_of(config: TrainConfig) -> Similarity:
    """That of the loss of a run. `ValueError`: one that this objective does not have."""
    loss = config.loss
    if isinstance(loss, SpectralContrastive) or config.weights is not None:
        raise ValueError(
            f"loss must be info_nce or t_simclr, without weights, got {loss.name!r} "
            f"with weights {config.weights}"
        )
    if isinstance(loss, InfoNCE):
        return Cosine(loss.temperature)
    require(not loss.learn_df, "learn_df", loss.learn_df, "False: the queue holds older keys")
    return Student(loss.temperature, loss.df)
