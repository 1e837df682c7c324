"""--train: optimise, draw the turntable, export the mesh."""

from __future__ import annotations

from distill3d.verbs import Request, Verb

VERB = Verb("train", "train, then draw the turntable and export the mesh (the default)")


def run(request: Request) -> int:
    """Begin a trial, or resume that of ``resume=``."""
    from distill3d.run import prepare, train

    train(prepare(request))
    return 0
