"""What several processes do at once: agree on what they found, and write one checkpoint, each its part."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from jaxdl.checkpoint import commit
from jaxdl.checkpoint.fingerprint import Fingerprint, PendingFingerprint, combine
from jaxdl.checkpoint.manifest import CorruptCheckpoint, StoredPiece
from jaxdl.checkpoint.peers import Peers
from jaxdl.checkpoint.pieces import write_pieces
from jaxdl.checkpoint.sentences import Explained, reason
from jaxdl.checkpoint.shards import Block
from jaxdl.parallel import processes

_PART = "part-"
_PIECES = "pieces-"
_KINDS: dict[str, type[Exception]] = {
    kind.__name__: kind for kind in (CorruptCheckpoint, FileNotFoundError, OSError, TypeError, ValueError)
}
_Found = TypeVar("_Found")


def agreed(work: Callable[[], _Found]) -> _Found:
    """Do a thing on all processes, or fail on all of them where one fails, with one sentence. Collective.

    Raises:
        CorruptCheckpoint, FileNotFoundError, OSError, TypeError, ValueError: as on the process that failed, which is
            named unless all say the same. RuntimeError: it was something else.
    """
    failure: Exception | None = None
    try:
        found = work()
    except Exception as error:
        failure = error
    said = "" if failure is None else json.dumps([*_told(failure)])
    told = [json.loads(text) if text else None for text in processes.gather_texts(said)]
    failed = {number: one for number, one in enumerate(told) if one is not None}
    if not failed:
        return found
    # A damaged checkpoint makes all of them go back, whatever else somebody had to say.
    number = min(failed, key=lambda number: (failed[number][0] != CorruptCheckpoint.__name__, number))
    kind, code, text = failed[number]
    if len({one[2] for one in failed.values()}) > 1 or len(failed) < len(told):
        text = f"process {number} of {len(told)}: {text}"
    error_of = _KINDS.get(kind, RuntimeError)
    raise (error_of(code, text) if code is not None else error_of(text)) from failure


def _told(error: Exception) -> tuple[str, int | None, str]:
    """Kind, number and sentence of an error."""
    kind = next((name for name, of in _KINDS.items() if isinstance(error, of)), type(error).__name__)
    code = error.errno if isinstance(error, OSError) else None
    return kind, code, reason(error) if code is not None or kind not in _KINDS else str(error)


def write_together(
    peers: Peers,
    step: int,
    attempt: int,
    blocks: Mapping[str, Sequence[Block]],
    marks: PendingFingerprint,
    describe: Callable[..., bytes],
) -> None:
    """Write this process's part; on process 0 wait for those of the others, then make all of them one checkpoint.

    Runs in a thread and tells the others by notices alone. The others do not wait here: process 0 tells them how it
    ended.

    Args:
        describe: the manifest's text from `marks`, `files` and `pieces`.

    Raises:
        OSError: on process 0, the first thing that went wrong on any process, with its name.
    """
    saving = commit.saving_of(peers.folder, step, f"-{peers.token}-{attempt}")
    failure: BaseException | None = None
    written = 0
    try:
        written = _write_part(saving, peers.number, blocks, marks)
    except BaseException as error:
        failure = error
    if peers.number > 0:
        said = None if failure is None else [getattr(failure, "errno", None), reason(failure)]
        peers.post({"part": {"attempt": attempt, "crc32": written, "failure": said}})
        return
    try:
        # Also after a failure here: who still writes would do so into a folder that is being removed.
        crcs = _wait_for_parts(peers, attempt, f"written its part of step {step}", failure)
        parts = [_read_part(saving, number, crc) for number, crc in enumerate([written, *crcs])]
        sums = dict.fromkeys(blocks, 0)
        pieces: dict[str, list[StoredPiece]] = {path: [] for path in blocks}
        files: dict[str, tuple[int, int]] = {}
        for part in parts:
            files.update({name: (size, crc) for name, (size, crc) in part["files"].items()})
            for path, value in part["sums"].items():
                sums[path] = (sums[path] + value) % (1 << 32)
            for path, places in part["pieces"].items():
                pieces[path] += [StoredPiece(*place) for place in places]
        sums.update(marks.on_devices())
        for path in saving.glob(f"{_PART}*"):
            path.unlink()
        commit.publish(
            peers.folder, step, saving, describe(marks=Fingerprint(combine(sums), sums), files=files, pieces=pieces)
        )
    except BaseException:
        commit.abandon(peers.folder, saving)
        raise
    commit.tidy(peers.folder)


def _write_part(saving: Path, number: int, blocks: Mapping[str, Sequence[Block]], marks: PendingFingerprint) -> int:
    """The blocks of this process, and a list of what was written where; the crc32 of that list."""
    saving.mkdir(exist_ok=True)
    commit.require_room(saving, sum(block.data.nbytes for each in blocks.values() for block in each))
    name = f"{_PIECES}{number:05d}"
    places, of_file = write_pieces(saving / name, blocks)
    text = json.dumps({"files": {name: of_file}, "pieces": places, "sums": marks.own()}).encode()
    (saving / f"{_PART}{number:05d}").write_bytes(text)
    return zlib.crc32(text)


def _wait_for_parts(peers: Peers, attempt: int, doing: str, failure: BaseException | None) -> list[int]:
    """The crc32 of each other process's list; or the first failure, after all have ended."""
    until = time.monotonic() + peers.patience
    crcs = []
    for number in range(1, peers.count):
        try:
            part = peers.wait_for(number, "part", attempt, doing, until=until)
            if part["failure"] is not None and failure is None:
                code, why = part["failure"]
                failure = Explained(code, f"{why}, on {peers.name(number)}")
            crcs.append(part["crc32"])
        except OSError as error:
            failure = failure or error
    if failure is not None:
        raise failure
    return crcs


def _read_part(saving: Path, number: int, crc: int) -> dict[str, Any]:
    """What a process says that it wrote; its notice may be seen before its file is, on a network file system."""
    path = saving / f"{_PART}{number:05d}"
    for _ in range(100):
        text = path.read_bytes() if path.exists() else b""
        if zlib.crc32(text) == crc:
            return json.loads(text)
        time.sleep(0.1)
    raise Explained(None, f"{path} is not what process {number} wrote: do all processes see the same files?")
