"""Colours of the report: text can be read, series can be told apart by the colour-blind, maps by lightness alone."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from ranking.report_style import DARK, LIGHT, PALETTE, SERIES, STEPS, build_figure_css, compute_series, compute_step

# Machado, Oliveira and Fernandes 2009, severity 1, for linear RGB.
_EYES = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def _linear(colour: str) -> NDArray[np.float64]:
    parts = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def _lab(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    ratio = (_TO_XYZ @ np.clip(linear, 0, 1)) / np.array([0.95047, 1.0, 1.08883])
    root = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


def _contrast(one: str, other: str) -> float:
    """Contrast ratio of WCAG 2."""
    darker, lighter = sorted(float(_linear(colour) @ _TO_XYZ[1]) for colour in (one, other))
    return (lighter + 0.05) / (darker + 0.05)


def test_measures_are_right() -> None:
    assert _contrast("#000000", "#ffffff") == pytest.approx(21, abs=0.01)
    assert _lab(_linear("#ffffff")) == pytest.approx([100, 0, 0], abs=0.02)


@pytest.mark.parametrize("theme", [LIGHT, DARK])
@pytest.mark.parametrize(
    ("text", "ground"),
    [
        *((text, ground) for text in ("ink", "muted", "accent") for ground in ("bg", "surface", "band")),
        *(("ink", ground) for ground in ("notice", "s1", "s2", "b1", "b2", "w1", "w2")),
        ("bg", "b3"),
        ("bg", "w3"),
    ],
)
def test_text_has_the_contrast_of_wcag_aa(text: str, ground: str, theme: int) -> None:
    assert _contrast(PALETTE[text][theme], PALETTE[ground][theme]) >= 4.5


@pytest.mark.parametrize("theme", [LIGHT, DARK])
@pytest.mark.parametrize("eye", sorted(_EYES))
def test_series_differ_for_every_eye(eye: str, theme: int) -> None:
    seen = {name: _lab(_EYES[eye] @ _linear(PALETTE[name][theme])) for name in (*SERIES, "other")}
    # 10 is far above the just noticeable difference of about 2.3.
    assert min(float(np.linalg.norm(seen[one] - seen[other])) for one, other in combinations(seen, 2)) > 10


@pytest.mark.parametrize("theme", [LIGHT, DARK])
@pytest.mark.parametrize("eye", sorted(_EYES))
def test_map_steps_are_ordered_by_lightness_for_every_eye(eye: str, theme: int) -> None:
    lightness = [float(_lab(_EYES[eye] @ _linear(PALETTE[step][theme]))[0]) for step in STEPS]
    steps = [after - before for before, after in pairwise(lightness)]
    assert all(step < -4 for step in steps) if theme == LIGHT else all(step > 4 for step in steps)


@pytest.mark.parametrize("theme", [LIGHT, DARK])
@pytest.mark.parametrize("eye", sorted(_EYES))
def test_better_and_worse_differ_for_every_eye(eye: str, theme: int) -> None:
    for level in (2, 3):
        better, worse = (_lab(_EYES[eye] @ _linear(PALETTE[f"{way}{level}"][theme])) for way in "bw")
        assert float(np.linalg.norm(better - worse)) > 20


def test_steps_and_series() -> None:
    assert [compute_step(share) for share in (0.001, 0.125, 0.126, 0.5, 1.0)] == ["s1", "s1", "s2", "s4", "s8"]
    assert [compute_series(position) for position in (0, 6, 7, 39)] == ["c1", "c7", "other", "other"]


def test_page_refers_to_variables_and_files_do_not() -> None:
    assert "var(--c1)" in build_figure_css() and "#0072b2" not in build_figure_css()
    assert "var(" not in build_figure_css(LIGHT) and "#0072b2" in build_figure_css(LIGHT)
