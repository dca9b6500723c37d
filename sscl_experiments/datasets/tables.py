"""TODO"""

import numpy as np
import sklearn.datasets
import torch
from sklearn.model_selection import train_test_split

from sscl_core.config import Table

from .synthetic import Part, PointSet


def table(spec: Table, seed: int) -> PointSet:
    """The split of `seed`, standardised by its training part."""
    content = getattr(sklearn.datasets, f"load_{spec.table}")()
    x, y = content.data.astype(np.float64), content.target.astype(np.int64)
    rest, test = train_test_split(np.arange(len(y)), test_size=0.3, stratify=y, random_state=seed)
    fit, validation = train_test_split(rest, test_size=0.2, stratify=y[rest], random_state=seed)
    mean, std = x[fit].mean(0), x[fit].std(0)
    x = ((x - mean) / np.where(std > 1e-12 * np.abs(mean), std, np.inf)).astype(np.float32)
    train, validation, test = (
        Part(torch.from_numpy(x[part]), torch.from_numpy(y[part]))
        for part in (fit, validation, test)
    )
    return PointSet(train, validation, test)
