"""Networks of the field by name: `create_model("convnet", num_classes=10)`."""

from __future__ import annotations

from jaxdl.models.registry import ModelInfo, create_model, list_models, model_info

__all__ = ["ModelInfo", "create_model", "list_models", "model_info"]
