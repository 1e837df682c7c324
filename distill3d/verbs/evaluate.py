"""--evaluate: figures, pictures and a report for a trial or a sweep."""

from __future__ import annotations

from distill3d.verbs import Request, Verb

VERB = Verb(
    "evaluate",
    "write figures and a report for a trial, or for all runs of a sweep; settings: views=8 size=128 judge=auto ...",
    metavar="FOLDER",
)


def run(request: Request) -> int:
    """Write FOLDER/evaluation/."""
    from distill3d.evaluation.evaluation import evaluate_folder

    assert request.argument is not None  # the command line sees to it
    evaluate_folder(request.argument, request.overrides)
    return 0
