"""The networks of benchmarks/models.py in PyTorch, and their training: eager, or compiled on an accelerator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.peers.pytorch import Block, cross_entropy


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the shortcut of ResNet-18."""

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != channels:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x), inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 (which strides) and 1x1 convolutions, and the shortcut of ResNet-50."""

    def __init__(self, inputs: int, inner: int, stride: int) -> None:
        super().__init__()
        channels = 4 * inner
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False)
        self.conv3 = nn.Conv2d(inner, channels, 1, bias=False)
        self.norm1, self.norm2, self.norm3 = nn.BatchNorm2d(inner), nn.BatchNorm2d(inner), nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != channels:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        y = F.relu(self.norm2(self.conv2(y)), inplace=True)
        return F.relu(self.norm3(self.conv3(y)) + self.shortcut(x), inplace=True)


def resnet18(width: int, classes: int) -> nn.Module:
    """The form for 32x32: a 3x3 stem without pool."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(True)]
    inputs = width
    for stage in range(4):
        for block in range(2):
            channels = width * 2**stage
            layers.append(BasicBlock(inputs, channels, 2 if stage and not block else 1))
            inputs = channels
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


def resnet50(width: int, classes: int) -> nn.Module:
    """torchvision's form: a 7x7 stem, a pool, and strides in the 3x3 convolutions."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(True)]
    layers.append(nn.MaxPool2d(3, 2, 1))
    inputs = width
    for stage, depth in enumerate((3, 4, 6, 3)):
        for block in range(depth):
            inner = width * 2**stage
            layers.append(Bottleneck(inputs, inner, 2 if stage and not block else 1))
            inputs = 4 * inner
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


class LSTMClassifier(nn.Module):
    """The last hidden state of one LSTM layer, then a dense layer."""

    def __init__(self, inputs: int, width: int, classes: int) -> None:
        super().__init__()
        self.lstm, self.logits = nn.LSTM(inputs, width, batch_first=True), nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, (hidden, _) = self.lstm(x)
        return self.logits(hidden[-1])


class GPT(nn.Module):
    """GPT-2: learned positions, blocks, a last norm, and logits with the tokens' vectors."""

    def __init__(self, vocabulary: int, width: int, depth: int, heads: int, length: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.positions.weight, std=0.02)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.tokens(x) + self.positions.weight[: x.shape[1]]
        for block in self.blocks:
            h = block(h)
        return F.linear(self.norm(h), self.tokens.weight)


class UNet(nn.Module):
    """Pairs of 3x3 convolutions with batch norm, down by max pools and up by 2x2 transposed convolutions."""

    def __init__(self, width: int, depth: int, classes: int) -> None:
        super().__init__()
        sizes = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList([self._double(a, b) for a, b in zip([3, *sizes], sizes, strict=False)])
        self.spread = nn.ModuleList([nn.ConvTranspose2d(2 * size, size, 2, 2) for size in sizes[:-1]])
        self.up = nn.ModuleList([self._double(2 * size, size) for size in sizes[:-1]])
        self.logits = nn.Conv2d(width, classes, 1)

    @staticmethod
    def _double(inputs: int, channels: int) -> nn.Module:
        layers: list[nn.Module] = []
        for size in (inputs, channels):
            layers += [nn.Conv2d(size, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(True)]
        return nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bridges = []
        for block in self.down:
            x = block(F.max_pool2d(x, 2) if bridges else x)
            bridges.append(x)
        for spread, block, bridge in zip(self.spread[::-1], self.up[::-1], bridges[-2::-1], strict=True):  # type: ignore[index]
            x = block(torch.cat([bridge, spread(x)], dim=1))
        return self.logits(x)


MAKE: dict[str, Callable[..., nn.Module]] = {
    "resnet18": resnet18,
    "resnet50": resnet50,
    "lstm": LSTMClassifier,
    "gpt": GPT,
    "unet": UNet,
}


def epochs(
    make: str, sizes: tuple[int, ...], x: Any, y: Any, batch_size: int, *, on_device: bool = False
) -> dict[str, Callable[[], object]]:
    """Epochs of training by name: each form of memory and optimizer that might be the quickest.

    Args:
        sizes: of the network, as its maker takes them.
        x, y: NumPy columns; images are [n, height, width, channels].
        on_device: the accelerator's form: bfloat16 by autocast, fused Adam, torch.compile beside eager.
    """
    images = x.ndim == 4
    if on_device:
        eager = _epoch(make, sizes, x, y, batch_size, channels_last=images, fused=True, on_device=True)
        options: dict[str, Any] = {"channels_last": images, "fused": True, "on_device": True, "compiled": True}
        return {"torch": eager, "torch-compile": _epoch(make, sizes, x, y, batch_size, **options)}
    forms = {"torch": {}, "torch-fused": {"fused": True}}
    if images:
        forms["torch-channels-last"] = {"channels_last": True, "fused": True}
    return {name: _epoch(make, sizes, x, y, batch_size, **form) for name, form in forms.items()}


def _epoch(
    make: str,
    sizes: tuple[int, ...],
    x: Any,
    y: Any,
    batch_size: int,
    *,
    channels_last: bool = False,
    fused: bool = False,
    on_device: bool = False,
    compiled: bool = False,
) -> Callable[[], object]:
    torch.manual_seed(0)
    device = torch.device("cuda" if on_device and torch.cuda.is_available() else "cpu")
    form: dict[str, Any] = {"memory_format": torch.channels_last} if channels_last else {}
    model = MAKE[make](*sizes).to(device, **form)
    inputs = torch.from_numpy(x)
    if inputs.ndim == 4:
        inputs = inputs.permute(0, 3, 1, 2).contiguous(**form)
    inputs = (inputs if inputs.is_floating_point() else inputs.long()).to(device)
    labels = torch.from_numpy(y).long().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=fused or None)
    half = torch.autocast(device.type, torch.bfloat16, enabled=on_device)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with half:
            logits = model(x)
        if logits.ndim == 4:  # classes are the second axis of an image
            return F.cross_entropy(logits.float(), y)
        return cross_entropy(logits.float(), y)

    measured = torch.compile(loss_of) if compiled else loss_of

    def run() -> float:
        order = torch.randperm(len(labels), device=device)
        total = torch.zeros((), device=device)
        for rows in order.split(batch_size):
            optimizer.zero_grad(set_to_none=True)
            loss = measured(inputs[rows], labels[rows])
            loss.backward()
            optimizer.step()
            total += loss.detach()
        return float(total)

    return run
