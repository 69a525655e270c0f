"""Files of named arrays: `.safetensors` and `.npz` are read and written here, `.pth` is read by torch where it is."""

from __future__ import annotations

import json
import math
import os
import pickle
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

_SAFETENSORS: dict[str, Any] = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
    "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip

#: Under these names files made by a training keep the weights beside other things.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "state_dict_ema", "params")


def read_weights(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a file by name.

    `.safetensors` and `.npz` need no other package (objects in an `.npz` are refused, never unpickled). `.pth`, `.pt`
    and `.bin` need torch, which loads tensors only (`weights_only=True`); where the tensors stand under "state_dict" or
    "model" beside other things, those are returned. bfloat16 stays bfloat16 (float32 from a `.pth`).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another ending, a broken file, or one that holds other things than named arrays.
        ImportError: a `.pth` without torch.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of weights at {path}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix == ".npz":
        return _read_npz(path)
    if path.suffix in (".pth", ".pt", ".bin"):
        return _read_torch(path)
    raise ValueError(f"{path}: weights are read from .safetensors, .npz, .pth, .pt or .bin files")


def write_weights(path: str | os.PathLike[str], weights: Mapping[str, Any]) -> None:
    """Write named arrays to a `.safetensors` or `.npz` file, by the ending; the counterpart of `read_weights`.

    Raises:
        ValueError: another ending, or a dtype that the format lacks.
    """
    path = Path(path)
    arrays = {name: np.asarray(value, order="C") for name, value in weights.items()}
    if path.suffix == ".npz":
        odd = [name for name, value in arrays.items() if value.dtype.kind not in "fiub"]
        if odd:
            raise ValueError(f"{path}: .npz cannot keep {odd[0]} of {arrays[odd[0]].dtype}; .safetensors can")
        with path.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # the names are the user's
        return
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: weights are written to .safetensors or .npz files")
    words = {np.dtype(kind): word for word, kind in _SAFETENSORS.items()}
    header: dict[str, Any] = {}
    offset = 0
    for name, value in arrays.items():
        if value.dtype not in words:
            raise ValueError(f"{path}: .safetensors cannot keep {name} of {value.dtype}")
        end = offset + value.nbytes
        header[name] = {"dtype": words[value.dtype], "shape": list(value.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for value in arrays.values():
            file.write(value.tobytes())


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The format is the length of a JSON header (8 bytes, little-endian), the header, and the arrays one by one."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise ValueError(
                f"{path} is no whole .safetensors file: its header would end at byte {8 + length} of {size}"
            )
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            entries = {
                name: (_SAFETENSORS[entry["dtype"]], _counts(entry["shape"]), *_counts(entry["data_offsets"], 2))
                for name, entry in header.items()
            }
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"{path} is no .safetensors file that can be read: its header has {error!r}") from error
    start = 8 + length
    for name, (kind, shape, begin, end) in entries.items():
        wanted = math.prod(shape) * np.dtype(kind).itemsize
        if not 0 <= begin <= end <= size - start or end - begin != wanted:
            raise ValueError(
                f"{path} is broken: {name} {list(shape)} needs {wanted} bytes and has bytes {begin} to {end} of "
                f"{size - start}"
            )
    raw = np.memmap(path, np.uint8, "r", start) if size > start else np.zeros(0, np.uint8)
    return {
        name: np.frombuffer(raw[begin:end].tobytes(), kind).reshape(shape)
        for name, (kind, shape, begin, end) in entries.items()
    }


def _counts(numbers: Any, length: int | None = None) -> tuple[int, ...]:
    """Whole numbers of a header; JSON could hold anything in their place."""
    if not isinstance(numbers, list) or not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
        raise ValueError(f"{numbers} where whole numbers of at least 0 belong")
    if length is not None and len(numbers) != length:
        raise ValueError(f"{len(numbers)} numbers where {length} belong")
    return tuple(numbers)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    import zipfile
    import zlib

    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    # A broken directory of the archive shows as one of the latter.
    except (ValueError, OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{path} is no .npz file of plain arrays: {error}") from error


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"reading {path.name} needs torch (pip install torch); or write the weights to .safetensors or .npz where "
            "torch is"
        ) from error
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    # A broken pickle raises whatever its first wrong instruction leads to.
    except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, TypeError, ValueError, struct.error) as error:
        # torch's own message advises to load it without safety.
        refused = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it asks for {refused[1]}" if refused else type(error).__name__
        raise ValueError(
            f"{path} holds other things than tensors, or is broken, and is not loaded: {reason}"
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    if not isinstance(found, Mapping) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in found.items()
    ):
        odd = type(found).__name__ if not isinstance(found, Mapping) else "a mapping that holds other things too"
        raise ValueError(f"{path} should hold tensors by name (model.state_dict()), and is {odd}")
    odd_layout = [name for name, value in found.items() if value.layout is not torch.strided or value.is_quantized]
    if odd_layout:
        raise ValueError(f"{path}: {', '.join(odd_layout[:20])} must be dense first, neither sparse nor quantized")
    lacking = (torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)  # in numpy
    return {
        name: (value.float() if value.dtype in lacking else value).detach().numpy() for name, value in found.items()
    }
