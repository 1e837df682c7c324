"""--validate: the validation pictures of a checkpoint."""

from __future__ import annotations

from distill3d.verbs import Request, Verb

VERB = Verb("validate", "draw the validation pictures of a trained scene; needs resume=CHECKPOINT")


def run(request: Request) -> int:
    """Write into the trial of the checkpoint."""
    from distill3d.run import prepare, validate

    validate(prepare(request, needs_checkpoint=True))
    return 0
