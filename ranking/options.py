"""The command line of the ranking: its options, and what does not go together."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from ranking.errors import OptionError
from ranking.pipeline import Settings
from ranking.rules import METHODS, Rule

_ABSENT = ("error", "leave-out-sites", "leave-out-submission", "rank-last")
_FIGURES = ("svg", "png")


@dataclass(frozen=True)
class Command:
    """What was asked for on the command line, apart from the settings of the ranking itself."""

    data_dir: Path
    output: Path
    rule: Path | None
    report: bool
    figures: tuple[str, ...]
    share: bool
    share_draws: bool
    from_shares: bool
    multiplicities: Path | None
    pvalues: Path | None


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``compute_ranking.py``; its help is the reference."""
    parser = argparse.ArgumentParser(
        prog="compute_ranking.py",
        description="Rank submissions over sites. DATA_DIR holds one file per site: case -> submission -> metrics.",
        allow_abbrev=False,
    )
    parser.add_argument("data_dir", metavar="DATA_DIR", type=Path, help="folder with one file per site")
    add = parser.add_argument
    add("--method", choices=(*METHODS, "all"), help="how each sub-ranking is made (default: as the rule says)")
    add("--output", metavar="DIR", type=Path, default=Path("ranking_output"), help="default: %(default)s")
    add("--rule", metavar="FILE", type=Path, help="ranking rule or benchmark file (default: FeTS 2022)")
    add("--report", action="store_true", help="also write a self-contained HTML report")
    add("--figures", metavar="LIST", default="", help="with --report: also write the figures, svg or png or svg,png")
    _add_policies(parser)
    _add_uncertainty(parser)
    sharing = parser.add_argument_group("a site's share")
    sharing.add_argument("--share", action="store_true", help="write share_<site>.json instead of a ranking")
    sharing.add_argument("--share-draws", action="store_true", help="put the rank sums of every draw into the share")
    sharing.add_argument("--from-shares", action="store_true", help="DATA_DIR holds shares, not site files")
    return parser


def _add_policies(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("policies")
    group.add_argument("--absent", choices=_ABSENT, default="error", help="a submission is absent at a site")
    group.add_argument("--strict", action="store_true", help="a missing entry is an error, not a missing value")
    group.add_argument(
        "--na",
        choices=("penalty", "bottom"),
        default="penalty",
        help="missing values: the rule's number, or a rank below every real value (rankThen* only)",
    )
    group.add_argument("--final-ties", choices=("average", "min"), default="average", help="ties of the final rank")
    group.add_argument(
        "--ties",
        choices=("exact", "upstream"),
        default="exact",
        help="upstream: compare mean ranks as rounded by the published script, which separates equal ones",
    )


def _add_uncertainty(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("uncertainty")
    group.add_argument(
        "--bootstrap",
        choices=("case", "challengeR", "none"),
        default="case",
        help="weight a case drawn k times by k, or as challengeR does; or no bootstrap (default: %(default)s)",
    )
    group.add_argument("--draws", metavar="N", type=int, default=1000, help="bootstrap samples (default: %(default)s)")
    group.add_argument("--seed", metavar="N", type=int, default=1, help="default: %(default)s")
    group.add_argument("--workers", metavar="N", type=int, default=1, help="processes; the result is the same")
    group.add_argument(
        "--more",
        action="store_true",
        help="also permutation test, decathlon score, critical difference, Bayesian signed-rank test",
    )
    group.add_argument("--multiplicities", metavar="FILE", type=Path, help="JSON of given resamples: rank each of them")
    group.add_argument("--pvalues", metavar="FILE", type=Path, help="write every p-value to this CSV file")


def read_command(namespace: argparse.Namespace) -> Command:
    """The part of the command that is not settings.

    Raises
    ------
    OptionError
        Options that do not go together.
    """
    figures = tuple(dict.fromkeys(name for name in namespace.figures.split(",") if name))
    for name in figures:
        if name not in _FIGURES:
            raise OptionError(f"--figures {name}: expected svg, png or svg,png")
    if figures and not namespace.report:
        raise OptionError("--figures needs --report: add it")
    if namespace.share and namespace.from_shares:
        raise OptionError("--share and --from-shares were both given: a site makes a share, a coordinator reads them")
    if namespace.share and (namespace.report or namespace.multiplicities):
        raise OptionError("--share writes no ranking: leave out --report and --multiplicities")
    if namespace.share_draws and not namespace.share:
        raise OptionError("--share-draws needs --share: add it")
    for option in ("multiplicities", "pvalues"):
        if getattr(namespace, option) and namespace.from_shares:
            raise OptionError(f"--{option} needs the values of the cases, which shares do not hold")
    return Command(
        data_dir=namespace.data_dir,
        output=namespace.output,
        rule=namespace.rule,
        report=namespace.report,
        figures=figures,
        share=namespace.share,
        share_draws=namespace.share_draws,
        from_shares=namespace.from_shares,
        multiplicities=namespace.multiplicities,
        pvalues=namespace.pvalues,
    )


def read_settings(namespace: argparse.Namespace, rule: Rule, given_method: str | None) -> Settings:
    """The settings of the ranking.

    Parameters
    ----------
    given_method : str, optional
        Method of a multiplicities file.

    Raises
    ------
    OptionError
        Options that do not go together or are out of range.
    """
    method = namespace.method or given_method or rule.method
    methods = METHODS if method == "all" else (method,)
    if given_method is not None and given_method not in methods:
        raise OptionError(f"--method is {method}, but the multiplicities file is for {given_method}: give the same")
    if namespace.na == "bottom" and not all(name.startswith("rankThen") for name in methods):
        raise OptionError(f"--na bottom has no meaning for {method}: choose rankThenMean or rankThenMedian")
    for option, least in (("draws", 1), ("seed", 0), ("workers", 1)):
        if getattr(namespace, option) < least:
            raise OptionError(f"--{option} is {getattr(namespace, option)}, expected at least {least}")
    return Settings(
        methods=methods,
        absent=namespace.absent,
        strict=namespace.strict,
        na=namespace.na,
        final_ties=namespace.final_ties,
        ties=namespace.ties,
        bootstrap=None if namespace.bootstrap == "none" else namespace.bootstrap,
        draws=namespace.draws,
        seed=namespace.seed,
        workers=namespace.workers,
        more=namespace.more or namespace.report,
    )
