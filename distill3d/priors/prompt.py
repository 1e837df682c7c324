"""Text encoders, as each kind of model uses its own: built when a prompt is not in the cache, then freed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill3d.priors.identity import file_identity
from distill3d.priors.kinds import KindName
from distill3d.priors.lora import changes_text, fuse_text_lora, lora_file
from distill3d.priors.model_folder import ModelFolder
from distill3d.priors.parts import packed, pair_of, read_extents
from distill3d.priors.settings import PriorConfig, choose_dtype
from distill3d.types import PromptEmbedding


@dataclass(frozen=True)
class Tower:
    """A tokenizer and its text encoder, which runs on ``device``."""

    tokenizer: Any
    model: Any
    device: torch.device

    def tokenize(self, texts: list[str], length: int | None = None) -> dict[str, Tensor]:
        """Ids and mask, padded and cut to ``length`` tokens (None: as many as tokenizer and encoder both take)."""
        positions = getattr(self.model.config, "max_position_embeddings", None) or self.tokenizer.model_max_length
        length = length or min(self.tokenizer.model_max_length, positions)
        tokens = self.tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return {"input_ids": tokens.input_ids.to(self.device), "attention_mask": tokens.attention_mask.to(self.device)}


class TextTowers:
    """A model's text encoders as one `PromptEncoder`; embeddings come in fp32 on the CPU, ready for the cache.

    Several encoders wait in main memory and visit the device one after the other: SD3's three together are 11.2 GB.
    Quantised ones, a half or a quarter of that, stay there.
    """

    def __init__(self, folder: ModelFolder, cfg: PriorConfig, device: torch.device | str) -> None:
        folder.check_text_parts()
        self.device = device = text_device(cfg, device)
        dtype = encoder_dtype(cfg, device)
        self._encode = _ENCODERS[folder.kind.name]
        self._context = EncodingContext(folder, cfg)
        self.towers = [
            Tower(folder.load_plain(tokenizer), _load_encoder(folder, cfg, encoder, dtype, device), device)
            for tokenizer, encoder in folder.kind.towers
            if folder.has(encoder)
        ]

    @torch.no_grad()
    def __call__(self, texts: list[str]) -> PromptEmbedding:
        with torch.autocast(self.device.type, enabled=False):
            embedding = self._encode(self.towers, texts, self._context)
        return embedding.to("cpu", torch.float32)


def _load_encoder(
    folder: ModelFolder, cfg: PriorConfig, component: str, dtype: torch.dtype, device: torch.device
) -> Any:
    bits, several = cfg.text_encoder_bits, sum(folder.has(encoder) for _, encoder in folder.kind.towers) > 1
    visits = device.type != "cpu" and several and bits is None
    encoder = folder.load_module(component, dtype, torch.device("cpu") if visits else device, bits)
    if cfg.lora_weights:
        fuse_text_lora(encoder, lora_file(cfg.lora_weights), cfg.lora_scale, component)
    if visits:
        visit(encoder, device)
    return encoder


def visit(module: nn.Module, device: torch.device) -> None:
    """Have a module rest in main memory, and be on the device while it is called."""

    def arrive(module: nn.Module, inputs: Any) -> None:
        module.to(device)

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        module.to("cpu")

    module.register_forward_pre_hook(arrive)
    module.register_forward_hook(leave, always_call=True)


@dataclass(frozen=True)
class EncodingContext:
    """What an encoding depends on besides the towers."""

    folder: ModelFolder
    cfg: PriorConfig

    def length(self, default: int) -> int:
        return self.cfg.text_tokens or default


def text_device(cfg: PriorConfig, device: torch.device | str) -> torch.device:
    """Where text encoders run: beside the network's place, or on the CPU by choice."""
    return torch.device("cpu") if cfg.text_encoder_device == "cpu" else torch.device(device)


def encoder_dtype(cfg: PriorConfig, device: torch.device | str) -> torch.dtype:
    """The precision of text encoders; bf16 on a GPU, since T5 overflows in fp16."""
    return choose_dtype(cfg.precision, text_device(cfg, device), torch.bfloat16)


def text_identity_of(folder: ModelFolder, cfg: PriorConfig) -> str:
    """A hash of the text encoders, the tokenizers and the settings that change an embedding."""
    settings = f"{folder.kind.name};{cfg.text_tokens};{folder.index.get('force_zeros_for_empty_prompt')}"
    if cfg.lora_weights and changes_text(lora_file(cfg.lora_weights)):
        settings += f";{file_identity(lora_file(cfg.lora_weights))}*{cfg.lora_scale}"
    return folder.identity(folder.kind.text_components, settings)


def _embedded(towers: list[Tower], texts: list[str], context: EncodingContext) -> PromptEmbedding:
    """A pair's row also holds the pooled text of each of its objects, and their places."""
    extents = read_extents(context.folder.path)

    def row(text: str) -> PromptEmbedding:
        pair = pair_of(text, extents)
        tokens = towers[0].tokenize([text] if pair is None else [text, pair.first.text, pair.second.text])
        output = towers[0].model(**tokens)
        pooled = output.pooler_output
        pooled = pooled if pair is None else packed(pooled[:1], pooled[1:], pair)
        return PromptEmbedding(output.last_hidden_state[:1], tokens["attention_mask"].bool()[:1], pooled)

    return PromptEmbedding.cat([row(text) for text in texts])


def _stable_diffusion(towers: list[Tower], texts: list[str], context: EncodingContext) -> PromptEmbedding:
    tokens = towers[0].tokenize(texts)
    if not getattr(towers[0].model.config, "use_attention_mask", False):
        tokens.pop("attention_mask")  # SD attends to the padding too
    return PromptEmbedding(towers[0].model(**tokens).last_hidden_state)


def _sdxl(towers: list[Tower], texts: list[str], context: EncodingContext) -> PromptEmbedding:
    hidden, pooled = _penultimate(towers, texts)
    tokens, pooled = torch.cat(hidden, dim=-1), pooled[-1]
    if context.folder.index.get("force_zeros_for_empty_prompt", False):
        # SDXL was trained with zeros, not with the embedding of "", for dropped captions
        kept = torch.tensor([bool(text) for text in texts], device=tokens.device)
        tokens, pooled = tokens * kept[:, None, None], pooled * kept[:, None]
    return PromptEmbedding(tokens, pooled=pooled)


def _deepfloyd_if(towers: list[Tower], texts: list[str], context: EncodingContext) -> PromptEmbedding:
    return _masked_t5(towers[0], texts, context.length(77))


def _sd3(towers: list[Tower], texts: list[str], context: EncodingContext) -> PromptEmbedding:
    """CLIP-L and CLIP-G side by side, padded to T5's width, then T5's tokens, or zeros where T5 was left out."""
    hidden, pooled = _penultimate(towers[:2], texts)
    clip, length = torch.cat(hidden, dim=-1), context.length(256)
    if len(towers) == 3:
        t5 = towers[2].model(input_ids=towers[2].tokenize(texts, length)["input_ids"]).last_hidden_state
    else:
        width = context.folder.config("transformer")["joint_attention_dim"]
        t5 = clip.new_zeros(len(texts), length, width)
    clip = F.pad(clip, (0, t5.shape[-1] - clip.shape[-1]))
    return PromptEmbedding(torch.cat([clip, t5], dim=1), pooled=torch.cat(pooled, dim=-1))


def _flux(towers: list[Tower], texts: list[str], context: EncodingContext) -> PromptEmbedding:
    pooled = towers[0].model(input_ids=towers[0].tokenize(texts)["input_ids"]).pooler_output
    t5 = towers[1].model(input_ids=towers[1].tokenize(texts, context.length(512))["input_ids"])
    return PromptEmbedding(t5.last_hidden_state, pooled=pooled)


def _pixart_sigma(towers: list[Tower], texts: list[str], context: EncodingContext) -> PromptEmbedding:
    return _masked_t5(towers[0], texts, context.length(300))


def _masked_t5(tower: Tower, texts: list[str], length: int) -> PromptEmbedding:
    tokens = tower.tokenize([text.lower().strip() for text in texts], length)
    return PromptEmbedding(tower.model(**tokens).last_hidden_state, tokens["attention_mask"].bool())


def _z_image(towers: list[Tower], texts: list[str], context: EncodingContext) -> PromptEmbedding:
    """The prompt as a message of a user; what pads it is masked, and the network never sees it."""
    options = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": True}
    template = towers[0].tokenizer.apply_chat_template
    messages = [template([{"role": "user", "content": text}], **options) for text in texts]
    tokens = towers[0].tokenize(messages, context.length(512))
    output = towers[0].model(**tokens, output_hidden_states=True)
    return PromptEmbedding(output.hidden_states[-2], tokens["attention_mask"].bool())


def _penultimate(towers: list[Tower], texts: list[str]) -> tuple[list[Tensor], list[Tensor]]:
    """The last hidden state but one, and the projected pooled output, of each CLIP tower."""
    outputs = [t.model(input_ids=t.tokenize(texts)["input_ids"], output_hidden_states=True) for t in towers]
    return [output.hidden_states[-2] for output in outputs], [output[0] for output in outputs]


_Encode = Callable[[list[Tower], list[str], EncodingContext], PromptEmbedding]
_ENCODERS: dict[KindName, _Encode] = {
    "embedded": _embedded,
    "stable-diffusion": _stable_diffusion,
    "mvdream": _stable_diffusion,
    "sdxl": _sdxl,
    "deepfloyd-if": _deepfloyd_if,
    "sd3": _sd3,
    "flux": _flux,
    "pixart-sigma": _pixart_sigma,
    "z-image": _z_image,
}
