"""Builds the embedded subset of Fashion-MNIST from its four canonical files.

    python data/build_fashion_mnist_subset.py [SOURCE] [--out FILE]

Of every class the first 1,000 training and the first 200 test images, in the order of the canonical
files. The result is a plain .npz whose members are compressed with LZMA (smaller than deflate, and
still read by `np.load`) and dated 1980. So a rebuild is identical byte for byte, given the same
liblzma.
"""

import argparse
import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
import torch

from sscl_core.files import write_bytes
from sscl_experiments.datasets.images import SUBSET, ImageData, load_images
from sscl_experiments.datasets.manifest import SPLITS
from sscl_experiments.paths import EMBEDDED

# Where Debian's package `dataset-fashion-mnist` installs the files.
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
PER_CLASS = {"train": 1000, "test": 200}


def subset(source: Path) -> dict[str, np.ndarray]:
    """{train,test}_images (n, 28, 28) and {train,test}_labels (n,), all uint8."""
    arrays = {}
    for split in SPLITS:
        whole = load_images("fashion_mnist", split, data_dir=source)
        part = first_of_each_class(whole, PER_CLASS[split])
        arrays[f"{split}_images"] = part.images[:, 0].numpy()
        arrays[f"{split}_labels"] = part.labels.numpy().astype(np.uint8)
    return arrays


def first_of_each_class(data: ImageData, k: int) -> ImageData:
    """The first k images of every class, in the order of `data`."""
    labels = data.labels.numpy()
    members = [np.flatnonzero(labels == label) for label in range(len(data.classes))]
    index = np.concatenate([of_class[:k] for of_class in members])
    return data.select(torch.from_numpy(np.sort(index)))


def content_sha256(arrays: dict[str, np.ndarray]) -> str:
    """Of the arrays' values, one after the other."""
    content = [np.ascontiguousarray(array).tobytes() for array in arrays.values()]
    return hashlib.sha256(b"".join(content)).hexdigest()


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """The arrays as an .npz that depends on nothing but them."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # the same on every platform
            archive.writestr(entry, npy_bytes(array), compress_type=zipfile.ZIP_LZMA)
    write_bytes(path, stream.getvalue())


def npy_bytes(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    array = np.ascontiguousarray(array)
    np.lib.format.write_array(stream, array, version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the embedded subset of Fashion-MNIST.")
    parser.add_argument(
        "source",
        nargs="?",
        type=Path,
        default=DEBIAN,
        help="folder of the four files (%(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=EMBEDDED / f"{SUBSET}.npz",
        help="the file to write (%(default)s)",
    )
    arguments = parser.parse_args()
    arrays = subset(arguments.source)
    write_npz(arguments.out, arrays)
    size = arguments.out.stat().st_size
    print(f"{arguments.out}: {size} bytes, content sha256 {content_sha256(arrays)}")


if __name__ == "__main__":
    main()
