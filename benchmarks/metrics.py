"""Metrics: CPU time of jaxdl's metrics against scikit-learn, torchmetrics, NumPy and pycocotools on the same arrays.

    taskset -c 0 python -m benchmarks.metrics            # about 10 minutes; --quick (a tenth of it): 2 minutes

Rows: auc, ap, histogram (area with its bound) on 1e6 scores, auc-1e7; confusion, f1, miou on 1e6 ids of 21 classes; r2
on 1e6 numbers; models and models-histogram (the areas of 256 models on 10,000 examples); bootstrap (256 resamples of
10,000 examples); coco (mean average precision of 2,000 synthetic images). Everybody has arrays of its own kind before
the clock starts; ours are float32 and int32 on the device. ratio = the peer's CPU time / ours, so above 1 jaxdl is
cheaper; compiling is not in it. A peer that is not installed is skipped by name.

Freed memory stays with the process, as `fit` arranges it on a CPU, for all peers alike: see benchmarks/README.md. With
MALLOC_ARENA_MAX=8 in the environment (or any setting of your own) it does not, and large temporaries cost page faults.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks import measure

Work = Callable[[], Any]
SIZE, MODELS, FEW, CLASSES, IMAGES = 1_000_000, 256, 10_000, 21, 2_000


@dataclass(frozen=True)
class Bench:
    """One row: what makes the peers of it (ours first, by name) for a number of examples, and what is promised."""

    make: Callable[[int], dict[str, Work]]
    targets: dict[str, float]
    size: int
    rounds: int
    turns: int = 1


def ready(value: Any) -> Any:
    """The value, computed."""
    import jax

    return jax.block_until_ready(value)


def scores(size: int) -> tuple[Any, Any]:
    """Calibrated probabilities, float32, and labels, int32."""
    import numpy as np

    draw = np.random.default_rng(0)
    logits = draw.normal(0, 1.5, size)
    chance = 1 / (1 + np.exp(-logits))
    return chance.astype(np.float32), (draw.random(size) < chance).astype(np.int32)


def ids(size: int) -> tuple[Any, Any]:
    """Predicted and true classes, int32: 70 % agree."""
    import numpy as np

    draw = np.random.default_rng(1)
    target = draw.integers(0, CLASSES, size).astype(np.int32)
    other = draw.integers(0, CLASSES, size).astype(np.int32)
    return np.where(draw.random(size) < 0.7, target, other).astype(np.int32), target


def ours(call: Callable[..., Any], *arrays: Any) -> Work:
    """`call` compiled, on arrays that already lie on the device."""
    import jax
    import jax.numpy as jnp

    compiled, held = jax.jit(call), [jnp.asarray(x) for x in arrays]
    return lambda: ready(compiled(*held))


def sklearn(call: Callable[[Any], Any]) -> dict[str, Work]:
    """scikit-learn's peer, when it is there."""
    if not measure.available("sklearn"):
        print("scikit-learn is not installed, skipped")
        return {}
    from sklearn import metrics

    return {"scikit-learn": lambda: call(metrics)}


def torchmetrics(call: Callable[..., Any], *arrays: Any) -> dict[str, Work]:
    """torchmetrics' functional peer, when it is there, on tensors made beforehand."""
    if not measure.available("torch", "torchmetrics"):
        print("torchmetrics is not installed, skipped")
        return {}
    import torch
    from torchmetrics import functional

    torch.set_num_threads(1)
    held = [torch.from_numpy(x.copy()).long() if x.dtype.kind == "i" else torch.from_numpy(x.copy()) for x in arrays]
    return {"torchmetrics": lambda: call(functional, *held)}


def auc(size: int) -> dict[str, Work]:
    from jaxdl import metrics

    p, y = scores(size)
    return (
        {"jaxdl": ours(lambda p, y: metrics.roc_auc(p, y, capacity=size), p, y)}
        | sklearn(lambda peer: peer.roc_auc_score(y, p))
        | torchmetrics(lambda peer, p, y: peer.classification.binary_auroc(p, y, validate_args=False), p, y)
    )


def ap(size: int) -> dict[str, Work]:
    from jaxdl import metrics

    p, y = scores(size)
    peer = "binary_average_precision"
    return (
        {"jaxdl": ours(lambda p, y: metrics.average_precision(p, y, capacity=size), p, y)}
        | sklearn(lambda peer: peer.average_precision_score(y, p))
        | torchmetrics(lambda f, p, y: getattr(f.classification, peer)(p, y, validate_args=False), p, y)
    )


def histogram(size: int) -> dict[str, Work]:
    from jaxdl import metrics

    p, y = scores(size)
    metric = metrics.ROCAUC(scores=metrics.Histogram())
    bounded = ours(lambda p, y: metric.bounded(metric.update(metric.init(), preds=p, target=y)), p, y)
    return {"jaxdl": bounded} | sklearn(lambda peer: peer.roc_auc_score(y, p))


def confusion(size: int) -> dict[str, Work]:
    import numpy as np

    from jaxdl import metrics

    p, t = ids(size)
    name = "multiclass_confusion_matrix"
    return (
        {"jaxdl": ours(lambda p, t: metrics.confusion_matrix(p, t, num_classes=CLASSES), p, t)}
        | sklearn(lambda peer: peer.confusion_matrix(t, p))
        | torchmetrics(lambda f, p, t: getattr(f.classification, name)(p, t, CLASSES, validate_args=False), p, t)
        | {"numpy.bincount": lambda: np.bincount(t * CLASSES + p, minlength=CLASSES**2).reshape(CLASSES, CLASSES)}
    )


def f1(size: int) -> dict[str, Work]:
    from jaxdl import metrics

    p, t = ids(size)
    name = "multiclass_f1_score"
    return (
        {"jaxdl": ours(lambda p, t: metrics.f1(p, t, num_classes=CLASSES, average="macro"), p, t)}
        | sklearn(lambda peer: peer.f1_score(t, p, average="macro"))
        | torchmetrics(lambda f, p, t: getattr(f.classification, name)(p, t, CLASSES, validate_args=False), p, t)
    )


def miou(size: int) -> dict[str, Work]:
    from jaxdl import metrics

    p, t = ids(size)
    name = "multiclass_jaccard_index"
    return (
        {"jaxdl": ours(lambda p, t: metrics.mean_iou(p, t, num_classes=CLASSES), p, t)}
        | sklearn(lambda peer: peer.jaccard_score(t, p, average="macro"))
        | torchmetrics(lambda f, p, t: getattr(f.classification, name)(p, t, CLASSES, validate_args=False), p, t)
    )


def r2(size: int) -> dict[str, Work]:
    import numpy as np

    from jaxdl import metrics

    draw = np.random.default_rng(2)
    target = draw.normal(size=size).astype(np.float32)
    preds = (target + draw.normal(0, 0.5, size)).astype(np.float32)
    return (
        {"jaxdl": ours(metrics.r2, preds, target)}
        | sklearn(lambda peer: peer.r2_score(target, preds))
        | torchmetrics(lambda f, p, t: f.r2_score(p, t), preds, target)
    )


def _models(size: int) -> tuple[Any, Any]:
    import numpy as np

    p, y = scores(size)
    noise = np.random.default_rng(3).normal(size=(MODELS, size))
    return (1 / (1 + np.exp(-np.log(p / (1 - p)) - noise))).astype(np.float32), y


def _of_models(size: int, metric: Any) -> dict[str, Work]:
    import jax

    p, y = _models(size)

    def one(p: Any, y: Any) -> Any:
        return metric.compute(metric.update(metric.init(), preds=p, target=y))

    return (
        {"jaxdl": ours(jax.vmap(one, in_axes=(0, None)), p, y)}
        | sklearn(lambda peer: [peer.roc_auc_score(y, row) for row in p])
        | torchmetrics(lambda f, p, y: [f.classification.binary_auroc(row, y, validate_args=False) for row in p], p, y)
    )


def models(size: int) -> dict[str, Work]:
    from jaxdl import metrics

    return _of_models(size, metrics.ROCAUC(capacity=size))


def models_histogram(size: int) -> dict[str, Work]:
    from jaxdl import metrics

    return _of_models(size, metrics.ROCAUC(scores=metrics.Histogram()))


def bootstrap(size: int) -> dict[str, Work]:
    import jax
    import numpy as np

    from jaxdl import metrics

    p, y = scores(size)
    metric, key = metrics.ROCAUC(capacity=size), jax.random.key(0)
    draw = np.random.default_rng(4)

    def loop(peer: Any) -> list[float]:
        drawn = [draw.integers(0, size, size) for _ in range(MODELS)]
        return [peer.roc_auc_score(y[i], p[i]) for i in drawn]

    return {"jaxdl": ours(lambda p, y: metrics.bootstrap(metric, key, MODELS, preds=p, target=y), p, y)} | sklearn(loop)


def coco(size: int) -> dict[str, Work]:
    import jax
    import jax.numpy as jnp

    from benchmarks.detection_images import coco_files, detection_images, evaluate_loaded, load
    from jaxdl import metrics

    classes = 20
    preds, target = detection_images(size, classes=classes)
    metric = metrics.CocoMAP(classes, int((preds["labels"] >= 0).sum()), box_format="xywh")

    def whole(preds: Any, target: Any) -> Any:
        values = metric.compute(metric.update(metric.init(), preds=preds, target=target))
        return jnp.stack(list(values.values()))  # in the order of pycocotools' twelve

    found: dict[str, Work] = {}
    compiled = jax.jit(whole)
    held = jax.tree.map(jnp.asarray, (preds, target))
    found["jaxdl"] = lambda: ready(compiled(*held))
    if not measure.available("pycocotools"):
        print("pycocotools is not installed, skipped")
        return found
    truth, results = load(*coco_files(preds, target, classes))
    return found | {"pycocotools": lambda: evaluate_loaded(truth, results).stats}


# Calls a turn of what lasts a millisecond or two: one alone would mostly time the caches that its neighbours emptied.
_SHORT = 5
_OF_COUNTS = {"scikit-learn": 40.0, "torchmetrics": 1.7}
TABLE = {
    "auc": Bench(auc, {"scikit-learn": 2.5, "torchmetrics": 1.5}, SIZE, 21),
    "auc-1e7": Bench(auc, {"scikit-learn": 2.5, "torchmetrics": 1.5}, 10 * SIZE, 7),
    "ap": Bench(ap, {}, SIZE, 21),
    "histogram": Bench(histogram, {"scikit-learn": 60.0}, SIZE, 21, turns=_SHORT),
    "confusion": Bench(confusion, _OF_COUNTS, SIZE, 21, turns=_SHORT),
    "f1": Bench(f1, _OF_COUNTS, SIZE, 21, turns=_SHORT),
    "miou": Bench(miou, _OF_COUNTS, SIZE, 21, turns=_SHORT),
    "r2": Bench(r2, {"scikit-learn": 4.0}, SIZE, 21, turns=_SHORT),
    "models": Bench(models, {"scikit-learn": 4.5}, FEW, 7),
    "models-histogram": Bench(models_histogram, {"scikit-learn": 20.0}, FEW, 7),
    "bootstrap": Bench(bootstrap, {"scikit-learn": 12.0}, FEW, 7),
    "coco": Bench(coco, {"pycocotools": 1.0}, IMAGES, 7),
}


def note(row: str, size: int, seconds: float, value: Any) -> str:
    """What we cost an example, and of a histogram its bound."""
    import numpy as np

    count = size * (MODELS if row in ("models", "models-histogram", "bootstrap") else 1)
    text = f"{seconds / count * 1e9:.3g} ns an example" if row != "coco" else f"{seconds / size * 1e6:.3g} us an image"
    if row == "histogram":
        ends = {key: float(np.asarray(value[key])) for key in ("low", "high")}
        text += f", area {float(value['value']):.6f} within {ends['low']:.6f} .. {ends['high']:.6f}"
    return text


def agree(row: str, mine: Any, theirs: Any, peer: str) -> str:
    """Empty, or what the peer's value differs by when that is more than rounding; resamples are random."""
    import numpy as np

    if row == "histogram":
        inside = float(mine["low"]) - 1e-7 <= float(theirs) <= float(mine["high"]) + 1e-7
        return "" if inside else f"{peer} gives {float(theirs)}, outside the bound"
    ours, other = np.asarray(mine, float).ravel(), np.asarray([float(x) for x in np.ravel(np.asarray(theirs))])
    limit = {"models-histogram": 1e-3, "bootstrap": np.inf}.get(row, 2e-6)
    gap = np.max(np.abs(ours - other) / np.maximum(np.abs(other), 1e-12))
    return "" if gap <= limit else f"values differ by {gap:.1g}"


def main() -> None:
    """Time the rows, print table and JSON lines."""
    options = measure.arguments(__doc__, tuple(TABLE))
    measure.pin(options.core)
    from jaxdl.core.allocator import keep_freed_memory

    print(f"freed memory stays with the process: {keep_freed_memory()}")
    results = []
    for row in options.row or TABLE:
        bench = TABLE[row]
        size = bench.size // 10 if options.quick and bench.size > FEW else bench.size
        peers = bench.make(size)
        values = {name: work() for name, work in peers.items()}
        costs = measure.interleave(peers, rounds=min(options.rounds, bench.rounds), turns=bench.turns)
        mine = costs.pop("jaxdl")
        said = note(row, size, measure.median_interval(mine)[0], values["jaxdl"])
        for peer, theirs in costs.items():
            differs = agree(row, values["jaxdl"], values[peer], peer)
            text = "; ".join(filter(None, (said, differs)))
            target = bench.targets.get(peer)
            results.append(measure.compare("metrics", row, peer, mine, theirs, target=target, note=text))
            print(f"{row}, {peer}: {measure.significant(results[-1].value, 3)}", flush=True)
    measure.report(results, path=options.json)


if __name__ == "__main__":
    main()
