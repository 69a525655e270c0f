"""What went wrong with a file system or a stored array, in a sentence."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager


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
    text = str(error)
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left on device" in text or "[Errno 28]" in text:
        return (
            str(error.strerror) if isinstance(error, OSError) and "free" in str(error.strerror) else "the disk is full"
        )
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower() + (f" ({error.filename})" if error.filename else "")
    return f"{type(error).__name__}: {text.splitlines()[0][:300] if text else 'no message'}"
