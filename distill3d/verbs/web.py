"""--web: the page to make objects with."""

from __future__ import annotations

import logging

from distill3d.verbs import Request, Verb

log = logging.getLogger(__name__)

VERB = Verb(
    "web",
    "serve a page to make objects with (an extra: pip install -r requirements-web.txt); settings: port=7860 "
    "host=127.0.0.1 exp_root_dir=outputs",
    needs_config=False,
)


def run(request: Request) -> int:
    """Serve until Ctrl-C."""
    from distill3d.config.check import build
    from distill3d.config.files import merge, parse_override
    from distill3d.viewer.page import PageSettings, serve
    from distill3d.viewer.settings import require

    content, _ = merge([parse_override(text) for text in request.overrides])
    settings = build(PageSettings, content, "web")
    require("gradio", "--web", "web")
    log.info("page: http://%s:%d (Ctrl-C ends it)", settings.host, settings.port)
    serve(settings)
    return 0
