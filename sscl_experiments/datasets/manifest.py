"""The canonical files of every image set: names, sizes and checksums, mirrors, classes.

`data/README.md` describes every set.
"""

from dataclasses import dataclass
from typing import Literal

SPLITS = ("train", "test")


@dataclass(frozen=True)
class File:
    """A file as it was published. Size and sha256 are those of the content, decompressed."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Published:
    """An image set as it was published.

    layout: what a file is like, idx or CIFAR's binary records.
    folders: where the files may lie below a data folder; a download goes to the first.
    files: of every split, in the order in which they are read.
    archives: what a mirror serves, a .tar.gz of all files or every file as .gz.
    mirrors: base addresses, in the order in which they are tried.
    others: what may lie in the place of the set, and why that is not read.
    """

    name: str
    layout: Literal["idx", "cifar"]
    folders: tuple[str, ...]
    files: dict[str, tuple[File, ...]]
    archives: tuple[str, ...]
    mirrors: tuple[str, ...]
    classes: tuple[str, ...]
    others: dict[str, str]
    coarse_classes: tuple[str, ...] = ()

    @property
    def all_files(self) -> dict[str, File]:
        """Of both splits, by name."""
        return {file.name: file for files in self.files.values() for file in files}

    @property
    def size(self) -> int:
        """Of all files together, decompressed."""
        return sum(file.size for file in self.all_files.values())

    @property
    def tars(self) -> tuple[str, ...]:
        """Those archives that hold several files."""
        return tuple(name for name in self.archives if name.endswith(".tar.gz"))


def _files(name: str) -> dict[str, tuple[File, ...]]:
    splits: dict[str, tuple[File, ...]] = dict.fromkeys(SPLITS, ())
    for row in _FILES.strip().split("\n\n"):
        image_set, split, file, size, sha256 = row.split()
        if image_set == name:
            splits[split] += (File(file, int(size), sha256),)
    return splits


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(", "))


def _python_release(name: str, folder: str) -> dict[str, str]:
    """Of CIFAR, what torchvision downloads."""
    why = "the python release, which is pickled and not read: the binary one is"
    return {folder: why, f"{name}-python.tar.gz": why}


# Of every file: set, split, name, and of the decompressed content the number of bytes and sha256.
_FILES = """
fashion_mnist train train-images-idx3-ubyte 47040016
c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888

fashion_mnist train train-labels-idx1-ubyte 60008
bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9

fashion_mnist test t10k-images-idx3-ubyte 7840016
5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b

fashion_mnist test t10k-labels-idx1-ubyte 10008
0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34

cifar10 train data_batch_1.bin 30730000
cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5

cifar10 train data_batch_2.bin 30730000
a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed

cifar10 train data_batch_3.bin 30730000
bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67

cifar10 train data_batch_4.bin 30730000
014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48

cifar10 train data_batch_5.bin 30730000
755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add

cifar10 test test_batch.bin 30730000
8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b

cifar100 train train.bin 153700000
f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29

cifar100 test test.bin 30740000
d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a
"""
SUBSET = File(
    "fashion_mnist_subset.npz",
    4520163,
    "01d68a4610f8d001e969bbfbf22d8b8fbce010ca11ffdaded522055c5d45b534",
)
# sha256 of MNIST's files, which have the names and sizes of Fashion-MNIST's.
MNIST = (
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
)
FASHION_CLASSES = _names(
    "T-shirt/top, Trouser, Pullover, Dress, Coat, Sandal, Shirt, Sneaker, Bag, Ankle boot"
)
_CIFAR10_CLASSES = _names("airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck")
_CIFAR100_CLASSES = _names(
    "apple, aquarium_fish, baby, bear, beaver, bed, bee, beetle, bicycle, bottle, bowl, boy, "
    "bridge, bus, butterfly, camel, can, castle, caterpillar, cattle, chair, chimpanzee, "
    "clock, cloud, cockroach, couch, crab, crocodile, cup, dinosaur, dolphin, elephant, "
    "flatfish, forest, fox, girl, hamster, house, kangaroo, keyboard, lamp, lawn_mower, "
    "leopard, lion, lizard, lobster, man, maple_tree, motorcycle, mountain, mouse, mushroom, "
    "oak_tree, orange, orchid, otter, palm_tree, pear, pickup_truck, pine_tree, plain, plate, "
    "poppy, porcupine, possum, rabbit, raccoon, ray, road, rocket, rose, sea, seal, shark, "
    "shrew, skunk, skyscraper, snail, snake, spider, squirrel, streetcar, sunflower, "
    "sweet_pepper, table, tank, telephone, television, tiger, tractor, train, trout, tulip, "
    "turtle, wardrobe, whale, willow_tree, wolf, woman, worm"
)
_CIFAR100_SUPERCLASSES = _names(
    "aquatic_mammals, fish, flowers, food_containers, fruit_and_vegetables, "
    "household_electrical_devices, household_furniture, insects, large_carnivores, "
    "large_man-made_outdoor_things, large_natural_outdoor_scenes, "
    "large_omnivores_and_herbivores, medium_mammals, non-insect_invertebrates, people, "
    "reptiles, small_mammals, trees, vehicles_1, vehicles_2"
)
_TORONTO = "https://www.cs.toronto.edu/~kriz/"
_APACHE = "https://apache-mxnet.s3-accelerate.dualstack.amazonaws.com/gluon/dataset/"
_GITHUB = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/"

FASHION_MNIST = Published(
    name="fashion_mnist",
    layout="idx",
    folders=("fashion-mnist", "FashionMNIST/raw", "."),
    files=_files("fashion_mnist"),
    archives=(
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
        "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
    ),
    mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/", _GITHUB),
    classes=FASHION_CLASSES,
    others={"MNIST": "which are digits, in files of the same names"},
)
CIFAR10 = Published(
    name="cifar10",
    layout="cifar",
    folders=("cifar-10-batches-bin",),
    files=_files("cifar10"),
    archives=("cifar-10-binary.tar.gz",),
    mirrors=(_TORONTO, f"{_APACHE}cifar10/"),
    classes=_CIFAR10_CLASSES,
    others=_python_release("cifar-10", "cifar-10-batches-py"),
)
CIFAR100 = Published(
    name="cifar100",
    layout="cifar",
    folders=("cifar-100-binary",),
    files=_files("cifar100"),
    archives=("cifar-100-binary.tar.gz",),
    mirrors=(_TORONTO, f"{_APACHE}cifar100/"),
    classes=_CIFAR100_CLASSES,
    others=_python_release("cifar-100", "cifar-100-python"),
    coarse_classes=_CIFAR100_SUPERCLASSES,
)
PUBLISHED = {source.name: source for source in (FASHION_MNIST, CIFAR10, CIFAR100)}
