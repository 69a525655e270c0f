"""Checkpoints: save, restore and verify any pytree of arrays, so that a damaged one is found and never trained on."""

from __future__ import annotations

from jaxdl.checkpoint.fingerprint import Fingerprint, fingerprint
from jaxdl.checkpoint.manifest import CorruptCheckpoint, crc32_of_file
from jaxdl.checkpoint.store import Restored, Store

__all__ = ["CorruptCheckpoint", "Fingerprint", "Restored", "Store", "crc32_of_file", "fingerprint"]
