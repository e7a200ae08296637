"""Section of the page about other published ways to rank."""

from collections.abc import Sequence

from ranking.document import CriticalDifference, Decathlon, Document, PairwiseProbability, PermutationRanking
from ranking.report_axes import Stage
from ranking.report_model import Cell, Group, Heading, Section, Table
from ranking.report_plots_maps import plot_critical_difference, plot_lines, plot_pairs
from ranking.report_tables import build_matrix_table, build_submission_cell
from ranking.report_text import format_fixed, format_number, format_p


def build_more_section(document: Document, stage: Stage, prefix: str) -> Section:
    """Further answers; without groups when none were asked for."""
    more = document["federation"]["more"]
    groups: list[Group] = []
    if more is not None:
        permutation, decathlon = more["permutation"], more["decathlon"]
        if permutation is not None or decathlon is not None:
            groups.append(_build_other_rankings(document, permutation, decathlon, stage))
        if more["critical_difference"] is not None:
            groups.append(_build_difference_group(more["critical_difference"], stage))
        if more["bayes"] is not None and stage.count > 1:
            groups.append(_build_bayes_group(more["bayes"], stage))
        if permutation is not None and stage.count > 1:
            groups.append(_build_permutation_group(permutation, stage))
    return Section(f"{prefix}-more", "Further answers", tuple(groups))


def _build_other_rankings(
    document: Document, permutation: PermutationRanking | None, decathlon: Decathlon | None, stage: Stage
) -> Group:
    ranks: dict[str, Sequence[float]] = {"final": document["federation"]["final_rank"]}
    headings = [Heading("Submission", is_text=True)]
    columns: list[list[str]] = []
    if permutation is not None:
        ranks["perCase"] = permutation["rank"]
        headings += [Heading("Per-case rank"), Heading("Mean over cases")]
        columns += [[str(rank) for rank in permutation["rank"]]]
        columns += [[format_fixed(mean, 3) for mean in permutation["mean_rank"]]]
    if decathlon is not None:
        ranks["decathlon"] = decathlon["rank"]
        headings += [Heading("Decathlon rank"), Heading("Decathlon score")]
        columns += [[str(rank) for rank in decathlon["rank"]]]
        columns += [[format_fixed(score, 3) for score in decathlon["score"]]]
    rows = tuple(
        (build_submission_cell(stage, submission), *(Cell(column[submission]) for column in columns))
        for submission in stage.order
    )
    caption = (
        "Per-case ranking over all cases of all sites (Bakas et al. 2018), and the decathlon's score: the share of "
        "opponents beaten in unadjusted tests, averaged over sites and metrics. Each answers another question than "
        "the final table."
    )
    figure = plot_lines("other_rankings", "Other ways to rank", caption, ranks, stage)
    return Group(figure.title, caption, (figure,), (Table("Other rankings", tuple(headings), rows),))


def _build_difference_group(diagram: CriticalDifference, stage: Stage) -> Group:
    caption = (
        f"Average rank over sites with Friedman's test (p {format_p(diagram['friedman_p'])}) and Nemenyi's critical "
        "difference (Demšar 2006). Submissions joined by a bar do not differ significantly."
    )
    figure = plot_critical_difference("Critical difference", caption, diagram, stage)
    return Group(figure.title, caption, (figure,))


def _build_bayes_group(bayes: PairwiseProbability, stage: Stage) -> Group:
    caption = (
        f"Bayesian signed-rank test over sites: probability that the row is better than the column by more than "
        f"{format_number(bayes['rope'], 3)} mean ranks. What is missing to 100 % is the reverse or no difference."
    )
    figure = plot_pairs("bayes", "Bayesian comparison", caption, bayes["better"], stage)
    tables = (
        build_matrix_table("Probability that row is better", bayes["better"], stage, 2),
        build_matrix_table("Probability of no practical difference", bayes["equivalent"], stage, 2),
    )
    return Group(figure.title, caption, (figure,), tables)


def _build_permutation_group(permutation: PermutationRanking, stage: Stage) -> Group:
    shares = [[1 - p for p in row] for row in permutation["p"]]
    caption = (
        "Permutation test over all cases: colour shows 1 − p for the row being better than the column, so that only "
        "the strongest colour can be significant. The table holds the p-values."
    )
    figure = plot_pairs("permutation", "Permutation test", caption, shares, stage)
    table = build_matrix_table("p-value of row better than column", permutation["p"], stage, 3)
    return Group(figure.title, caption, (figure,), (table,))
