"""Lightning as its users run it: Trainer and DataLoader (workers=0), logging, checkpoints and progress switched off."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

import torch

from benchmarks import measure, networks
from benchmarks.networks import Row
from benchmarks.peers import pytorch

NEEDS = ("lightning", "torch")


def epochs(row: Row, total: int) -> dict[str, measure.Paced]:
    """One call of Trainer.fit over `total` epochs, one epoch a turn."""
    import lightning

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.manual_seed(0)

    class Training(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = pytorch.build(row.model)

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            x, y = batch
            return pytorch.cross_entropy(self.network(x), y)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=networks.LEARNING_RATE)

    data = torch.utils.data.TensorDataset(*pytorch.tensors(row))
    loader = torch.utils.data.DataLoader(data, row.batch_size, shuffle=True, num_workers=0)

    def train(epoch_end: Callable[[], None]) -> None:
        class Stop(lightning.Callback):
            def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
                epoch_end()

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer = lightning.Trainer(
                max_epochs=total,
                accelerator="cpu",
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                callbacks=[Stop()],
            )
            trainer.fit(Training(), loader)

    return {"lightning": measure.Paced(train)}
