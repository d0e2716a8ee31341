"""The data layer: published image sets from disk or from the net, and ``shapes``, an image set made on the fly.

``load`` gives arrays, ``fingerprint`` says in milliseconds which data a run would see.
"""

from experiments.data.catalog import NAMES, data_folder, fingerprint, load
from experiments.data.folders import ImageFolders
from experiments.data.imageset import ImageSet, Split, mean_image
from experiments.data.shapes import ShapesSpec

__all__ = [
    "NAMES",
    "ImageFolders",
    "ImageSet",
    "ShapesSpec",
    "Split",
    "data_folder",
    "fingerprint",
    "load",
    "mean_image",
]
