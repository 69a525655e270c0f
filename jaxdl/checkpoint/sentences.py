"""What went wrong with a file system or a stored array, in a sentence."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager


class Explained(OSError):
    """An error whose text is a sentence already; the number may be None."""

    def __init__(self, code: int | None, sentence: str) -> None:
        super().__init__(code, sentence)
        self.sentence = sentence


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn an error of the file system into a sentence of the same kind; that of another run is a sentence already."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise
        raise OSError(error.errno, f"{what}: {reason(error)}; choose a folder that this user may write") from error


def reason(error: BaseException) -> str:
    """Why, in one line, without the place in somebody's C++ source."""
    if isinstance(error, Explained):
        return error.sentence
    text = str(error)
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left on device" in text or "[Errno 28]" in text:
        return (
            str(error.strerror) if isinstance(error, OSError) and "free" in str(error.strerror) else "the disk is full"
        )
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower() + (f" ({error.filename})" if error.filename else "")
    return f"{type(error).__name__}: {text.splitlines()[0][:300] if text else 'no message'}"


def error_of(code: int | None, sentence: str) -> OSError:
    """The error of a number, such as a PermissionError, with a sentence."""
    return OSError(sentence) if code is None else OSError(code, sentence)
