"""Colours of the report, for light and dark, in one place: the page, the SVG files and the PNG files use these.

The seven series colours are those of Okabe and Ito (2008) without yellow, which cannot be seen on white; dark mode uses
lighter neighbours. Maps use one hue whose lightness alone carries the order, so they also work without colour.
"""

from typing import Final

# name -> (light, dark)
PALETTE: Final[dict[str, tuple[str, str]]] = {
    "bg": ("#ffffff", "#11161c"),
    "surface": ("#f5f7fa", "#171e26"),
    "band": ("#f4f6f9", "#171d25"),
    "ink": ("#17212b", "#e6ebf0"),
    "muted": ("#52606d", "#a3b0bd"),
    "grid": ("#dce2e8", "#2b3642"),
    "rule": ("#8693a0", "#71808f"),
    "accent": ("#0b5cab", "#79b8ff"),
    "notice": ("#fff6e5", "#2b2314"),
    "noticeline": ("#c77700", "#e0a040"),
    # Series: the best seven submissions, kinds of intervals.
    "c1": ("#0072b2", "#4ba3e8"),
    "c2": ("#d55e00", "#ff8a4c"),
    "c3": ("#009e73", "#2fc79a"),
    "c4": ("#b8578f", "#e79acb"),
    "c5": ("#e69f00", "#ffd166"),
    "c6": ("#56b4e9", "#a5defc"),
    "c7": ("#17212b", "#f2f5f8"),
    "other": ("#a9b4bf", "#5b6875"),
    "faint": ("#ccd4dc", "#3a4652"),
    # One hue, little to much.
    "s1": ("#e4eef8", "#1a2b3d"),
    "s2": ("#c8ddf0", "#1e3953"),
    "s3": ("#a2c6e6", "#244b71"),
    "s4": ("#74a9d6", "#2d6396"),
    "s5": ("#4a8ac2", "#3f80bd"),
    "s6": ("#2a6cab", "#60a4dc"),
    "s7": ("#144f8d", "#94c8f0"),
    "s8": ("#08306b", "#d6ecff"),
    # Two directions: b better, w worse, 1 little to 3 much.
    "b1": ("#c3dcf1", "#20466c"),
    "b2": ("#6ba3d6", "#2f639a"),
    "b3": ("#1f5fa8", "#86c5ff"),
    "w1": ("#f8d9b8", "#553718"),
    "w2": ("#e8954a", "#8f561c"),
    "w3": ("#a84f00", "#ffb76b"),
}
SERIES: Final = ("c1", "c2", "c3", "c4", "c5", "c6", "c7")
STEPS: Final = ("s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8")
# Text classes: colour, size in figure units, weight.
TEXTS: Final[dict[str, tuple[str, float, str]]] = {
    "t": ("ink", 10.5, "normal"),
    "k": ("muted", 9.0, "normal"),
    "x": ("muted", 9.5, "normal"),
    "h": ("muted", 8.0, "normal"),
    "d": ("ink", 7.5, "normal"),
    "i": ("bg", 7.5, "normal"),
}
FONT_FAMILY: Final = 'system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue","DejaVu Sans",Arial,sans-serif'
LIGHT, DARK = 0, 1


def compute_step(share: float) -> str:
    """Name of the map colour for a share from 0 (exclusive) to 1."""
    return STEPS[min(len(STEPS) - 1, max(0, int(share * len(STEPS) - 1e-9)))]


def compute_series(position: int) -> str:
    """Colour of the submission at a position (from 0) of the final order: seven have their own, the rest are grey."""
    return SERIES[position] if position < len(SERIES) else "other"


def build_variables(theme: int) -> str:
    """CSS custom properties of one theme."""
    return "".join(f"--{name}:{colours[theme]};" for name, colours in PALETTE.items())


def build_figure_css(theme: int | None = None) -> str:
    """CSS of everything inside a figure.

    Parameters
    ----------
    theme : int, optional
        ``LIGHT`` or ``DARK`` writes the colours themselves (files that stand alone); None refers to the custom
        properties of the page.
    """

    def colour(name: str) -> str:
        return f"var(--{name})" if theme is None else PALETTE[name][theme]

    rules = ["svg path{fill:none;stroke-linejoin:round}", f"svg text{{font-family:{FONT_FAMILY};white-space:pre}}"]
    for name in PALETTE:
        rules.append(f"path.{name}{{stroke:{colour(name)}}}path.f-{name}{{fill:{colour(name)}}}")
    for name, (ink, size, weight) in TEXTS.items():
        rules.append(f"text.{name}{{fill:{colour(ink)};font-size:{size}px;font-weight:{weight}}}")
    return "".join(rules)
