"""What an expression of PromQL asks for, and which labels its result has; parsed by promql-parser, which is not ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import promql_parser as promql

OF_THE_SCRAPE = frozenset({"job", "instance"})
"""Labels that Prometheus adds."""
_VARIABLE = re.compile(r"\$\{?(\w+)\}?")
_PLAIN = re.compile(r"[\w.:+-]+(\|[\w.:+-]+)*")
_SET_OPERATORS = ("and", "or", "unless")


class Wrong(Exception):
    """The expression asks for something that is not there."""


@dataclass(slots=True)
class Known:
    """Metrics that exist: for each sample name the values of its labels."""

    samples: dict[str, dict[str, set[str]]] = field(default_factory=dict)
    recorded: dict[str, frozenset[str]] = field(default_factory=dict)
    """What rules record, and its labels."""
    used: set[str] = field(default_factory=set)
    """What has been asked for."""

    def add(self, name: str, labels: Mapping[str, str]) -> None:
        values = self.samples.setdefault(name, {})
        for label, value in labels.items():
            values.setdefault(label, set()).add(value)

    def labels(self, selector: Any) -> frozenset[str]:
        """The labels of what a selector finds. Raises Wrong."""
        name = selector.name
        self.used.add(name)
        if name in self.recorded:
            return self.recorded[name]
        values = self.samples.get(name)
        if values is None:
            raise Wrong(f"there is no metric {name}")
        for matcher in selector.matchers.matchers:
            if matcher.name in OF_THE_SCRAPE:
                continue
            if matcher.name not in values:
                raise Wrong(f"{name} has no label {matcher.name}")
            if _PLAIN.fullmatch(matcher.value) and not set(matcher.value.split("|")) <= values[matcher.name]:
                raise Wrong(f"{name}: {matcher.name} is never {matcher.value!r}, but {sorted(values[matcher.name])}")
        return frozenset(values) | OF_THE_SCRAPE


def filled_in(expression: str) -> str:
    """With Grafana's variables put in: an interval, and any instance."""
    return _VARIABLE.sub(lambda m: "5m" if m[1] == "__rate_interval" else ".*", expression)


def parse(expression: str) -> Any:
    """Raises ValueError."""
    return promql.parse(filled_in(expression))


def labels_of(expr: Any, known: Known) -> frozenset[str]:
    """The labels of the result. Raises Wrong for metrics, labels and values that do not exist."""
    match expr:
        case promql.VectorSelector():
            return known.labels(expr)
        case promql.MatrixSelector():
            return known.labels(expr.vector_selector)
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            return labels_of(expr.expr, known)
        case promql.AggregateExpr():
            return _aggregated(expr, labels_of(expr.expr, known))
        case promql.Call():
            return _called(expr, [labels_of(arg, known) for arg in expr.args])
        case promql.BinaryExpr():
            return _joined(expr, labels_of(expr.lhs, known), labels_of(expr.rhs, known))
        case _:
            return frozenset()


def _aggregated(expr: Any, inner: frozenset[str]) -> frozenset[str]:
    if expr.modifier is None:
        return frozenset()
    named = frozenset(expr.modifier.labels)
    if not named <= inner:
        raise Wrong(f"by {sorted(named - inner)}: it has only {sorted(inner)}")
    return named if expr.modifier.type == promql.AggModifierType.By else inner - named


def _called(expr: Any, args: list[frozenset[str]]) -> frozenset[str]:
    name = expr.func.name
    if name == "absent":
        selector = expr.args[0]
        return frozenset(matcher.name for matcher in selector.matchers.matchers)
    found = frozenset[str]().union(*args)
    if name == "histogram_quantile":
        if "le" not in found:
            raise Wrong("histogram_quantile of something without le")
        return found - {"le"}
    return found


def _joined(expr: Any, left: frozenset[str], right: frozenset[str]) -> frozenset[str]:
    modifier = expr.modifier
    on = None if modifier is None or modifier.matching is None else frozenset(modifier.matching.labels)
    if on is not None and not on <= left & right:
        raise Wrong(f"on {sorted(on)}: the sides have {sorted(left)} and {sorted(right)}")
    if str(expr.op) in _SET_OPERATORS:
        return left | right if str(expr.op) == "or" else left
    if on is None:
        return left | right
    if modifier.card == promql.VectorMatchCardinality.ManyToOne:
        return left | frozenset(modifier.group_labels or ())
    return on
