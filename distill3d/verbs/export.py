"""--export: the mesh of a checkpoint."""

from __future__ import annotations

from distill3d.verbs import Request, Verb

VERB = Verb("export", "export a trained scene as a mesh; needs resume=CHECKPOINT")


def run(request: Request) -> int:
    """Write into the trial of the checkpoint; an empty surface is an error."""
    from distill3d.run import export, prepare

    export(prepare(request, needs_checkpoint=True))
    return 0
