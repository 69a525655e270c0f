"""The readers on real files; see the conftest for where these come from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jaxdl.data.readers import read
from jaxdl.data.transforms import tabular_features

pytestmark = pytest.mark.data


@pytest.mark.parametrize(
    ("name", "rows", "kinds"),
    [
        (
            "bank_marketing/bank-additional.csv.gz",
            4119,
            {"age": "number", "job": "text", "euribor3m": "number", "y": "text"},
        ),
        ("ag_news/ag_news_7600.csv.gz", 7600, {"column_0": "number", "column_1": "text", "column_2": "text"}),
        ("ett/ETTh1.csv.gz", 17420, {"date": "text", "OT": "number"}),
        ("exchange_rate/exchange_rate.txt.gz", 7588, {f"column_{i}": "number" for i in range(8)}),
        ("nab/realKnownCause/nyc_taxi.csv.gz", 10320, {"timestamp": "text", "value": "number"}),
    ],
)
def test_delimited_files_read_alike_with_both_readers(data_folder: Path, name: str, rows: int, kinds: dict[str, str]):
    pytest.importorskip("pyarrow", reason="the data extra is not installed")
    table = read(data_folder / name, reader="pyarrow")
    assert len(table) == rows and table.skipped.count == 0
    assert {column: table.column(column).kind for column in kinds} == kinds
    assert table.equals(read(data_folder / name, reader="python"))


def test_bank_marketing_becomes_features(data_folder: Path):
    table = read(data_folder / "bank_marketing/bank-additional.csv.gz")
    fitted = tabular_features(table.drop("duration"), label="y")
    data = fitted.dataset(table)
    assert fitted.classes == ("no", "yes") and int(data["y"].sum()) == 451
    assert data["x"].shape == (4119, len(fitted.names)) and data["x"].dtype == np.float32
    age = data["x"][:, fitted.names.index("age")]
    assert abs(float(age.mean())) < 1e-5 and abs(float(age.std()) - 1) < 1e-4
    jobs = [i for i, name in enumerate(fitted.names) if name.startswith("job=")]
    assert len(jobs) == 12 and (data["x"][:, jobs].sum(1) == 1).all()


def test_cifar10_zip(data_folder: Path):
    pytest.importorskip("PIL", reason="the data extra is not installed")
    table = read(data_folder / "cifar10/test.zip")
    data = table.to_dataset("label", features=["image"])
    assert data["x"].shape == (10000, 32, 32, 3) and data["x"].dtype == np.uint8
    assert len(data.classes or ()) == 10 and np.bincount(data["y"]).tolist() == [1000] * 10
    assert table["path"][1000].startswith("automobile/") and data.classes[1] == "automobile"
