"""Names that attack or do not fit, and numbers as the report shows them."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranking.report_text import (
    compute_text_width,
    format_count,
    format_fixed,
    format_interval,
    format_list,
    format_name,
    format_number,
    format_p,
    format_shift,
    quote_name,
    shorten_text,
    split_camel_case,
)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("nnU-Net v2", "nnU-Net v2"),
        ("\x1b[31mred\x7f", "\\x1b[31mred\\x7f"),
        ("gnp.\u202eexe", "gnp.\\u202eexe"),
        ("\ud800", "\\ud800"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("two\u2028lines", "two lines"),
        ("a" + "\u0301" * 9, "a\u0301\u0301"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("", "(blank)"),
        (" \u00a0\u3000", "(blank)"),
    ],
)
def test_name_is_shown_without_tricks(name: str, shown: str) -> None:
    assert format_name(name) == shown


@given(st.text(st.characters(), max_size=60))
def test_any_name_can_be_written_and_drawn(name: str) -> None:
    shown = format_name(name)
    assert shown.strip()
    shown.encode("utf-8")
    assert all(unicodedata.category(character)[0] != "C" or character in "\u200c\u200d" for character in shown)
    assert compute_text_width(shorten_text(shown, 10.5, 100), 10.5) <= 100


def test_middle_is_left_out_so_that_versions_stay_apart() -> None:
    one, other = (shorten_text(f"team_alpha_ensemble_of_networks_v{number}", 10.5, 100) for number in (1, 2))
    assert one.startswith("team_a") and one.endswith("v1") and "…" in one
    assert one != other
    assert shorten_text("short", 10.5, 100) == "short"


def test_width_is_that_of_the_widest_common_font() -> None:
    # DejaVu Sans: i 0.278 em, W 0.989 em.
    assert compute_text_width("ii", 10) == pytest.approx(5.6)
    assert compute_text_width("WW", 10) == pytest.approx(19.8)
    assert compute_text_width("e\u0301", 10) == compute_text_width("e", 10)


def test_numbers() -> None:
    assert [format_number(value) for value in (1.0, 2.5, 1 / 3, -0.001, 100.0, None)] == [
        "1", "2.5", "0.33", "0", "100", "–",
    ]  # fmt: skip
    assert [format_fixed(value) for value in (1.0, -0.5, -0.001, None)] == ["1.00", "−0.50", "0.00", "–"]
    assert [format_shift(value) for value in (0, 1, -2, 0.5, -1.5)] == ["", "+1", "−2", "+½", "−1½"]
    assert [format_interval(ends) for ends in ([1, 3], [2, 2], [1.5, 2], None)] == ["1–3", "2", "1.5–2", "–"]
    assert [format_p(value) for value in (0.00001, 0.0312, None)] == ["< 0.001", "= 0.031", "not defined"]
    assert format_count(1, "site") == "1 site" and format_count(2600, "case") == "2,600 cases"


def test_words() -> None:
    assert format_list(["a"]) == "a"
    assert format_list(["a", "b", "c"]) == "a, b and c"
    assert format_list(list("abcdef")) == "a, b, c, d and 2 more"
    assert format_list([]) == ""
    assert split_camel_case("aggregateThenMedian") == ["aggregate", "Then", "Median"]
    assert split_camel_case("sqrt-cases") == ["sqrt-cases"]
    # Isolated: a name written from right to left must not turn the sentence around it.
    assert quote_name("زيد") == "“\u2068زيد\u2069”"
    assert len(quote_name("W" * 300)) < 50
