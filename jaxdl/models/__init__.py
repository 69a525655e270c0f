"""Networks of the field by name: `create_model("convnet", num_classes=10)`."""

from __future__ import annotations

from jaxdl.models.convert import Imported, export_weights, import_weights, transfer
from jaxdl.models.registry import ModelInfo, create_model, list_models, model_info
from jaxdl.models.summary import ModelSummary, summarize
from jaxdl.models.weight_files import read_weights, write_weights

__all__ = [
    "Imported",
    "ModelInfo",
    "ModelSummary",
    "create_model",
    "export_weights",
    "import_weights",
    "list_models",
    "model_info",
    "read_weights",
    "summarize",
    "transfer",
    "write_weights",
]
