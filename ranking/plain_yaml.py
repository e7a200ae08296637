"""Plain YAML: mappings, lists and scalars, keys as text, duplicates refused.

YAML 1.1 turns the key ``no`` into False, ``010`` into 8 and ``1e-05`` into text, and PyYAML keeps the last of two
equal keys without a word. This reader works on the parser's events, before any such resolution: a scalar keeps its
text, and the caller decides what it means. Tags and deep nesting are refused, and an alias counts for all that it
stands for, so a hostile file cannot blow up.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

MAX_DEPTH = 8
MAX_VALUES = 10_000_000

# The C parser gives the same events ten times faster; PyYAML may be built without it.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Scalar(NamedTuple):
    """One scalar: its text, whether it stood there without quotes, and its line (from 1)."""

    text: str
    plain: bool
    line: int


Node = Any
"""``dict[str, Node]``, ``list[Node]`` or :class:`Scalar`."""


class PlainYamlError(ValueError):
    """The text is no plain YAML; the message says where and why."""


def load_plain_yaml(text: str) -> Node:
    """Read one YAML document.

    Parameters
    ----------
    text : str
        The document.

    Returns
    -------
    Node
        Nested ``dict`` (keys are text, in order), ``list`` and :class:`Scalar`; None for an empty document. What an
        alias stands for is the same object as the anchored one.

    Raises
    ------
    PlainYamlError
        Not YAML, more than one document, duplicate key, key that is not a scalar, merge key, tag, nesting deeper than
        ``MAX_DEPTH``, or aliases that expand to more than ``MAX_VALUES``.
    """
    try:
        return _Reader(yaml.parse(text, Loader=_Loader)).read_document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = "" if mark is None else f"line {mark.line + 1}: "
        raise PlainYamlError(f"{where}{error.problem or 'not YAML'}") from error
    except yaml.YAMLError as error:  # a character that YAML forbids
        raise PlainYamlError(f"not YAML: {getattr(error, 'reason', 'unreadable')}") from error


class _Reader:
    """Builds nodes from the parser's events; ``size`` counts scalars, those behind an alias once per alias."""

    def __init__(self, events: Iterator[Any]) -> None:
        self.events = events
        self.anchors: dict[str, tuple[Node, int]] = {}
        self.size = 0

    def read_document(self) -> Node:
        result: Node = None
        documents = 0
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise PlainYamlError(f"line {_find_line(event)}: found a second document, expected one")
            elif isinstance(
                event, (yaml.ScalarEvent, yaml.MappingStartEvent, yaml.SequenceStartEvent, yaml.AliasEvent)
            ):
                result = self.read_node(event, 1)
        return result

    def read_node(self, event: Any, depth: int) -> Node:
        if isinstance(event, yaml.AliasEvent):
            return self.read_alias(event)
        before = self.size
        node = self.read_plain_node(event, depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = (node, self.size - before)
        return node

    def read_alias(self, event: Any) -> Node:
        if event.anchor not in self.anchors:
            raise PlainYamlError(f"line {_find_line(event)}: alias {event.anchor!r} stands for nothing before it")
        node, size = self.anchors[event.anchor]
        self.count(size, event)
        return node

    def count(self, size: int, event: Any) -> None:
        self.size += size
        if self.size > MAX_VALUES:
            raise PlainYamlError(f"line {_find_line(event)}: more than {MAX_VALUES} values, aliases counted")

    def read_plain_node(self, event: Any, depth: int) -> Node:
        if event.tag is not None and event.tag != "!":
            raise PlainYamlError(f"line {_find_line(event)}: found a tag, expected plain values")
        if isinstance(event, yaml.ScalarEvent):
            self.count(1, event)
            return Scalar(event.value, not event.style, _find_line(event))
        if depth > MAX_DEPTH:
            raise PlainYamlError(f"line {_find_line(event)}: nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.SequenceStartEvent):
            return self.read_list(depth)
        return self.read_mapping(depth)

    def read_list(self, depth: int) -> list[Node]:
        items: list[Node] = []
        for event in self.events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            items.append(self.read_node(event, depth + 1))
        return items

    def read_mapping(self, depth: int) -> dict[str, Node]:
        mapping: dict[str, Node] = {}
        for event in self.events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key = self.read_node(event, depth + 1)
            if not isinstance(key, Scalar):
                raise PlainYamlError(f"line {_find_line(event)}: found a mapping or list as a key, expected text")
            if key.text == "<<" and key.plain:
                raise PlainYamlError(f"line {key.line}: found a merge key, expected every value written out")
            if key.text in mapping:
                raise PlainYamlError(f"line {key.line}: duplicate key {key.text!r}")
            mapping[key.text] = self.read_node(next(self.events), depth + 1)
        return mapping


def _find_line(event: Any) -> int:
    return int(event.start_mark.line) + 1
