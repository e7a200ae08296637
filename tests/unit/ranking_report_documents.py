"""Ranking documents for the tests of the report, made by the ranking itself from seeded site files."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ranking.document import Document, MoreAnswers
from ranking.pipeline import Settings, compute_documents

METRICS = ("Dice_WT", "Hausdorff95_WT", "Dice_TC", "Hausdorff95_TC", "Dice_ET", "Hausdorff95_ET")

HOSTILE_NAMES = (
    "<script>window.hacked = 1</script>",
    '"><img src=x onerror="window.hacked=1">',
    "</style></svg></table><iframe src=javascript:window.hacked=1>",
    "' onmouseover='window.hacked=1",
    "\x1b[31mred\x07\x00",
    "price $x$ & $y$ {{ 7 * 7 }} {% raw %} ]]>",
    "gnp.\u202eexe.lla\u2066",
    "زيد الفريق النهائي",
    "脳腫瘍セグメンテーションチーム" * 4,
    "W" * 300,
    "a" + "\u0301" * 60,
    "\ud800 lone surrogate",
    "   ",
    "\u200b\u200b",
    "a very long name of a team from a university hospital with an ensemble of many networks, version 2 final",
    "1",
)
"""Markup, terminal codes, direction changes, wide and tall scripts, nothing visible at all."""


def write_site_files(folder: Path, submissions: Sequence[str], sites: Sequence[str], cases: int, seed: int = 0) -> None:
    """Site files whose submissions become worse along the list; one value in fifty is missing."""
    generator = np.random.default_rng(seed)
    skill = np.linspace(0.0, 1.5, len(submissions))
    folder.mkdir(parents=True, exist_ok=True)
    for site in sites:
        here = skill + generator.normal(0, 0.3, len(submissions))
        lines: list[str] = []
        for case in range(cases):
            lines.append(f"case_{case:03d}:")
            hard = generator.normal()
            for name, level in zip(submissions, here, strict=True):
                lines.append(f"  {json.dumps(name)}:")
                for metric in METRICS:
                    badness = level + hard + generator.normal(0, 0.8)
                    value = np.clip(0.9 - 0.06 * badness, 0, 1) if "Dice" in metric else np.exp(0.6 * badness + 1)
                    text = "null" if generator.random() < 0.02 else f"{value:.4f}"
                    lines.append(f"    {metric}: {text}")
        (folder / f"{site}.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def compute_test_documents(folder: Path, submissions: int, sites: int, cases: int, **settings: Any) -> list[Document]:
    """Documents of generated sites; ``settings`` as :class:`ranking.pipeline.Settings`, 60 draws unless given."""
    names = [f"team_{number:02d}" for number in range(submissions)]
    write_site_files(folder, names, [f"site_{number + 1:02d}" for number in range(sites)], cases)
    return compute_documents(folder, Settings(**{"draws": 60, **settings}))


def rename(document: Document, submissions: Sequence[str], sites: Sequence[str]) -> Document:
    """The same ranking of submissions and sites with other names, as many as given."""
    renamed = copy.deepcopy(document)
    renamed["submissions"][: len(submissions)] = list(submissions)[: len(document["submissions"])]
    renamed["sites"][: len(sites)] = list(sites)[: len(document["sites"])]
    for site, name in zip(renamed["per_site"], renamed["sites"], strict=True):
        site["name"] = name
    return renamed


def add_more_answers(document: Document) -> Document:
    """The same document with further answers of the right shapes, which take minutes to compute at full scale."""
    count = len(document["submissions"])
    order, means = document["federation"]["order"], document["federation"]["mean_rank"]
    ranks = [order.index(submission) + 1 for submission in range(count)]
    better = [[float(one < other) * 0.9 for other in ranks] for one in ranks]
    equal = [[float(one == other) for other in ranks] for one in ranks]
    p_values = [[1.0 if one == other else 0.03 for other in ranks] for one in ranks]
    more: MoreAnswers = {
        "permutation": {"permutations": 100, "mean_rank": means, "rank": ranks, "p": p_values},
        "decathlon": {"score": [1 - rank / count for rank in ranks], "rank": ranks},
        "critical_difference": {
            "average_rank": means,
            "critical_difference": 2.5,
            "friedman_p": 0.001,
            "cliques": [order[start : start + 4] for start in range(0, count - 4, 2)],
        },
        "bayes": {"rope": 0.1, "draws": 100, "better": better, "equivalent": equal},
    }
    changed = copy.deepcopy(document)
    changed["federation"]["more"] = more
    return changed
