"""Small real data sets that ship in the package, each with a fixed split: for demos, tests and first tries."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxdl.data.dataset import Dataset

_FOLDER = Path(__file__).parent / "sets"
_UCI = "Creative Commons Attribution 4.0 (CC BY 4.0), as the UCI Machine Learning Repository states"


@dataclass(frozen=True)
class SetDescription:
    """What a shipped data set is, where it comes from and how it may be used."""

    name: str
    summary: str
    task: str
    train_examples: int
    test_examples: int
    x: str
    y: str
    source: str
    licence: str
    features: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()

    def __str__(self) -> str:
        counts = f"{self.train_examples} examples to train and {self.test_examples} to test, a fixed split"
        lines = [
            f"{self.name}: {self.summary}",
            f"  task      {self.task}; {counts}",
            f"  x         {self.x}",
            f"  y         {self.y}",
            f"  source    {self.source}",
            f"  licence   {self.licence}",
        ]
        if self.features:
            lines.append(f"  features  {', '.join(self.features)}")
        return "\n".join(lines)


# name: (summary, task, x, y, source, licence)
_SETS = {
    "digits": (
        "1,797 handwritten digits of 13 people, 8x8 pixels of 17 grey levels",
        "classification",
        "float32 [8, 8, 1], 0 to 1 (the counts 0 to 16, divided by 16)",
        "int32, the digit",
        "E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, test part, UCI Machine Learning "
        "Repository, 1998, doi.org/10.24432/C50P49",
        _UCI,
    ),
    "iris": (
        "150 iris flowers of three species, four lengths each",
        "classification",
        "float32 [4], cm",
        "int32, the species",
        "R. A. Fisher, The use of multiple measurements in taxonomic problems, 1936; UCI Machine Learning Repository, "
        "doi.org/10.24432/C56C76 (with Fisher's own values where UCI's copy differs)",
        _UCI,
    ),
    "wine": (
        "178 wines of three growers in one region, 13 chemical measurements",
        "classification",
        "float32 [13], in the units of the source: standardise them",
        "int32, the grower",
        "S. Aeberhard and M. Forina, Wine, UCI Machine Learning Repository, 1991, doi.org/10.24432/C5PC7J",
        _UCI,
    ),
    "breast_cancer": (
        "569 breast tumours, 30 measurements of cell nuclei from digitised images (Wisconsin, diagnostic)",
        "binary classification",
        "float32 [30], in the units of the source: standardise them",
        "int32, 0 malignant and 1 benign",
        "W. Wolberg, O. Mangasarian, N. Street and W. Street, Breast Cancer Wisconsin (Diagnostic), UCI Machine "
        "Learning Repository, 1993, doi.org/10.24432/C5DW2B",
        _UCI,
    ),
}


def load(name: str) -> tuple[Dataset, Dataset]:
    """(train, test) of a shipped set: "digits", "iris", "wine" or "breast_cancer".

    The split is fixed and stratified and stored in the package; examples keep the order of the source.
    `describe(name)` tells the source and the licence.

    Raises:
        ValueError: no such set; the nearest name is suggested.
    """
    file = _open(name)
    x, y, test = file["x"], file["y"], file["test"].astype(np.int64)
    x = x.astype(np.float32) / np.float32(16) if name == "digits" else x
    train = np.setdiff1d(np.arange(len(y)), test)
    data = Dataset({"x": x, "y": y.astype(np.int32)}, tuple(str(each) for each in file["classes"]), name)
    return data.select(train).replace(name=f"{name} (train)"), data.select(test).replace(name=f"{name} (test)")


def describe(name: str) -> SetDescription:
    """What the set is, its source and licence, as a record whose `str` is worth printing."""
    file = _open(name)
    summary, task, x, y, source, licence = _SETS[name]
    tests = len(file["test"])
    features, classes = (tuple(str(each) for each in file[key]) for key in ("features", "classes"))
    return SetDescription(name, summary, task, len(file["y"]) - tests, tests, x, y, source, licence, features, classes)


def available() -> tuple[str, ...]:
    """The names that `load` knows."""
    return tuple(_SETS)


def _open(name: str) -> dict[str, np.ndarray]:
    if name not in _SETS:
        near = difflib.get_close_matches(str(name), _SETS, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"no data set called {name!r} ships with jaxdl{hint} There are {', '.join(_SETS)}")
    with np.load(_FOLDER / f"{name}.npz") as file:
        return dict(file)
