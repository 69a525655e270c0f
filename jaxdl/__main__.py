"""`python -m jaxdl` is `jaxdl`, for environments whose scripts are not on the PATH."""

from __future__ import annotations

import sys

from jaxdl.cli import main

if __name__ == "__main__":
    sys.exit(main())
