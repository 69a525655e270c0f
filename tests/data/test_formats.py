"""The formats other than CSV: each read back as it was written, and the sentence of each fault."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from jaxdl.data.readers import READERS, format_of, read
from jaxdl.data.table import Table

pa = pytest.importorskip("pyarrow", reason="the data extra is not installed")
pq = pytest.importorskip("pyarrow.parquet", reason="the data extra is not installed")
PIL = pytest.importorskip("PIL.Image", reason="the data extra is not installed")
pytestmark = pytest.mark.smoke


def fails(path: Path, **options) -> str:
    with pytest.raises(ValueError) as caught:
        read(path, **options)
    return str(caught.value)


def picture(value: int, height: int = 4, width: int = 6, mode: str = "RGB", kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    PIL.new(mode, (width, height), value if mode == "L" else (value, 0, 255 - value)).save(out, kind)
    return out.getvalue()


def test_parquet_keeps_kinds_gaps_and_lists(tmp_path):
    import datetime

    day = datetime.datetime(2024, 5, 31, 12)
    frame = pa.table(
        {
            "whole": pa.array([1, 2, 3], pa.int32()),
            "gap": pa.array([1, None, 3], pa.int64()),
            "text": ["b", None, "a"],
            "coded": pa.array(["x", "y", "x"]).dictionary_encode(),
            "truth": [True, False, True],
            "time": pa.array([day, None, day], pa.timestamp("ns")),
            "list": pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]),
            "fixed": pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.int16(), 2)),
        }
    )
    path = tmp_path / "t.parquet"
    pq.write_table(frame, path, row_group_size=2)
    table = read(path)
    assert table["whole"].dtype == np.int32 and table["whole"].tolist() == [1, 2, 3]
    assert np.isnan(table["gap"][1]) and table.column("gap").missing == 1
    assert table["text"].tolist() == ["b", None, "a"] and table.column("text").categories == ("a", "b")
    assert table["coded"].tolist() == ["x", "y", "x"] and table["truth"].dtype == bool
    assert table["time"][0] == np.datetime64(day) and np.isnat(table["time"][1])
    assert table["list"].tolist() == [[1, 2], [3, 4], [5, 6]] and table["fixed"].dtype == np.int16
    assert read(path, columns=["text"]).names == ("text",)
    assert "has no column 'txt'; did you mean 'text'" in fails(path, columns=["txt"])
    path.write_bytes(path.read_bytes()[:-20])
    assert "is no Parquet file, or a damaged one" in fails(path)
    pq.write_table(pa.table({"a": [[1], [2, 3]]}), path)
    assert "column 'a' has a list of 2 values in row 1" in fails(path)
    pq.write_table(frame.slice(0, 0), path)
    assert "but no rows" in fails(path)


def test_jsonl(tmp_path):
    path = tmp_path / "t.jsonl"
    good = [
        {"id": 1, "user": {"age": 31, "job": "cook"}, "v": [1, 2], "ok": True},
        {"id": 2, "user": {"age": None, "job": None}, "v": [3, 4], "ok": False, "late": 0.5},
    ]
    path.write_text("\n".join(map(json.dumps, good)) + "\n\n")
    table = read(path)
    assert table.names == ("id", "user.age", "user.job", "v", "ok", "late")
    assert table["id"].dtype == np.int64 and table["user.job"].tolist() == ["cook", None]
    assert table["v"].tolist() == [[1, 2], [3, 4]] and table["ok"].dtype == bool
    assert np.isnan(table["late"][0]) and table["late"][1] == 0.5
    faults = {
        '{"id": 3': "this is no JSON",
        "[1]": "a JSON object",
        '{"id": "x"}': "line 1 has a number there",
        '{"id": 3, "v": [1]}': "line 1 has a list of 2 numbers",
        '{"id": [[1]]}': "can be no column",
        '{"user": {"age": 1}, "user.age": 2}': "stands there twice",
    }
    for line, sentence in faults.items():
        path.write_text("\n".join([*map(json.dumps, good), line]))
        assert fails(path).startswith("t.jsonl, line 3: ") and sentence in fails(path)
        kept = read(path, on_error="skip")
        assert len(kept) == 2 and kept.skipped.count == 1 and sentence in kept.skipped.examples[0]


def test_libsvm(tmp_path):
    path = tmp_path / "t.libsvm"
    path.write_text("1 qid:3 1:0.5 3:2 # note\n\n-1:2.5 qid:4 2:1e-3\n")
    table = read(path)
    assert table["x"].tolist() == np.float32([[0.5, 0, 2], [0, 1e-3, 0]]).tolist() and table["x"].dtype == np.float32
    assert table["label"].tolist() == [1, -1] and table["label"].dtype == np.int64
    assert table["weight"].tolist() == [1, 2.5] and table["qid"].tolist() == [3, 4]
    assert read(path, first_index=0)["x"].shape == (2, 4) and read(path, features=7)["x"].shape == (2, 7)
    assert "features=2 allows 2 at most" in fails(path, features=2)
    path.write_text("0 0:1\n1 2:1\n")
    assert read(path)["x"].tolist() == [[1, 0, 0], [0, 0, 1]]
    assert "first_index=1" in fails(path, first_index=1)
    for line, said in {
        "x 1:1": "the label is 'x'",
        "1 a:1": "index 'a'",
        "1 1:b": "feature 1 is 'b'",
        "1 7": "'7' is no index",
    }.items():
        path.write_text(f"1 1:2\n{line}\n")
        assert "t.libsvm, line 2: " in fails(path) and said in fails(path)
        assert read(path, on_error="skip").skipped.count == 1
    path.write_text("1 999999999:1\n" * 3)
    assert "more than the 4 GiB" in fails(path)


def test_npy_npz_and_memory_maps(tmp_path):
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.save(tmp_path / "x.npy", x)
    mapped = read(tmp_path / "x.npy", mapped=True)
    assert isinstance(mapped.column("x").values, np.memmap) and np.array_equal(mapped["x"], x)
    assert isinstance(mapped.to_dataset()["x"], np.memmap)
    assert not isinstance(read(tmp_path / "x.npy").column("x").values, np.memmap)
    np.savez(tmp_path / "d.npz", x=x, y=np.array(["a", "b", "a", "b"]))
    table = read(tmp_path / "d.npz")
    assert table.names == ("x", "y") and table["y"].tolist() == ["a", "b", "a", "b"]
    data = table.to_dataset("y")
    assert data.classes == ("a", "b") and data["y"].tolist() == [0, 1, 0, 1] and data["x"].shape == (4, 3)
    np.savez(tmp_path / "e.npz", x=x, y=np.arange(3))
    assert "column 'y' has 3 rows, but 'x' has 4" in fails(tmp_path / "e.npz")
    np.save(tmp_path / "o.npy", np.array([{}, None], object), allow_pickle=True)
    assert "is no .npy file of numbers" in fails(tmp_path / "o.npy")
    (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-5])
    assert "cut-off" in fails(tmp_path / "x.npy")
    (tmp_path / "d.npz").write_bytes(b"PK nothing")
    assert "is no .npz archive" in fails(tmp_path / "d.npz")


def test_idx(tmp_path):
    images = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    content = b"\0\0\x08\x03" + struct.pack(">3I", 2, 3, 4) + images.tobytes()
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(content))
    assert np.array_equal(read(path)["x"], images[..., None])
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(
        gzip.compress(b"\0\0\x08\x01" + struct.pack(">I", 2) + b"\7\2")
    )
    data = read(path).to_dataset("label", target="class")
    assert data.classes == ("2", "7") and data["y"].tolist() == [1, 0] and data["x"].dtype == np.uint8
    wide = tmp_path / "v.idx"
    wide.write_bytes(b"\0\0\x0c\x01" + struct.pack(">I", 2) + struct.pack(">2i", -5, 70000))
    assert read(wide)["x"].tolist() == [-5, 70000]
    wide.write_bytes(content[:-1])
    assert "needs 40 bytes, but it has 39" in fails(wide)
    wide.write_bytes(b"hello")
    assert "is no IDX file" in fails(wide)
    assert "the 2 examples of train-images-idx3-ubyte.gz need [2]" in fails(path, labels=path)


@pytest.mark.parametrize("packed", [True, False])
def test_class_folders_of_images(tmp_path, packed):
    names = {f"{label}/{i}.png": picture(60 * i + (label == "dog")) for label in ("dog", "cat") for i in range(3)}
    path = tmp_path / ("set.zip" if packed else "set")
    if packed:
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in names.items():
                archive.writestr(name, content)
            archive.writestr("__MACOSX/dog/0.png", b"x")
    else:
        for name, content in names.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
    for workers in (0, 2):
        table = read(path, workers=workers)
        assert table["label"].tolist() == ["cat"] * 3 + ["dog"] * 3 and table["path"][3] == "dog/0.png"
        assert table["image"].shape == (6, 4, 6, 3) and table["image"].dtype == np.uint8
        assert table["image"][:, 0, 0, 0].tolist() == [0, 60, 120, 1, 61, 121]
    data = table.to_dataset("label", features=["image"])
    assert data["x"] is table["image"] and data.classes == ("cat", "dog") and data["y"].tolist() == [0, 0, 0, 1, 1, 1]
    assert read(path, size=(2, 3), mode="L")["image"].shape == (6, 2, 3, 1)


def test_images_that_do_not_fit_get_a_sentence(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(picture(9, mode="L"))
    assert read(tmp_path)["image"].shape == (1, 4, 6, 1)
    (tmp_path / "a" / "2.png").write_bytes(picture(9, 5, 6))
    assert "the image a/2.png has 5 x 6 pixels (height x width), but the first has 4 x 6; give size=(4, 6)" in fails(
        tmp_path
    )
    assert read(tmp_path, size=8)["image"].shape == (2, 8, 8, 1)
    assert read(tmp_path, on_error="skip").skipped.count == 1
    (tmp_path / "a" / "3.png").write_bytes(picture(9, 64, 64, kind="JPEG")[:-40])
    assert "a/3.png does not decode" in fails(tmp_path, size=8)
    kept = read(tmp_path, size=8, on_error="skip", mode="RGB")
    assert kept["path"].tolist() == ["a/1.png", "a/2.png"] and "a/3.png" in kept.skipped.examples[0]
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.jpg").write_bytes(b"")
    assert "none of its 1 images decodes" in fails(
        tmp_path / "b", format="images"
    ) or "lies in no class folder" in fails(tmp_path / "b")
    (tmp_path / "s.zip").write_bytes(b"PK")
    assert "neither a folder nor a zip" in fails(tmp_path / "s.zip")
    with pytest.raises(TypeError, match="no option 'sizes'; did you mean 'size'"):
        read(tmp_path, sizes=3)


def test_image_lists(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.jpg").write_bytes(picture(80 * i, 8, 8, kind="JPEG"))
    path = tmp_path / "train.lst"
    path.write_text("5\t1.000000\t2.jpg\n4\t0.000000\t0.jpg\n")
    table = read(path)
    assert table["label"].tolist() == [1, 0] and table["label"].dtype == np.int64 and table["index"].tolist() == [5, 4]
    assert abs(int(table["image"][0, 0, 0, 0]) - 160) < 4 and table["image"].shape == (2, 8, 8, 3)
    path.write_text("5\t1\t0.5\t2.jpg\n")
    assert read(path)["label"].tolist() == [[1, 0.5]]
    for line, said in {
        "1\t0\tno.jpg": "there is no image",
        "1\t0.jpg": "separated by tabs",
        "1\tcat\t0.jpg": "label 'cat'",
    }.items():
        path.write_text(f"5\t1\t2.jpg\n{line}\n")
        assert "train.lst, line 2: " in fails(path) and said in fails(path)
        assert read(path, on_error="skip").skipped.count == 1


def test_the_format_is_told_by_the_name_and_several_files_follow_each_other(tmp_path):
    (tmp_path / "a.csv").write_text("n,t\n1,x\n2,y\n")
    (tmp_path / "b.csv").write_text("n,t\n3,a\n")
    together = read([tmp_path / "a.csv", tmp_path / "b.csv"])
    assert together["n"].tolist() == [1, 2, 3] and together["t"].tolist() == ["x", "y", "a"]
    assert read(tmp_path).equals(together)
    (tmp_path / "b.csv").write_text("n,u\n3,a\n")
    assert "have different columns: ['t', 'u']" in fails(tmp_path)
    (tmp_path / "b.csv").write_text("n,t\nq,a\n")
    assert "column 'n' holds number in a.csv and text in b.csv" in fails(tmp_path)
    (tmp_path / "t.bin").write_text("n,t\n1,x\n")
    assert "cannot be told from its name" in fails(tmp_path / "t.bin")
    assert read(tmp_path / "t.bin", format="csv")["n"].tolist() == [1]
    assert "did you mean 'parquet'" in fails(tmp_path / "t.bin", format="parket")
    assert set(READERS) >= {format_of(tmp_path / "a.csv")}
    for name, said in {"x.parquet": "pq", "x.npz": "", "x.csv.gz": "csv"}.items():
        (tmp_path / name).write_bytes(b"")
        assert "is empty: 0 bytes" in fails(tmp_path / name), said


def test_frames_come_in_through_arrow():
    pandas = pytest.importorskip("pandas", reason="pandas is no need of the package")
    frame = pandas.DataFrame({"n": [1.5, None], "t": ["a", None], "c": pandas.Categorical(["x", "y"]), "i": [1, 2]})
    table = Table.from_arrow(frame)
    assert (
        table.names == ("n", "t", "c", "i") and table["t"].tolist() == ["a", None] and table["c"].tolist() == ["x", "y"]
    )
    assert np.isnan(table["n"][1]) and table["i"].dtype == np.int64 and table.source == "pandas DataFrame"
    with pytest.raises(TypeError, match="has no __arrow_c_stream__"):
        Table.from_arrow({"a": [1]})
    with pytest.raises(ValueError, match="Arrow type struct"):
        Table.from_arrow(pa.table({"s": [{"a": 1}]}))
