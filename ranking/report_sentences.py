"""What the ranking says, in a few sentences of plain English."""

from ranking.document import Document
from ranking.report_axes import Stage
from ranking.report_plots_ranks import RESAMPLINGS
from ranking.report_text import format_count, format_interval, format_list, format_number, format_p, quote_name


def build_sentences(document: Document, stage: Stage) -> tuple[str, ...]:
    """Winner, its certainty, who cannot be told from it, influence of single sites, agreement of the sites."""
    sentences = [
        _say_winner(document, stage),
        _say_certainty(document, stage),
        _say_group(document, stage),
        _say_left_out(document, stage),
        _say_agreement(document),
    ]
    return tuple(sentence for sentence in sentences if sentence)


def _say_winner(document: Document, stage: Stage) -> str:
    federation = document["federation"]
    best = federation["final_rank"][stage.order[0]]
    winners = [submission for submission in stage.order if federation["final_rank"][submission] == best]
    mean = f"mean rank {format_number(federation['mean_rank'][winners[0]], 3)}"
    over = f"over {format_count(len(document['sites']), 'site')} and {format_count(len(document['metrics']), 'metric')}"
    names = [quote_name(stage.names[submission]) for submission in winners]
    if len(winners) == 1:
        return f"{names[0]} is first ({mean} {over})."
    return f"{format_list(names)} share the first place ({mean} {over})."


def _say_certainty(document: Document, stage: Stage) -> str:
    bootstrap = document["federation"]["bootstrap"]
    used = [name for name in RESAMPLINGS if name in bootstrap]
    if not used or stage.count < 2:
        return ""
    name, first = used[-1], stage.order[0]
    found = bootstrap[name]
    share = 100 * found["winner_counts"][first] / found["draws"]
    interval = format_interval(found["interval"][first])
    return (
        f"With {RESAMPLINGS[name][1]} ({format_count(found['draws'], 'draw')}), {quote_name(stage.names[first])} has "
        f"rank 1 in {share:.0f} % of the draws; its ranks in 95 % of them: {interval}."
    )


def _say_group(document: Document, stage: Stage) -> str:
    groups = [group for group in document["federation"]["groups"] if stage.order[0] in group]
    if not groups or stage.count < 2:
        return ""
    others = [submission for submission in stage.order if submission in groups[0] and submission != stage.order[0]]
    name = quote_name(stage.names[stage.order[0]])
    if not others:
        return f"{name} can be separated from all others (simultaneous 95 % confidence sets)."
    if len(others) == stage.count - 1:
        return f"None of the others can be separated from {name} (simultaneous 95 % confidence sets)."
    names = format_list([quote_name(stage.names[submission]) for submission in others])
    return f"Not separable from {name} (simultaneous 95 % confidence sets): {names}."


def _say_left_out(document: Document, stage: Stage) -> str:
    entries = document["federation"]["leave_one_site_out"]
    if not entries or stage.count < 2:
        return ""
    most = max(entries, key=lambda entry: (entry["largest_shift"], entry["changed"]))
    if most["changed"] == 0:
        return "No final rank changes when any single site is left out."
    shift = most["largest_shift"]
    return (
        f"Leaving out one site moves no submission by more than {format_number(shift)} "
        f"{'rank' if shift <= 1 else 'ranks'} (most without {quote_name(stage.sites[most['site']])}, which changes "
        f"{format_count(most['changed'], 'rank')})."
    )


def _say_agreement(document: Document) -> str:
    found = document["federation"]["heterogeneity"]
    if found is None or found["kendall_w"] is None:
        return ""
    return (
        f"Agreement of the sites: Kendall's W = {format_number(found['kendall_w'])} "
        f"(0 none, 1 complete; p {format_p(found['kendall_w_p'])})."
    )
