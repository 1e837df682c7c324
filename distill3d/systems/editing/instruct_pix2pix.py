"""InstructPix2Pix: a latent diffusion model that also sees the picture, and follows an instruction."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.priors.hub import PriorError, find_folder, read_json
from distill3d.priors.kinds import PriorKind
from distill3d.priors.latent import LatentPrior
from distill3d.priors.model_folder import ModelFolder
from distill3d.priors.prompt import TextTowers
from distill3d.priors.sampling import ddim_step
from distill3d.priors.settings import PriorConfig
from distill3d.systems.editing.sdedit import check_strength, decoded, last_time, noised
from distill3d.types import Prediction, PromptEmbedding

PIPELINE = "StableDiffusionInstructPix2PixPipeline"
KIND = PriorKind("stable-diffusion", "InstructPix2Pix", (PIPELINE,), "unet", (("tokenizer", "text_encoder"),), vae=True)


class InstructPix2Pix(LatentPrior):
    """arXiv 2211.09800, of a diffusers folder or a Hub id: a U-Net over noised latents beside those of the picture."""

    pictures_read = 2

    def predict_edit(
        self,
        z: Float[Tensor, "B C h w"],
        t: Tensor,
        texts: tuple[PromptEmbedding, PromptEmbedding],
        picture: Float[Tensor, "B C h w"],
        guidance_scale: float,
        image_guidance_scale: float,
    ) -> Prediction:
        """``e(z, 0, 0) + s_I (e(z, c_I, 0) - e(z, 0, 0)) + s_T (e(z, c_I, c_T) - e(z, c_I, 0))``, in one call.

        ``texts``: the instruction and the empty text. Here s_T and s_I are ``guidance_scale + 1`` and
        ``image_guidance_scale + 1``: w in the papers' convention, as everywhere.
        """
        instruction, empty = texts
        rows = [(picture, instruction), (picture, empty), (torch.zeros_like(picture), empty)]
        seen = torch.cat([torch.cat([z, condition], dim=1) for condition, _ in rows])
        tokens = torch.cat([text.tokens for _, text in rows]).to(self.dtype)
        output = self.network(seen.to(self.dtype), t.repeat(3), encoder_hidden_states=tokens).sample.float()
        full, image, none = output.chunk(3)
        guided = none + (image_guidance_scale + 1.0) * (image - none) + (guidance_scale + 1.0) * (full - image)
        return self.convert(z, guided, t)

    @torch.no_grad()
    def edit(
        self,
        render: Float[Tensor, "B 3 H W"],
        original: Float[Tensor, "B 3 H W"],
        texts: tuple[PromptEmbedding, PromptEmbedding],
        generator: torch.Generator,
        strength: float = 0.98,
        guidance_scale: float = 6.5,
        image_guidance_scale: float = 0.5,
        steps: int = 20,
    ) -> Float[Tensor, "B 3 H W"]:
        """The render, noised and denoised under the instruction, seeing the original (arXiv 2303.12789, section 4.2).

        Raises ValueError for a strength outside [0, 1].
        """
        check_strength(strength)
        if strength == 0.0:
            return render.clone()
        picture, t_start = self.codec.unscaled(self.encode(original)), last_time(self, strength)
        z = noised(self, self.encode(render), t_start, generator)
        times = torch.linspace(t_start, 0, max(1, steps)).round().long().tolist()
        for t, t_next in zip(times, [*times[1:], None], strict=True):
            rows = torch.full((len(z),), t, device=z.device)
            prediction = self.predict_edit(z, rows, texts, picture, guidance_scale, image_guidance_scale)
            z = prediction.x0 if t_next is None else ddim_step(self, prediction, torch.full_like(rows, t_next))
        return decoded(self, z, render)


def load_instruct_pix2pix(cfg: PriorConfig, device: torch.device | str = "cpu") -> InstructPix2Pix:
    """The editor of a folder or a Hub id. Raises PriorError if it is another model, gone, partial or unreachable."""
    return InstructPix2Pix(_open(cfg), cfg, device)


def embed_instruction(cfg: PriorConfig, instruction: str) -> tuple[PromptEmbedding, PromptEmbedding]:
    """The instruction and the empty text, one row each, on the CPU; the text encoder is freed."""
    towers = TextTowers(_open(cfg), cfg, "cpu")
    return towers([instruction]), towers([""])


def _open(cfg: PriorConfig) -> ModelFolder:
    name = cfg.pretrained_model_name_or_path
    path = find_folder(name, cfg.revision, cfg.variant, (*KIND.image_components, *KIND.text_components))
    index = read_json(path, "model_index.json", name)
    found = index.get("_class_name")
    if found != PIPELINE:
        raise PriorError(
            f"system.editor.pretrained_model_name_or_path={name!r} is a {found}; the editor instruct-pix2pix needs a "
            f"{PIPELINE}, such as timbrooks/instruct-pix2pix"
        )
    return ModelFolder(name, path, KIND, index, cfg.variant)
