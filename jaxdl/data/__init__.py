"""Data: files to columns, columns to batches. The names below are the whole of it; each is imported when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    # files and frames to named columns
    "Table": "table",
    "read": "readers",
    # fitted to a table, saved with the model
    "Pipeline": "transforms",
    "FittedPipeline": "transforms",
    "Impute": "transforms",
    "Outliers": "transforms",
    "Deduplicate": "transforms",
    "OneHot": "transforms",
    "Standardise": "transforms",
    "MinMax": "transforms",
    "Join": "transforms",
    "join": "transforms",
    "tabular_features": "transforms",
    "FittedFeatures": "transforms",
    # columns of examples
    "Dataset": "dataset",
    "as_dataset": "dataset",
    # small real sets that ship in the package
    "load": "shipped",
    "describe": "shipped",
    "available": "shipped",
    # batch t as a function of (seed, t)
    "Order": "order",
    # which examples train and which test
    "train_validation_test_split": "splits",
    "KFold": "splits",
    "StratifiedKFold": "splits",
    "GroupKFold": "splits",
    "LeaveOneOut": "splits",
    "find_leaks": "leaks",
    # how batches reach the program
    "Resident": "feeds",
    "Streamed": "feeds",
    "make_feed": "feeds",
    # texts that are read on from batch to batch
    "TokenStreams": "streams",
    "token_windows": "streams",
    # work for each record, in worker processes
    "GrainFeed": "grain_feed",
    "ImageFiles": "augment",
    "random_crop": "augment",
    "random_flip": "augment",
    "color_jitter": "augment",
    "crop_with_mask": "augment_masks",
    "flip_with_mask": "augment_masks",
    "scale_with_mask": "augment_masks",
    # photographs with boxes
    "read_voc": "voc",
    "random_flip_boxes": "augment_boxes",
    "random_expand": "augment_boxes",
    "random_box_crop": "augment_boxes",
    "photometric_distortion": "augment_boxes",
}
__all__ = sorted(_HOME)

if TYPE_CHECKING:
    from jaxdl.data.augment import ImageFiles as ImageFiles
    from jaxdl.data.augment import color_jitter as color_jitter
    from jaxdl.data.augment import random_crop as random_crop
    from jaxdl.data.augment import random_flip as random_flip
    from jaxdl.data.augment_boxes import photometric_distortion as photometric_distortion
    from jaxdl.data.augment_boxes import random_box_crop as random_box_crop
    from jaxdl.data.augment_boxes import random_expand as random_expand
    from jaxdl.data.augment_boxes import random_flip_boxes as random_flip_boxes
    from jaxdl.data.augment_masks import crop_with_mask as crop_with_mask
    from jaxdl.data.augment_masks import flip_with_mask as flip_with_mask
    from jaxdl.data.augment_masks import scale_with_mask as scale_with_mask
    from jaxdl.data.dataset import Dataset as Dataset
    from jaxdl.data.dataset import as_dataset as as_dataset
    from jaxdl.data.feeds import Resident as Resident
    from jaxdl.data.feeds import Streamed as Streamed
    from jaxdl.data.feeds import make_feed as make_feed
    from jaxdl.data.grain_feed import GrainFeed as GrainFeed
    from jaxdl.data.leaks import find_leaks as find_leaks
    from jaxdl.data.order import Order as Order
    from jaxdl.data.readers import read as read
    from jaxdl.data.shipped import available as available
    from jaxdl.data.shipped import describe as describe
    from jaxdl.data.shipped import load as load
    from jaxdl.data.splits import GroupKFold as GroupKFold
    from jaxdl.data.splits import KFold as KFold
    from jaxdl.data.splits import LeaveOneOut as LeaveOneOut
    from jaxdl.data.splits import StratifiedKFold as StratifiedKFold
    from jaxdl.data.splits import train_validation_test_split as train_validation_test_split
    from jaxdl.data.streams import TokenStreams as TokenStreams
    from jaxdl.data.streams import token_windows as token_windows
    from jaxdl.data.table import Table as Table
    from jaxdl.data.transforms import Deduplicate as Deduplicate
    from jaxdl.data.transforms import FittedFeatures as FittedFeatures
    from jaxdl.data.transforms import FittedPipeline as FittedPipeline
    from jaxdl.data.transforms import Impute as Impute
    from jaxdl.data.transforms import Join as Join
    from jaxdl.data.transforms import MinMax as MinMax
    from jaxdl.data.transforms import OneHot as OneHot
    from jaxdl.data.transforms import Outliers as Outliers
    from jaxdl.data.transforms import Pipeline as Pipeline
    from jaxdl.data.transforms import Standardise as Standardise
    from jaxdl.data.transforms import join as join
    from jaxdl.data.transforms import tabular_features as tabular_features
    from jaxdl.data.voc import read_voc as read_voc


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'jaxdl.data' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(f"jaxdl.data.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
