"""All bias measures of a facet in one pass, and a table of them for people to read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.metrics import fairness_post as post
from jaxdl.metrics import fairness_pre as pre
from jaxdl.metrics import sums
from jaxdl.metrics.call import evaluate
from jaxdl.metrics.fairness import COUNTS, Divide, FacetConfusion, FacetLabels, FacetMeasure, collapse, infer_facets
from jaxdl.metrics.flips import flip_test
from jaxdl.metrics.metric import Derived

Stage = Literal["pretraining", "posttraining", "both"]


class Explained(NamedTuple):
    """A measure in words: its formula, its range with the value of no bias, and what a large value means."""

    words: str
    range: str
    meaning: str


#: Clarify's eight measures of labels.
PRETRAINING: Mapping[str, Explained] = {
    "CI": Explained("(n_a - n_d) / (n_a + n_d)", "-1 .. 1, 0", "above 0: d has fewer examples"),
    "DPL": Explained("share positive in a - in d", "-1 .. 1, 0", "above 0: d has fewer positive labels"),
    "KL": Explained("sum P_a ln(P_a / P_d), common labels", "real, 0", "how far the labels of a are from d's"),
    "JS": Explained("mean KL to the mean, common labels", "real, 0", "as KL, symmetric"),
    "LP": Explained("2-norm of P_a - P_d, common labels", "0 .. 1.41, 0", "how far apart the labels are"),
    "TVD": Explained("half the 1-norm of P_a - P_d", "0 .. 1, 0", "how far apart the labels are"),
    "KS": Explained("largest |P_a - P_d|, common labels", "0 .. 1, 0", "the label that differs most"),
    "CDDL": Explained(
        "share of d in negatives - in positives, by stratum", "-1 .. 1, 0", "above 0: d is rejected more"
    ),
}
#: Clarify's measures of predictions that follow from counts, and the flip test, which needs features.
POSTTRAINING: Mapping[str, Explained] = {
    "DPPL": Explained("share predicted positive in a - in d", "-1 .. 1, 0", "above 0: d is accepted less"),
    "DI": Explained("share predicted positive in d / in a", "0 .. inf, 1", "below 1: d is accepted less"),
    "DCA": Explained(
        "labels+ / predictions+ in a - in d", "real, 0", "above 0: a is accepted less than its labels say"
    ),
    "DCR": Explained(
        "labels- / predictions- in d - in a", "real, 0", "below 0: d is rejected more than its labels say"
    ),
    "RD": Explained("recall in a - in d", "-1 .. 1, 0", "above 0: positives of d are missed more"),
    "SD": Explained("specificity in d - in a", "-1 .. 1, 0", "above 0: more false alarms in a"),
    "DAR": Explained("precision in a - in d", "-1 .. 1, 0", "above 0: acceptances of d are wrong more often"),
    "DRR": Explained("right rejections in d - in a", "-1 .. 1, 0", "below 0: rejections of d are wrong more often"),
    "AD": Explained("accuracy in a - in d", "-1 .. 1, 0", "above 0: the model is wrong about d more often"),
    "CDDPL": Explained("CDDL of the predictions", "-1 .. 1, 0", "above 0: d is rejected more, within strata"),
    "TE": Explained("FN / FP in d - in a", "real, 0", "above 0: errors about d are rather missed positives"),
    "FT": Explained(
        "flips of d by neighbours in a, F+ - F-", "-1 .. 1, 0", "below 0: d is rejected where like a is not"
    ),
    "GE": Explained(
        "half the squared variation of benefits", "0 .. inf, 0", "above 0: errors benefit some, whatever facet"
    ),
}


@dataclass(frozen=True)
class BiasReport(Derived):
    """Clarify's bias measures of one facet, {name: value}, from one state: every measure of counts in one pass.

    stage: "pretraining" (CI DPL KL JS LP TVD KS CDDL, of labels), "posttraining" (DPPL DI DCA DCR RD SD DAR DRR AD
    CDDPL TE GE, of predictions and labels) or "both". The flip test keeps examples, not counts: `FlipTest`, or
    `posttraining_bias(..., features=)`. As in Clarify's report, labels of several classes are first made positive or
    not, for KL, JS, LP, TVD and KS as well. Values are float32 [] with two facets, else [num_facets], each value
    against the rest. Fields and shapes: `FacetMeasure`; divide="clarify" follows Clarify's rules for zero denominators,
    "nan" gives NaN. NaN stands where Clarify raises an error.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import BiasReport
    >>> report = BiasReport(stage="pretraining")
    >>> state = report.update(report.init(), target=jnp.array([1, 1, 1, 0]), facet=jnp.array([0, 0, 1, 1]))
    >>> float(report.compute(state)["DPL"])
    0.5
    """

    num_facets: int = 2
    num_classes: int = 2
    num_strata: int = 1
    positive: int | tuple[int, ...] = 1
    stage: Stage = "both"
    divide: Divide = "clarify"
    threshold: float | None = None
    name: str = "bias"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "target", "facet", "stratum")  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.stage not in ("pretraining", "posttraining", "both"):
            raise ValueError(
                f"{self.name}: stage must be 'pretraining', 'posttraining' or 'both'; it is {self.stage!r}"
            )
        checked = FacetMeasure(positive=self.positive, divide=self.divide, name=self.name, **self._counts)  # type: ignore[arg-type]
        object.__setattr__(self, "positive", checked.positive)

    @property
    def _counts(self) -> dict[str, int]:
        return {"num_classes": self.num_classes, "num_facets": self.num_facets, "num_strata": self.num_strata}

    @property
    def statistic(self) -> FacetLabels | FacetConfusion:
        """The counts by facet; before training they need no predictions."""
        if self.stage == "pretraining":
            return FacetLabels(**self._counts, name=self.name)
        return FacetConfusion(**self._counts, threshold=self.threshold, name=self.name)

    def update(  # type: ignore[override]
        self, state: sums.Sums, *, target: Any, facet: Any, preds: Any = None, stratum: Any = None, weight: Any = None,
        mask: Any = None,
    ) -> sums.Sums:  # fmt: skip
        """Adds a batch; `preds` is needed except before training, `stratum` when num_strata is above 1."""
        more = {"target": target, "facet": facet, "preds": preds, "stratum": stratum, "weight": weight, "mask": mask}
        if preds is None and self.stage != "pretraining":
            raise TypeError(
                f"{self.name}: measures of predictions need preds=; those of labels are stage='pretraining'"
            )
        return self.statistic.update(state, **more)

    def compute(self, state: sums.Sums) -> dict[str, jax.Array]:
        """{measure: value}, float32 [] or [num_facets] each."""
        with jax.enable_x64(True):
            table = self.statistic.wide(state)
            found: dict[str, jax.Array] = {}
            if self.stage != "posttraining":
                labels = table if self.stage == "pretraining" else jnp.sum(table, axis=-1)
                found |= self._of_labels(collapse(labels, self.positive))
            if self.stage != "pretraining":
                found |= self._of_predictions(table)
            return {key: self._shaped(value).astype(jnp.float32) for key, value in found.items()}

    def _of_labels(self, labels: jax.Array) -> dict[str, jax.Array]:
        between: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
            "KL": pre.kl, "JS": pre.js, "LP": pre.l2, "TVD": pre.total_variation, "KS": pre.largest
        }  # fmt: skip
        return {
            "CI": pre.imbalance(labels),
            "DPL": pre.proportion_difference(labels, 1),
            **{key: pre.distance(labels, one, common=True) for key, one in between.items()},
            "CDDL": pre.conditional_disparity(labels, 1, self.divide),
        }

    def _of_predictions(self, table: jax.Array) -> dict[str, jax.Array]:
        differences = {key: post.rate_difference(table, key, self.positive, self.divide) for key in post.DIFFERENCES}
        found = {
            **differences,
            "DI": post.impact(table, self.positive, self.divide),
            "CDDPL": pre.conditional_disparity(jnp.sum(table, axis=-2), self.positive, self.divide),
            "GE": post.entropy(table, self.positive, 2.0),
        }
        return {key: found[key] for key in POSTTRAINING if key in found}

    def _shaped(self, value: jax.Array) -> jax.Array:
        if self.num_facets == 2:
            return value.reshape(())
        return jnp.broadcast_to(value.reshape(-1), (self.num_facets,))

    def table(self, state: sums.Sums, *, facets: Sequence[str] | None = None) -> str:
        """The measures as plain text to print: value, formula in words, range with the value of no bias, meaning."""
        return str(Bias({key: np.asarray(value) for key, value in self.compute(state).items()}, _names(facets)))


@dataclass(frozen=True)
class Bias(Mapping[str, np.ndarray]):
    """Bias measures by name; printed, a table that explains them.

    Attributes:
        found: {measure: float32 [] or [facets]}.
        facets: the names of the facets, or None.
        invalid: the weight of the examples that were left out.
    """

    found: Mapping[str, np.ndarray]
    facets: tuple[str, ...] | None = None
    invalid: float = 0.0

    def __getitem__(self, name: str) -> np.ndarray:
        return self.found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)

    def __str__(self) -> str:
        explained = {**PRETRAINING, **POSTTRAINING}
        many = max((np.size(value) for value in self.values()), default=1)
        names = self.facets or tuple(f"facet {g}" for g in range(max(many, 2)))
        heads = ["value"] if many == 1 else [f"{name}" for name in names]
        rows = [["measure", *heads, "computed as", "range, no bias", "meaning"]]
        for key, value in self.items():
            numbers = [f"{float(x):.4f}" for x in np.broadcast_to(np.atleast_1d(value), (many,))]
            rows.append([key, *numbers, *explained[key]])
        widths = [max(len(row[j]) for row in rows) for j in range(len(rows[0]))]
        numeric = range(1, 1 + len(heads))
        lines = [
            "  ".join(
                c.rjust(w) if j in numeric else c.ljust(w) for j, (c, w) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
        who = f"d: {names[1]}; a: {names[0]}" if many == 1 else "d: the facet of the column; a: all others"
        lines = [who, *(line.rstrip() for line in lines)]
        if self.invalid:
            lines.append(f"left out: {self.invalid:g} with an id out of range or a missing value")
        return "\n".join(lines)

    __repr__ = __str__


def pretraining_bias(
    target: Any, *, facet: Any, stratum: Any = None, facets: Sequence[str] | None = None,
    positive: int | tuple[int, ...] = 1, divide: Divide = "clarify", weight: Any = None, mask: Any = None,
    **counts: int,
) -> Bias:  # fmt: skip
    """Clarify's eight measures of labels for one facet, to print or to read by name: `pretraining_bias(...)["DPL"]`.

    target, facet, stratum: int ids [n] (see `facet_ids`); `facets`: the names of the facet ids, for the table; the
    numbers of ids (num_classes, num_facets, num_strata) follow from the data unless they are given. Without `stratum`
    CDDL has one stratum. Policy: `BiasReport`.
    """
    inputs = {"target": target, "facet": facet, "stratum": stratum}
    return _report("pretraining", inputs, facets, positive, divide, None, weight, mask, counts)


def posttraining_bias(
    preds: Any, target: Any, *, facet: Any, stratum: Any = None, features: Any = None,
    facets: Sequence[str] | None = None, positive: int | tuple[int, ...] = 1, divide: Divide = "clarify",
    threshold: float | None = None, weight: Any = None, mask: Any = None, **counts: int,
) -> Bias:  # fmt: skip
    """Clarify's measures of predictions for one facet, to print or to read by name: `posttraining_bias(...)["DI"]`.

    preds: class ids int [n], or scores as in `FacetConfusion`; `features`: float [n, features] for the flip test (FT),
    which is left out without them and needs class ids. All else as `pretraining_bias`.
    """
    inputs = {"preds": preds, "target": target, "facet": facet, "stratum": stratum}
    found = _report("posttraining", inputs, facets, positive, divide, threshold, weight, mask, counts)
    if features is None:
        return found
    sizes = {key: value for key, value in counts.items() if key in ("num_classes", "num_facets")}
    flips = flip_test(preds, facet=facet, features=features, positive=positive, weight=weight, mask=mask, **sizes)
    ordered = {**found, "FT": np.asarray(flips)}
    return Bias({key: ordered[key] for key in POSTTRAINING}, found.facets, found.invalid)


def _report(
    stage: Stage, inputs: dict[str, Any], facets: Sequence[str] | None, positive: int | tuple[int, ...], divide: Divide,
    threshold: float | None, weight: Any, mask: Any, counts: dict[str, int],
) -> Bias:  # fmt: skip
    unknown = [key for key in counts if key not in COUNTS]
    if unknown:
        raise TypeError(f"{stage}_bias() has no argument {unknown[0]!r}; the numbers of ids are {', '.join(COUNTS)}")
    ids = {key: value for key, value in inputs.items() if threshold is None or key != "preds"}
    least = {**infer_facets(ids), **counts}
    if facets is not None:
        least["num_facets"] = max(least["num_facets"], len(facets))
    report = BiasReport(
        positive=positive, stage=stage, divide=divide, threshold=threshold, name=f"{stage}_bias", **least
    )
    kept = {key: value for key, value in {**inputs, "weight": weight, "mask": mask}.items() if value is not None}
    values, invalid = evaluate(_Counted(report), **kept)
    order = PRETRAINING if stage == "pretraining" else POSTTRAINING
    ordered = {key: np.asarray(values[key]) for key in order if key in values}  # jit sorts the names
    return Bias(ordered, _names(facets), float(np.asarray(invalid)))


@dataclass(frozen=True)
class _Counted:
    """A report, and what it left out."""

    of: BiasReport

    @property
    def name(self) -> str:
        return self.of.name

    def init(self) -> sums.Sums:
        return self.of.init()

    def update(self, state: sums.Sums, **inputs: Any) -> sums.Sums:
        return self.of.update(state, **inputs)

    def compute(self, state: sums.Sums) -> tuple[dict[str, jax.Array], jax.Array]:
        return self.of.compute(state), self.of.invalid(state)


def _names(facets: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if facets is None else tuple(map(str, facets))
