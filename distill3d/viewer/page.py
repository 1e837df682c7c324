"""--web: a page on which a prompt becomes an object (gradio)."""

# no postponed annotations: gradio reads gr.Request from them, and gr is known inside make_page alone
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill3d.config.files import EMBEDDED_WEIGHTS, SHIPPED_CONFIGS
from distill3d.config.registry import registered
from distill3d.runtime.word_list import taught_nouns
from distill3d.viewer.jobs import Order, past_trials
from distill3d.viewer.queue import JobQueue
from distill3d.viewer.settings import require

FIRST = "dreamfusion-lmc-quick.yaml"
OWN = "the config's own"


@dataclass
class PageSettings:
    """Settings of --web."""

    host: str = "127.0.0.1"  # this machine alone; 0.0.0.0 lets everyone on the network start runs
    port: int = 7860
    exp_root_dir: str = "outputs"

    def __post_init__(self) -> None:
        if not 1 <= self.port < 65536:
            raise ValueError(f"port={self.port} must be between 1 and 65535")


def make_page(root: Path, settings: tuple[str, ...] = ()) -> Any:
    """The page; ``settings`` are added to every run. One run at a time: others wait in a queue."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # nothing is told to anyone
    require("gradio", "--web", "web")
    import gradio as gr  # pyright: ignore[reportMissingImports]  an extra

    jobs = JobQueue(root)
    with gr.Blocks(title="distill3d", analytics_enabled=False) as page:
        gr.Markdown("# distill3d\nA sentence becomes a 3D object.")
        with gr.Row():
            with gr.Column():
                chosen = _questions(gr)
                make, cancel = gr.Button("make it", variant="primary"), gr.Button("cancel")
            with gr.Column():
                state = gr.Textbox("", label="state", interactive=False)
                picture = gr.Image(label="so far", type="filepath", interactive=False)
                mesh = gr.Model3D(label="the object", height=360, interactive=False)
                file = gr.File(label="model.glb", interactive=False)
        gallery = gr.Gallery(lambda: past_trials(root), label="past trials", columns=4, interactive=False)

        def work(
            prompt: str, config: str, guidance: str, scale: float, seed: float, request: gr.Request
        ) -> Iterator[tuple[Any, ...]]:
            rule = "" if guidance == OWN else guidance
            order = Order(prompt, config, rule, float(scale or 0), int(seed or 0), settings)
            for told in jobs.submit(order, request.session_hash or ""):
                seen = str(told.picture) if told.picture else None
                made = str(told.mesh) if told.mesh else None
                yield told.text, seen, made, made, past_trials(root) if told.done else gr.skip()

        def stop(request: gr.Request) -> None:
            jobs.cancel(request.session_hash or "")

        make.click(work, chosen, [state, picture, mesh, file, gallery], concurrency_limit=None)
        cancel.click(stop, concurrency_limit=None)
        page.unload(stop)  # a closed tab keeps nobody waiting
    return page.queue()


def _questions(gr: Any) -> list[Any]:
    """The fields of an Order, in its order."""
    configs = [path.name for path in sorted(SHIPPED_CONFIGS.glob("dreamfusion*.yaml"))]
    nouns = ", ".join(taught_nouns(EMBEDDED_WEIGHTS))
    return [
        gr.Textbox("a hamburger", label="prompt", info=f"The embedded model knows: {nouns}."),
        gr.Dropdown(configs, value=FIRST, label="config"),
        gr.Dropdown([OWN, *registered("guidance")], value=OWN, label="guidance"),
        gr.Number(0, label="guidance scale (0: the config's own)", minimum=0),
        gr.Number(0, label="seed", precision=0, minimum=0),
    ]


def serve(given: PageSettings, settings: tuple[str, ...] = (), block: bool = True) -> Any:
    """Serve the page, by default until Ctrl-C; returns it."""
    root = Path(given.exp_root_dir).absolute()
    page = make_page(root, settings)
    page.launch(
        server_name=given.host,
        server_port=given.port,
        quiet=True,
        share=False,
        prevent_thread_lock=not block,
        allowed_paths=[str(root)],
        ssr_mode=False,
    )
    return page
