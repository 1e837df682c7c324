"""Tiny models under the names that their authors' checkpoints have (LDM, OpenCLIP), and LDM's U-Net as plain formulas.

Both are written from the layout of the published files, without the converter that they test.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_FIXED = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "class_embedding.linear_1": "camera_embed.0",
    "class_embedding.linear_2": "camera_embed.2",
}


def unet_state(unet: Any, prefix: str = "model.diffusion_model.") -> State:
    """A U-Net of diffusers under LDM's names; its class embedding is MVDream's embedding of the camera."""
    return {prefix + unet_name(name, unet): value.clone() for name, value in unet.state_dict().items()}


def unet_name(name: str, unet: Any) -> str:
    """LDM's name of a parameter of a diffusers U-Net."""
    layers = unet.config.layers_per_block
    module, _, parameter = name.rpartition(".")
    if module in _FIXED:
        return f"{_FIXED[module]}.{parameter}"
    middle = re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", name)
    if middle:
        part, i, rest = middle.groups()
        return f"middle_block.1.{rest}" if part == "attentions" else f"middle_block.{2 * int(i)}.{_resnet(rest)}"
    way, block, part, i, rest = re.fullmatch(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.*)", name).groups()  # type: ignore[union-attr]
    where = int(block) * (layers + 1) + int(i)
    if part == "downsamplers":
        return f"input_blocks.{(int(block) + 1) * (layers + 1)}.0.{rest.replace('conv', 'op')}"
    if part == "upsamplers":
        place = 2 if hasattr(unet.up_blocks[int(block)], "attentions") else 1
        return f"output_blocks.{(int(block) + 1) * (layers + 1) - 1}.{place}.{rest}"
    place = f"{'input' if way == 'down' else 'output'}_blocks.{where + (way == 'down')}"
    return f"{place}.1.{rest}" if part == "attentions" else f"{place}.0.{_resnet(rest)}"


def _resnet(name: str) -> str:
    module, _, parameter = name.rpartition(".")
    return f"{_RESNET[module]}.{parameter}"


def vae_state(vae: Any, prefix: str = "first_stage_model.") -> State:
    """A VAE of diffusers under LDM's names, its attention as 1x1 convolutions."""
    state: State = {}
    last = len(vae.config.block_out_channels) - 1
    for name, value in vae.state_dict().items():
        new = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        new = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", new)
        new = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", new)
        new = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{last - int(m[1])}.block.{m[2]}", new)
        new = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{last - int(m[1])}.upsample", new)
        new = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", new)
        new = new.replace("mid_block.attentions.0.group_norm", "mid.attn_1.norm")
        new = re.sub(r"mid_block\.attentions\.0\.to_([qkv])", r"mid.attn_1.\1", new)
        new = new.replace("mid_block.attentions.0.to_out.0", "mid.attn_1.proj_out")
        is_projection = "mid.attn_1" in new and value.ndim == 2
        state[prefix + new] = value[:, :, None, None].clone() if is_projection else value.clone()
    return state


def clip_state(text_model: Any, prefix: str = "cond_stage_model.transformer.") -> State:
    """OpenAI's CLIP, as SD 1.x and the first tower of SDXL have it."""
    own = {name.removeprefix("text_model."): value for name, value in text_model.state_dict().items()}
    return {f"{prefix}text_model.{name}": value.clone() for name, value in own.items()}


def open_clip_state(text_model: Any, prefix: str = "cond_stage_model.model.") -> State:
    """OpenCLIP, as SD 2.x and the second tower of SDXL have it: q, k and v in one matrix."""
    own = {name.removeprefix("text_model."): value for name, value in text_model.state_dict().items()}
    state = {
        "token_embedding.weight": own["embeddings.token_embedding.weight"],
        "positional_embedding": own["embeddings.position_embedding.weight"],
        "ln_final.weight": own["final_layer_norm.weight"],
        "ln_final.bias": own["final_layer_norm.bias"],
        "logit_scale": torch.tensor(1.0),
    }
    if "text_projection.weight" in own:
        state["text_projection"] = own["text_projection.weight"].t()
    for i in range(text_model.config.num_hidden_layers):
        layer, block = f"encoder.layers.{i}", f"transformer.resblocks.{i}"
        for part in ("weight", "bias"):
            qkv = [own[f"{layer}.self_attn.{q}_proj.{part}"] for q in "qkv"]
            state[f"{block}.attn.in_proj_{part}"] = torch.cat(qkv)
            state |= {f"{block}.{new}.{part}": own[f"{layer}.{old}.{part}"] for old, new in _CLIP_LAYER.items()}
    return {prefix + name: value.clone().contiguous() for name, value in state.items()}


def component(folder: Path, name: str) -> Any:
    """A part of a tiny pipeline's folder."""
    import diffusers
    import transformers

    library, cls = json.loads((folder / "model_index.json").read_text())[name]
    return getattr(diffusers if library == "diffusers" else transformers, cls).from_pretrained(folder / name)


def checkpoint(folder: Path, towers: dict[str, tuple[Callable[..., State], str]]) -> State:
    """A whole model as its authors' file has it: ``towers`` says how each text encoder is written, and its prefix."""
    state = {**unet_state(component(folder, "unet")), **vae_state(component(folder, "vae"))}
    for name, (write, prefix) in towers.items():
        state |= write(component(folder, name), prefix)
    return state | {"betas": torch.zeros(1000)}


SD1 = {"text_encoder": (clip_state, "cond_stage_model.transformer.")}
SD2 = {"text_encoder": (open_clip_state, "cond_stage_model.model.")}
SDXL = {
    "text_encoder": (clip_state, "conditioner.embedders.0.transformer."),
    "text_encoder_2": (open_clip_state, "conditioner.embedders.1.model."),
}
REFINER = {"text_encoder_2": (open_clip_state, "conditioner.embedders.0.model.")}


class LdmUNet:
    """MVDream's U-Net from the tensors of its checkpoint (arXiv 2308.16512). ``heads`` of attentions by channels."""

    def __init__(self, state: State, groups: int, heads: dict[int, int], n_view: int) -> None:
        prefix = "model.diffusion_model."
        self.w = {name.removeprefix(prefix): value for name, value in state.items()}
        self.groups, self.heads, self.n_view = groups, heads, n_view

    def __call__(self, x: Tensor, t: Tensor, context: Tensor, camera: Tensor) -> Tensor:
        width = self.w["time_embed.0.weight"].shape[1]
        frequency = torch.exp(-math.log(10000) * torch.arange(width // 2) / (width // 2))
        angle = t[:, None].float() * frequency
        emb = self._perceptron("time_embed", torch.cat([angle.cos(), angle.sin()], 1))
        emb = emb + self._perceptron("camera_embed", camera)
        skips, h = [], x
        for i in range(self._count("input_blocks")):
            h = self._block(f"input_blocks.{i}", h, emb, context)
            skips.append(h)
        h = self._resnet("middle_block.0", h, emb)
        h = self._resnet("middle_block.2", self._transformer("middle_block.1", h, context), emb)
        for i in range(self._count("output_blocks")):
            h = self._block(f"output_blocks.{i}", torch.cat([h, skips.pop()], 1), emb, context)
        return self._conv("out.2", F.silu(self._norm("out.0", h, 1e-5)))

    def _count(self, name: str) -> int:
        return len({key.split(".")[1] for key in self.w if key.startswith(name)})

    def _block(self, name: str, h: Tensor, emb: Tensor, context: Tensor) -> Tensor:
        for j in range(3):
            place = f"{name}.{j}"
            if f"{place}.in_layers.0.weight" in self.w:
                h = self._resnet(place, h, emb)
            elif f"{place}.transformer_blocks.0.norm1.weight" in self.w:
                h = self._transformer(place, h, context)
            elif f"{place}.op.weight" in self.w:
                h = self._conv(f"{place}.op", h, stride=2)
            elif f"{place}.conv.weight" in self.w:
                h = self._conv(f"{place}.conv", F.interpolate(h, scale_factor=2.0, mode="nearest"))
            elif f"{place}.weight" in self.w:
                h = self._conv(place, h)
        return h

    def _resnet(self, name: str, x: Tensor, emb: Tensor) -> Tensor:
        h = self._conv(f"{name}.in_layers.2", F.silu(self._norm(f"{name}.in_layers.0", x, 1e-5)))
        h = h + self._linear(f"{name}.emb_layers.1", F.silu(emb))[:, :, None, None]
        h = self._conv(f"{name}.out_layers.3", F.silu(self._norm(f"{name}.out_layers.0", h, 1e-5)))
        return h + (self._conv(f"{name}.skip_connection", x) if f"{name}.skip_connection.weight" in self.w else x)

    def _transformer(self, name: str, x: Tensor, context: Tensor) -> Tensor:
        rows, channels = x.shape[:2]
        h = self._norm(f"{name}.norm", x, 1e-6).flatten(2).transpose(1, 2)
        h, block = self._linear(f"{name}.proj_in", h), f"{name}.transformer_blocks.0"
        sets = self._layer_norm(f"{block}.norm1", h).reshape(rows // self.n_view, -1, channels)
        h = h + self._attention(f"{block}.attn1", sets, sets).reshape(rows, -1, channels)
        h = h + self._attention(f"{block}.attn2", self._layer_norm(f"{block}.norm2", h), context)
        value, gate = self._linear(f"{block}.ff.net.0.proj", self._layer_norm(f"{block}.norm3", h)).chunk(2, -1)
        h = h + self._linear(f"{block}.ff.net.2", value * F.gelu(gate))
        return x + self._linear(f"{name}.proj_out", h).transpose(1, 2).reshape(x.shape)

    def _attention(self, name: str, x: Tensor, context: Tensor) -> Tensor:
        heads = self.heads[x.shape[-1]]
        q, k, v = (
            self._linear(f"{name}.to_{part}", seen).unflatten(-1, (heads, -1)).transpose(1, 2)
            for part, seen in (("q", x), ("k", context), ("v", context))
        )
        weights = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), -1)
        return self._linear(f"{name}.to_out.0", (weights @ v).transpose(1, 2).flatten(2))

    def _perceptron(self, name: str, x: Tensor) -> Tensor:
        return self._linear(f"{name}.2", F.silu(self._linear(f"{name}.0", x)))

    def _linear(self, name: str, x: Tensor) -> Tensor:
        weight = self.w[f"{name}.weight"]
        return F.linear(x, weight.flatten(1), self.w.get(f"{name}.bias"))

    def _conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = self.w[f"{name}.weight"]
        return F.conv2d(x, weight, self.w[f"{name}.bias"], stride, weight.shape[-1] // 2)

    def _norm(self, name: str, x: Tensor, eps: float) -> Tensor:
        return F.group_norm(x, self.groups, self.w[f"{name}.weight"], self.w[f"{name}.bias"], eps)

    def _layer_norm(self, name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.w[f"{name}.weight"], self.w[f"{name}.bias"])
