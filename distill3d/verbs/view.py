"""--view: a trial in the browser."""

from __future__ import annotations

from distill3d.runtime.foreign import user_path
from distill3d.verbs import Request, Verb

VERB = Verb(
    "view",
    "look around a trained scene in the browser (an extra: pip install -r requirements-viewer.txt); settings: "
    "port=8080 host=127.0.0.1 largest=384",
    metavar="TRIAL_OR_CHECKPOINT",
)


def run(request: Request) -> int:
    """Serve the page until Ctrl-C."""

    from distill3d.config.check import build
    from distill3d.config.files import merge, parse_override
    from distill3d.viewer.settings import ViewerSettings
    from distill3d.viewer.trial import view_trial

    assert request.argument is not None  # the command line sees to it
    content, _ = merge([parse_override(text) for text in request.overrides])
    view_trial(user_path(request.argument), build(ViewerSettings, content, "view"))
    return 0
