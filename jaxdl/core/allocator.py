"""Memory that XLA frees on a CPU stays with the process, where the C library is glibc.

glibc gives blocks above 32 MB back to the kernel at each free, and XLA takes its temporaries anew at each call: a step
with 80 MB of them pays 20,000 page faults, a quarter to a third of its time (benchmarks/README.md).
"""

from __future__ import annotations

import ctypes
import os
import platform

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # malloc.h

_done = False


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory, once per process; returns whether it does now.

    Called when a Program for a CPU is built. The process then holds on to its largest use of memory. A setting of the
    user's own wins: any `MALLOC_..._` or `GLIBC_TUNABLES` variable, or `JAXDL_MALLOC=system`.
    """
    global _done
    if _done:
        return True
    own = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if own or os.environ.get("JAXDL_MALLOC") == "system" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    accepted = [mallopt(_M_MMAP_MAX, 0), mallopt(_M_TRIM_THRESHOLD, 2**31 - 1), mallopt(_M_ARENA_MAX, 1)]
    _done = all(accepted)
    return _done
