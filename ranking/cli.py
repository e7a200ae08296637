"""The program: arguments in, files out, one message for every error, warnings on stderr."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ranking.document import Document
from ranking.errors import OptionError, RankingError
from ranking.given_draws import GivenDraws, compute_given_ranks, load_given_draws
from ranking.options import Command, build_parser, read_command, read_settings
from ranking.pipeline import Settings, analyse_study, combine, load_study
from ranking.progress import SiteProgress
from ranking.rules import Rule, load_rule
from ranking.shares import combine_shares, format_share, load_shares
from ranking.site_share import SiteDetails, SiteShare
from ranking.tables import Study
from ranking.write import format_p_values, format_results, open_output, stage_file


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program.

    Returns
    -------
    int
        Exit status: 0, 2 for a wrong command line, or the ``exit_code`` of the error (:mod:`ranking.errors`).
    """
    namespace = build_parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show stops nothing
    try:
        run(namespace)
    except RankingError as error:
        return _fail(str(error), error.exit_code)
    except MemoryError:
        return _fail("not enough memory for this many cases, submissions and draws; give fewer --draws", 1)
    except KeyboardInterrupt:
        return _fail("interrupted; nothing was written", 130)
    except Exception as error:
        # A fault of ours. Its text may hold values of the input, so only its kind and place are shown.
        place = traceback.extract_tb(error.__traceback__)[-1]
        return _fail(
            f"a fault of this program: {type(error).__name__} in {place.name}, line {place.lineno}; report it", 1
        )
    return 0


def _fail(message: str, status: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return status


def run(namespace: argparse.Namespace) -> None:
    """The steps, in order.

    Raises
    ------
    RankingError
        What cannot be done, with the reason.
    """
    command = read_command(namespace)
    rule = load_rule(command.rule)
    given = load_given_draws(command.multiplicities) if command.multiplicities else None
    settings = read_settings(namespace, rule, given.method if given else None)
    if command.from_shares:
        study, shares, settings = _collect_shares(command, rule, settings)
        _warn(study)
        _write_ranking(command, study, shares, None, settings, None)
        return
    study = load_study(command.data_dir, rule, settings)
    _warn(study)
    with SiteProgress() as progress:
        shares, details = analyse_study(study, settings, progress)
    with contextlib.ExitStack() as stack:
        if command.pvalues:
            federation = command.data_dir.resolve().name
            text = format_p_values(federation, study.submissions, rule, shares, details)
            stack.enter_context(stage_file(command.pvalues, text))
        if command.share:
            _write_shares(command, study, shares, settings)
        else:
            _write_ranking(command, study, shares, details, settings, given)


def _collect_shares(command: Command, rule: Rule, settings: Settings) -> tuple[Study, list[SiteShare], Settings]:
    """Shares instead of site files; the bootstrap is the one that the sites did."""
    shared = load_shares(command.data_dir, rule)
    study, shares = combine_shares(shared, rule, settings.absent)
    done = next((entry for entry in shared if entry.weighting is not None), None)
    if done is None:
        return study, shares, replace(settings, na=shared[0].na)
    return study, shares, replace(settings, bootstrap=done.weighting, draws=done.draws, na=done.na)


def _write_shares(command: Command, study: Study, shares: list[SiteShare], settings: Settings) -> None:
    with open_output(command.output) as staging:
        for share, table in zip(shares, study.sites, strict=True):
            if len(table.present) != len(study.submissions):
                raise OptionError(f"--share with --absent rank-last: make the share of site {share.name} by itself")
            text = format_share(
                share, study.submissions, study.rule, settings.make_site_settings(study), command.share_draws
            )
            (staging / f"share_{share.name}.json").write_text(text, encoding="utf-8")
            print(f"share of site {share.name}: {share.cases} cases, {len(study.submissions)} submissions")


def _write_ranking(
    command: Command,
    study: Study,
    shares: list[SiteShare],
    details: list[SiteDetails] | None,
    settings: Settings,
    given: GivenDraws | None,
) -> None:
    documents = combine(study, shares, details, settings)
    with open_output(command.output) as staging:
        for document in documents:
            for name, text in format_results(document, study.rule, shares).items():
                (staging / name).write_text(text, encoding="utf-8")
        if given:
            ranks = compute_given_ranks(study, given, settings.na == "bottom")
            path = staging / f"bootstrap_exact_{given.method}.json"
            path.write_text(json.dumps(ranks, ensure_ascii=False) + "\n", encoding="utf-8")
        if command.report:
            _write_report(documents, staging, command.figures)
    for document in documents:
        print(format_summary(document))
    print(f"results are in {command.output}")


def _write_report(documents: Sequence[Document], staging: Path, figures: Sequence[str]) -> None:
    try:
        from ranking.report import write_report
    except ImportError as error:
        raise OptionError(f"--report needs {error.name}: install the extra ranking, or leave out --report") from error
    write_report(documents, staging, figures)


def _warn(study: Study) -> None:
    for text in study.warnings:
        print(f"warning: {text}", file=sys.stderr)


def format_summary(document: Document) -> str:
    """The final ranking and the significance counts as text."""
    names, federation = document["submissions"], document["federation"]
    width = max(len(name) for name in names)
    lines = [
        f"The final ranking by {document['method']} ({document['rule']}, {len(document['sites'])} sites):",
        f"{'final rank':>10}  {'mean rank':>9}  {'submission':<{width}}  significantly superior (sum over opponents)",
    ]
    for row in federation["final_table"]:
        name = names[row["submission"]]
        lines.append(f"{row['final_rank']:>10g}  {row['mean_rank']:>9.4f}  {name:<{width}}  {row['wins']}")
    return "\n".join(lines)
