"""Plain YAML: mappings, lists and scalars, keys as text, duplicates refused.

YAML 1.1 turns the key ``no`` into False, ``010`` into 8 and ``1e-05`` into text, and PyYAML keeps the last of two
equal keys without a word. This reader works on the parser's events, before any such resolution: a scalar keeps its
text, and the caller decides what it means. Anchors, aliases, tags and deep nesting are refused, so a hostile file
cannot blow up.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

MAX_DEPTH = 8

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
        Nested ``dict`` (keys are text, in order), ``list`` and :class:`Scalar`; None for an empty document.

    Raises
    ------
    PlainYamlError
        Not YAML, more than one document, duplicate key, key that is not a scalar, anchor, alias, tag, nesting deeper
        than ``MAX_DEPTH``.
    """
    try:
        events = yaml.parse(text, Loader=_Loader)
        return _read_document(events)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = "" if mark is None else f"line {mark.line + 1}: "
        raise PlainYamlError(f"{where}{error.problem or 'not YAML'}") from error
    except yaml.YAMLError as error:  # a character that YAML forbids
        raise PlainYamlError(f"not YAML: {getattr(error, 'reason', 'unreadable')}") from error


def _read_document(events: Iterator[Any]) -> Node:
    result: Node = None
    documents = 0
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise PlainYamlError(f"line {_find_line(event)}: found a second document, expected one")
        elif isinstance(event, (yaml.ScalarEvent, yaml.MappingStartEvent, yaml.SequenceStartEvent, yaml.AliasEvent)):
            result = _read_node(event, events, 1)
    return result


def _find_line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _read_node(event: Any, events: Iterator[Any], depth: int) -> Node:
    line = _find_line(event)
    if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
        raise PlainYamlError(f"line {line}: found an anchor or alias, expected plain values")
    if event.tag is not None and event.tag != "!":
        raise PlainYamlError(f"line {line}: found a tag, expected plain values")
    if isinstance(event, yaml.ScalarEvent):
        return Scalar(event.value, not event.style, line)
    if depth > MAX_DEPTH:
        raise PlainYamlError(f"line {line}: nested deeper than {MAX_DEPTH} levels")
    if isinstance(event, yaml.SequenceStartEvent):
        return _read_list(events, depth)
    return _read_mapping(events, depth)


def _read_list(events: Iterator[Any], depth: int) -> list[Node]:
    items: list[Node] = []
    for event in events:
        if isinstance(event, yaml.SequenceEndEvent):
            return items
        items.append(_read_node(event, events, depth + 1))
    raise PlainYamlError("the list does not end")


def _read_mapping(events: Iterator[Any], depth: int) -> dict[str, Node]:
    mapping: dict[str, Node] = {}
    for event in events:
        if isinstance(event, yaml.MappingEndEvent):
            return mapping
        key = _read_node(event, events, depth + 1)
        if not isinstance(key, Scalar):
            raise PlainYamlError(f"line {_find_line(event)}: found a mapping or list as a key, expected text")
        if key.text in mapping:
            raise PlainYamlError(f"line {key.line}: duplicate key {key.text!r}")
        mapping[key.text] = _read_node(next(events), events, depth + 1)
    raise PlainYamlError("the mapping does not end")
