"""--render-views: posed images of a mesh or a trained scene."""

from __future__ import annotations

from distill3d.runtime.foreign import user_path
from distill3d.verbs import Request, Verb

VERB = Verb(
    "render-views",
    "write posed images of a mesh or a trained scene into a new folder; settings: train_views=48 test_views=8 size=64 "
    "shading=albedo overwrite=false ...",
    metavar=("MESH_OR_TRIAL", "OUT"),
)


def run(request: Request) -> int:
    """Write OUT/transforms_train.json, OUT/transforms_test.json and the pictures."""

    from distill3d.config.files import settings_of
    from distill3d.evaluation.render_views import RenderViewsSettings, render_data_set

    source, out = (user_path(argument) for argument in request.arguments)
    render_data_set(source, out, settings_of(RenderViewsSettings, request.overrides))
    return 0
