"""Runs on images: what they train on, and what frozen features are worth afterwards."""

from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from sscl_core.augmentations import ImageViews
from sscl_core.config import Images, TrainConfig
from sscl_core.evaluate import backbone_scores, class_similarity, embed, feature_scores
from sscl_core.rng import EVALUATION, SPLIT, VIEWS, stream
from sscl_core.train import TrainResult, train
from sscl_experiments.datasets.images import ImageData, holdout, load_images
from sscl_experiments.record import Record

from .making import Measures, Training, is_collapsed, made

VIEWED = 256  # test images of which pairs of views are kept


@dataclass(frozen=True)
class ImageSets:
    """What a run trains on, is evaluated on, and, with `transfer`, is looked at on afterwards."""

    train: ImageData
    test: ImageData
    transfer: tuple[ImageData, ImageData] | None = None


def image_sets(config: TrainConfig, data_dir: str | Path | None = None) -> ImageSets:
    """The images of a run: `test` is the test set, or the part of the training set held out.

    `ValueError`: fewer images than `n_train`, or a transfer set with another number of channels.
    """
    assert isinstance(config.data, Images)
    train_set = load_images(config.data.name, "train", data_dir=data_dir)
    if config.data.holdout:
        train_set, test_set = holdout(train_set, config.data.holdout)
    else:
        test_set = load_images(config.data.name, "test", data_dir=data_dir)
    used = _first(train_set, config.data.n_train)
    return ImageSets(used, test_set, _transfer(config.data, test_set, data_dir))


def _first(images: ImageData, n: int | None) -> ImageData:
    """The first n of a shuffle, the same for every seed: seeds repeat training, not the data."""
    if n is not None and n > len(images):
        rule = f"at most {len(images)}, the training images there are"
        raise ValueError(f"n_train must be {rule}, got {n}")
    if n is None or n == len(images):
        return images
    with stream(0, SPLIT):
        return images.select(torch.randperm(len(images))[:n])


def _transfer(
    spec: Images, own: ImageData, data_dir: str | Path | None
) -> tuple[ImageData, ImageData] | None:
    if spec.transfer is None:
        return None
    train_set = load_images(spec.transfer, "train", data_dir=data_dir)
    test_set = load_images(spec.transfer, "test", data_dir=data_dir)
    channels = own.images.shape[1]
    if test_set.images.shape[1] != channels:
        rule = f"a set of {channels}-channel images, as {spec.name}"
        raise ValueError(f"transfer must be {rule}, got {spec.transfer}")
    return train_set, test_set


def make(
    config: TrainConfig, *, data_dir: str | Path | None, **training: Unpack[Training]
) -> Record:
    """Trains and measures a run. What evaluation needs and lacks is found out before training."""
    sets = image_sets(config, data_dir)
    return made(
        config,
        lambda: train(config, sets.train.images, **training),
        lambda trained: measure(trained, sets),
    )


def measure(trained: TrainResult, sets: ImageSets) -> Measures:
    """k-NN on z and h, the linear probe on h, the norm of z, df where it was learned, collapse.

    Arrays: the classes' similarities on h and z; for d_z = 2 the map itself, up to 32 the features
    of pairs of views. With `transfer`, h on that set: k-NN and probe from its training to its test
    images, and its classes' similarities.
    """
    h, z = embed(trained.model, sets.train.images)
    h_test, z_test = embed(trained.model, sets.test.images)
    labels, test_labels = sets.train.labels.to(h.device), sets.test.labels.to(h.device)
    on_z = feature_scores(z, labels, z_test, test_labels)
    on_h = backbone_scores(h, labels, h_test, test_labels)
    metrics = {f"{name}_z": value for name, value in on_z.items()}
    metrics |= {f"{name}_h": value for name, value in on_h.items()}
    metrics["collapsed"] = is_collapsed(h_test, z_test)
    metrics["norm_z"] = z_test.norm(dim=1).mean().item()
    arrays = {
        "classes_h": class_similarity(h_test, test_labels),
        "classes_z": class_similarity(z_test, test_labels),
    }
    if trained.model.log_df is not None:
        metrics["df"] = trained.model.log_df.exp().item()
    if sets.transfer is not None:
        near, far = sets.transfer
        h_near, h_far = (embed(trained.model, part.images)[0] for part in sets.transfer)
        own, truth = near.labels.to(h.device), far.labels.to(h.device)
        on_other = backbone_scores(h_near, own, h_far, truth)
        metrics |= {f"{name}_transfer": value for name, value in on_other.items()}
        arrays["classes_transfer"] = class_similarity(h_far, truth)
    if z.shape[1] == 2:
        arrays |= {"z_test": z_test, "labels_test": test_labels}
    if z.shape[1] <= 32:
        arrays["z_views"] = _view_features(trained, sets.test.images[:VIEWED])
    return metrics, {name: value.numpy(force=True) for name, value in arrays.items()}


@torch.no_grad()
def _view_features(
    trained: TrainResult, images: UInt8[Tensor, "n c h w"]
) -> Float[Tensor, "two_n d_z"]:
    """z of two views of each image, [z1; z2]: pairs as in training, of images that it never saw."""
    assert isinstance(trained.config.data, Images)
    images = images.to(next(trained.model.parameters()).device)
    augment = ImageViews(trained.config.data.augmentation, images.shape[1:])
    with stream(trained.config.seed, VIEWS, EVALUATION):
        views, _ = augment(images.repeat(2, 1, 1, 1), images)
        return trained.model(views)[1]
