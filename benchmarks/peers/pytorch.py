"""PyTorch eager: tensor indexing (no DataLoader), one thread, Adam in its usual form and fused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks import networks
from benchmarks.networks import Row

NEEDS = ("torch",)


def epochs(row: Row) -> dict[str, Callable[[], object]]:
    """By name: "torch" (Adam as everybody writes it), "torch-fused" (fused=True), "torch-parts" (a batch in parts)."""
    parts = {} if row.parts == 1 else {"torch-parts": _epoch(row, fused=True, parts=row.parts)}
    return {"torch": _epoch(row, fused=None), "torch-fused": _epoch(row, fused=True), **parts}


def _epoch(row: Row, *, fused: bool | None, parts: int = 1) -> Callable[[], object]:
    torch.manual_seed(0)
    model = build(row.model)
    x, y = tensors(row)
    optimizer = torch.optim.Adam(model.parameters(), lr=networks.LEARNING_RATE, fused=fused)

    def run() -> float:
        order = torch.randperm(row.examples)
        total = torch.zeros(())
        for rows in order[: row.steps * row.batch_size].split(row.batch_size):
            optimizer.zero_grad(set_to_none=True)
            for part in rows.chunk(parts):
                loss = cross_entropy(model(x[part]), y[part]) / parts
                loss.backward()
                total += loss.detach()
            optimizer.step()
        return float(total) / row.steps

    return run


def tensors(row: Row) -> tuple[torch.Tensor, torch.Tensor]:
    """x and y; images as [batch, channels, height, width] in memory order channels_last, which is quickest on CPU."""
    x, y = networks.columns(row)
    inputs = torch.from_numpy(x)
    if row.model == "convnet":
        inputs = inputs.permute(0, 3, 1, 2)
    return inputs.long() if row.model == "gpt" else inputs, torch.from_numpy(y).long()


def cross_entropy(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The mean over examples, or over tokens."""
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), y.reshape(-1))


def build(model: str) -> nn.Module:
    """The network called `model`."""
    if model == "mlp":
        a, (b, c), d = networks.PIXELS, networks.WIDTHS, networks.CLASSES
        return nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Linear(b, c), nn.ReLU(), nn.Linear(c, d))
    if model == "logreg":
        return nn.Linear(networks.FEATURES, 2)
    if model == "convnet":
        return nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(7 * 7 * 64, 128),
            nn.ReLU(),
            nn.Linear(128, networks.CLASSES),
        )
    return {"lstm": LSTM, "gpt": GPT}[model]()


class LSTM(nn.Module):
    """The last hidden state of one LSTM layer, then a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(networks.INPUTS, networks.HIDDEN, batch_first=True)
        self.logits = nn.Linear(networks.HIDDEN, networks.CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, (hidden, _) = self.lstm(x)
        return self.logits(hidden[-1])


class Block(nn.Module):
    """Pre-norm attention (scaled_dot_product_attention, torch's quickest) and a GELU MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, t, width))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class GPT(nn.Module):
    """Token and position embeddings, blocks, a norm, and an untied head."""

    def __init__(self) -> None:
        super().__init__()
        n: Any = networks
        self.tokens, self.positions = nn.Embedding(n.VOCABULARY, n.WIDTH), nn.Embedding(n.CONTEXT, n.WIDTH)
        self.blocks = nn.ModuleList([Block(n.WIDTH, n.HEADS) for _ in range(n.LAYERS)])
        self.norm, self.logits = nn.LayerNorm(n.WIDTH), nn.Linear(n.WIDTH, n.VOCABULARY)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.tokens(x) + self.positions.weight[: x.shape[1]]
        for block in self.blocks:
            h = block(h)
        return self.logits(self.norm(h))
