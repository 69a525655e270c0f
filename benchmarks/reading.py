"""Files to tables: CPU time of jaxdl's readers against pandas and NumPy, 100,000 rows of 50 columns.

    taskset -c 0 python -m benchmarks.reading            # about 3 minutes; --quick (20,000 rows, 9 rounds): 15 s

Rows: csv (50 floats), csv-mixed (40 floats, 5 whole numbers, 5 text columns in quotes), parquet (the mixed table), and
npy. Each reads the whole file, which lies in the page cache, into the reader's own table; csv-matrix goes on to a
float32 matrix. ratio = the peer's CPU time / ours, so above 1 jaxdl is cheaper. Peers: pandas' C parser, pandas with
pyarrow, np.load. A peer that is not installed is skipped by name.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import measure

ROWS = ("csv", "csv-mixed", "csv-matrix", "parquet", "npy")
TARGETS = {"pandas-c": 1.0, "pandas-pyarrow": 1.0, "pandas": 1.0, "numpy": 0.9}


def write(folder: Path, rows: int, columns: int) -> None:
    """floats.csv, mixed.csv, mixed.parquet and floats.npy; the same in every run."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    draw = np.random.default_rng(0)
    floats = draw.normal(size=(rows, columns))
    np.save(folder / "floats.npy", floats.astype(np.float32))
    table = pa.table({f"f{i}": floats[:, i] for i in range(columns)})
    pa.csv.write_csv(table, folder / "floats.csv")
    words = np.array([f"word {i}" for i in range(100)])
    mixed = {f"f{i}": floats[:, i] for i in range(columns - columns // 5)}
    mixed |= {f"i{i}": draw.integers(0, 10**6, rows) for i in range(columns // 10)}
    mixed |= {f"t{i}": pa.array(words[draw.integers(0, 100, rows)]) for i in range(columns // 10)}
    pa.csv.write_csv(pa.table(mixed), folder / "mixed.csv")
    pa.parquet.write_table(pa.table(mixed), folder / "mixed.parquet")


def peers(row: str, folder: Path) -> dict[str, Callable[[], object]]:
    """What reads this row's file, by name, ours first."""
    import numpy as np

    from jaxdl.data.readers import read

    found: dict[str, Callable[[], object]] = {}
    if row == "npy":
        return {"jaxdl": lambda: read(folder / "floats.npy"), "numpy": lambda: np.load(folder / "floats.npy")}
    path = (
        folder
        / {"csv": "floats.csv", "csv-matrix": "floats.csv", "csv-mixed": "mixed.csv", "parquet": "mixed.parquet"}[row]
    )
    found["jaxdl"] = (lambda: read(path).to_dataset()["x"]) if row == "csv-matrix" else (lambda: read(path))
    if not measure.available("pandas"):
        print(f"{row}: pandas is not installed, skipped")
        return found
    import pandas

    if row == "parquet":
        found["pandas"] = lambda: pandas.read_parquet(path)
    elif row == "csv-matrix":
        found["pandas-c"] = lambda: pandas.read_csv(path, engine="c").to_numpy(np.float32)
        found["pandas-pyarrow"] = lambda: pandas.read_csv(path, engine="pyarrow").to_numpy(np.float32)
    else:
        found["pandas-c"] = lambda: pandas.read_csv(path, engine="c")
        found["pandas-pyarrow"] = lambda: pandas.read_csv(path, engine="pyarrow")
    return found


def sizes(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark alone."""
    parser.add_argument("--rows", type=int, default=100_000, help="rows of each file (default 100,000)")
    parser.add_argument("--columns", type=int, default=50, help="columns of each file, 10 or more (default 50)")


def main() -> None:
    """Write the files, time the rows, print table and JSON lines."""
    options = measure.arguments(__doc__, ROWS, more=sizes)
    measure.pin(options.core)
    if not measure.available("pyarrow"):
        raise SystemExit("this benchmark writes its files with pyarrow: pip install 'jaxdl[data]'")
    count, rounds = (20_000, min(9, options.rounds)) if options.quick else (options.rows, options.rounds)
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, count, options.columns)
        for row in options.row or ROWS:
            # A .npy is read in milliseconds: more turns a round, so that the clock's grain does not show.
            costs = measure.interleave(peers(row, folder), rounds=rounds, turns=5 if row == "npy" else 1)
            ours = costs.pop("jaxdl")
            each = measure.median_interval(ours)[0]
            note = f"jaxdl {count / each / 1000:,.0f} krows/CPU-s"
            for peer, theirs in costs.items():
                results.append(measure.compare("reading", row, peer, ours, theirs, target=TARGETS[peer], note=note))
    measure.report(results, path=options.json)


if __name__ == "__main__":
    main()
