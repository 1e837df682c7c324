"""The embedded prior's network: a small text-conditioned U-Net in pixels, with the call of diffusers' own.

A pixel-unshuffle stem sees a 64x64 image as 32x32x12 (a permutation, so noise stays white). Both image sizes meet in
one trunk at 16x16 and 8x8: a 64x64 image reaches it through a light outer level, a 32x32 image directly. What the
trunk learns of a noun at one size therefore serves the other. Text enters pooled, with the time, and by
cross-attention in the trunk (the advice of Imagen, arXiv 2205.11487, at a hundredth of its size).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from jaxtyping import Float
from torch import Tensor, nn

from distill3d.embedded.light_field import UNSHUFFLE, LightField, LightIn, Seen, zero_initialised
from distill3d.embedded.light_parts import look_at_parts, whole_and_parts

Maps = tuple[Tensor | float, Tensor | float, Tensor | float]  # to add at the trunk's two levels and the outer one


class PixelUNet2DConditionModel(ModelMixin, ConfigMixin):
    """``B 3 H W`` noisy pixels in [-1, 1] at H = W in ``sample_sizes`` to v (or whatever the scheduler says)."""

    @register_to_config
    def __init__(
        self,
        sample_sizes: tuple[int, int] = (32, 64),
        in_channels: int = 3,
        out_channels: int = 3,
        outer_channels: int = 32,
        block_out_channels: tuple[int, int] = (96, 192),
        middle_layers: int = 2,
        cross_attention_dim: int = 256,
        pooled_dim: int = 256,
        attention_head_dim: int = 32,
        time_channels: int = 256,
        layout_channels: int = 0,
        layout_hidden: int = 512,
        layout_thumbnail: int = 8,
        scene_channels: int = 0,
        light_hidden: int = 256,
        light_layers: int = 4,
        light_experts: int = 8,
    ):
        super().__init__()
        low, deep = block_out_channels
        patch = UNSHUFFLE**2
        context = (cross_attention_dim, attention_head_dim)
        self.time = nn.Sequential(nn.Linear(low, time_channels), nn.SiLU(), nn.Linear(time_channels, time_channels))
        self.text = zero_initialised(nn.Linear(pooled_dim, time_channels))
        self.words = AttentionPool(cross_attention_dim, time_channels)
        self.scene = WordsTogether(pooled_dim, scene_channels, time_channels) if scene_channels else None
        self.size = nn.Embedding(len(sample_sizes), time_channels)
        # the outer level, for the larger size alone
        self.outer_in = nn.Conv2d(patch * in_channels, outer_channels, 3, padding=1)
        self.outer_down = ResnetBlock(outer_channels, outer_channels, time_channels)
        self.outer_to_trunk = nn.Conv2d(outer_channels, low, 3, stride=2, padding=1)
        self.outer_from_trunk = nn.Conv2d(low, outer_channels, 1)
        self.outer_up = ResnetBlock(2 * outer_channels, outer_channels, time_channels)
        self.outer_out = Head(outer_channels, patch * out_channels)
        # the smaller size meets the trunk directly
        self.inner_in = nn.Conv2d(patch * in_channels, low, 3, padding=1)
        self.inner_out = Head(low, patch * out_channels)
        # the trunk
        grid = sample_sizes[-1] // (2 * UNSHUFFLE)
        self.layout = (
            NetworkLayout(time_channels, layout_channels, grid // 2, (low, deep), layout_hidden, layout_thumbnail)
            if layout_channels
            else None
        )
        levels = (outer_channels, low, deep)
        self.light = LightField(pooled_dim, light_hidden, light_layers, light_experts, grid)
        self.light_in = LightIn(light_hidden, levels, pooled_dim)
        self.down = ResnetBlock(low, low, time_channels)
        self.down_text = AttentionBlock(low, *context, self_attention=False)
        self.to_deep = nn.Conv2d(low, deep, 3, stride=2, padding=1)
        self.middle = nn.ModuleList(ResnetBlock(deep, deep, time_channels) for _ in range(middle_layers + 1))
        self.middle_text = nn.ModuleList(AttentionBlock(deep, *context) for _ in range(middle_layers))
        self.from_deep = nn.Conv2d(deep, low, 1)
        self.up = ResnetBlock(2 * low, low, time_channels)
        self.up_text = AttentionBlock(low, *context, self_attention=False)

    def forward(
        self,
        sample: Float[Tensor, "B 3 H W"],
        timestep: Tensor | float | int,
        encoder_hidden_states: Float[Tensor, "B N C"],
        added_cond_kwargs: dict[str, Tensor] | None = None,
        return_dict: bool = True,
        seen: Seen | None = None,
    ) -> UNet2DConditionOutput | tuple[Tensor]:
        """The call of UNet2DConditionModel. Of ``added_cond_kwargs``: ``text_embeds``, the pooled text, ``B D``; and,
        where cameras are given, ``c2w``, ``B 4 4``, ``fovy_rad``, ``B``, and optionally ``known``, ``B``: 0 where the
        camera of a row is to be ignored. ``seen`` is what `look` answered for the same conditions, if it was asked.

        Raises ValueError for an image size that the model was not made for, or without pooled text.
        """
        sizes = tuple(self.config["sample_sizes"])
        if sample.shape[-1] not in sizes or sample.shape[-2] != sample.shape[-1]:
            raise ValueError(f"the model takes square images of {sizes} pixels, not {tuple(sample.shape[-2:])}")
        if not added_cond_kwargs or "text_embeds" not in added_cond_kwargs:
            raise ValueError('added_cond_kwargs["text_embeds"] (the pooled text) is missing')
        index = sizes.index(sample.shape[-1])
        text_embeds, _ = whole_and_parts(added_cond_kwargs["text_embeds"], self.config["pooled_dim"])
        pooled = self.text(text_embeds) + self.words(encoder_hidden_states)
        if self.scene is not None:
            pooled = pooled + self.scene(text_embeds)
        embedding = F.silu(self._time(timestep, pooled) + pooled + self.size.weight[index])
        fine, coarse = self.layout(sample, embedding) if self.layout is not None else (0.0, 0.0)
        large = index == len(sizes) - 1
        seen = self.look(added_cond_kwargs) if seen is None else seen
        added = self.light_in(seen, large)
        x = F.pixel_unshuffle(sample, UNSHUFFLE)
        run = self._run_large if large else self._run_small
        out = run(x, embedding, encoder_hidden_states, (fine + added.fine, coarse + added.coarse, added.outer))
        times = torch.as_tensor(timestep, device=sample.device).expand(len(sample))
        v = F.pixel_shuffle(out, UNSHUFFLE)
        out = self.light_in.steer(v, sample, times, seen, text_embeds, large).to(sample.dtype)
        return UNet2DConditionOutput(sample=out) if return_dict else (out,)

    def look(self, conditions: dict[str, Tensor]) -> Seen:
        """The light field of the pooled texts, from the given cameras or, without any, from the canonical one."""
        text, parts = whole_and_parts(conditions["text_embeds"], self.config["pooled_dim"])
        if "c2w" in conditions:
            c2w, fovy_rad = conditions["c2w"], conditions["fovy_rad"]
            known = conditions.get("known", torch.ones_like(fovy_rad))
        else:
            c2w, fovy_rad = text.new_zeros(len(text), 4, 4), text.new_zeros(len(text))
            known = fovy_rad
        seen = self.light(c2w, fovy_rad, known, text)
        return seen if parts is None else look_at_parts(self.light, c2w, fovy_rad, known, seen, parts)

    def _time(self, timestep: Tensor | float | int, like: Tensor) -> Float[Tensor, "B D"]:
        t = torch.as_tensor(timestep, device=like.device).expand(len(like))
        return self.time(sinusoidal(t, self.config["block_out_channels"][0]).to(like.dtype))

    def _run_small(self, x: Tensor, embedding: Tensor, text: Tensor, layout: Maps) -> Tensor:
        return self.inner_out(self._trunk(self.inner_in(x), embedding, text, layout))

    def _run_large(self, x: Tensor, embedding: Tensor, text: Tensor, layout: Maps) -> Tensor:
        skip = self.outer_down(self.outer_in(x), embedding)
        h = self._trunk(self.outer_to_trunk(skip), embedding, text, layout)
        h = F.interpolate(self.outer_from_trunk(h), scale_factor=2.0, mode="nearest") + layout[2]
        return self.outer_out(self.outer_up(torch.cat([h, skip], dim=1), embedding))

    def _trunk(self, x: Tensor, embedding: Tensor, text: Tensor, layout: Maps) -> Float[Tensor, "B C 16 16"]:
        x = x + layout[0]
        skip = self.down_text(self.down(x, embedding), text)
        h = self.middle[0](self.to_deep(skip) + layout[1], embedding)
        for attend, block in zip(self.middle_text, list(self.middle)[1:], strict=True):
            h = block(attend(h, text), embedding)
        h = F.interpolate(self.from_deep(h), scale_factor=2.0, mode="nearest")
        return self.up_text(self.up(torch.cat([h, skip], dim=1), embedding), text)


class ResnetBlock(nn.Module):
    """Two convolutions with the embedding as scale and shift between; the identity at the start of training."""

    def __init__(self, in_channels: int, out_channels: int, embedding_channels: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(16, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.embedding = nn.Linear(embedding_channels, 2 * out_channels)
        self.norm2 = nn.GroupNorm(16, out_channels)
        self.conv2 = zero_initialised(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.skip = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Float[Tensor, "B C H W"], embedding: Float[Tensor, "B D"]) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.embedding(embedding)[:, :, None, None].chunk(2, dim=1)
        return self.skip(x) + self.conv2(F.silu(self.norm2(h) * (1.0 + scale) + shift))


class WordsTogether(nn.Sequential):
    """What words mean together: a fox from the side is neither any fox plus the side of anything."""

    def __init__(self, pooled_dim: int, hidden: int, out_channels: int):
        super().__init__(nn.Linear(pooled_dim, hidden), nn.SiLU(), zero_initialised(nn.Linear(hidden, out_channels)))


class NetworkLayout(nn.Module):
    """What is where, at once: a perceptron from a thumbnail of the noisy image, time and text to maps for the trunk.

    At high noise the best prediction averages over the whole image, and knows the mean picture of what the text names.
    Convolutions, for which a place is its distance from the zero padding, had predicted worse than that mean picture.
    """

    def __init__(
        self,
        embedding_channels: int,
        maps: int,
        grid: int,
        channels: tuple[int, int],
        hidden: int = 512,
        thumbnail: int = 8,
    ):
        super().__init__()
        self.grid, self.side = grid, thumbnail
        self.thumbnail = nn.Linear(3 * thumbnail**2, hidden)
        self.embedding = nn.Linear(embedding_channels, hidden)
        self.hidden = nn.Linear(hidden, hidden)
        self.maps = nn.Linear(hidden, maps * grid**2)
        self.fine_maps = nn.Linear(hidden, maps // 4 * (2 * grid) ** 2)
        self.out = zero_initialised(nn.Conv2d(maps, channels[1], 1))
        self.fine_out = zero_initialised(nn.Conv2d(maps // 4, channels[0], 1))

    def forward(self, sample: Float[Tensor, "B 3 H W"], embedding: Float[Tensor, "B D"]) -> tuple[Tensor, Tensor]:
        """Maps for the trunk's levels, ``B C 2g 2g`` and ``B C g g``."""
        cell = sample.shape[-1] // self.side  # the mean of a cell has noise of 1 / cell
        small = cell * F.avg_pool2d(sample, cell).flatten(1)
        h = F.silu(self.thumbnail(small) + self.embedding(embedding))
        h = F.silu(self.hidden(h))
        maps = self.maps(h).unflatten(-1, (-1, self.grid, self.grid))
        fine = self.fine_maps(h).unflatten(-1, (-1, 2 * self.grid, 2 * self.grid))
        return self.fine_out(fine), self.out(maps)


class AttentionBlock(nn.Module):
    """Self-attention (optional), cross-attention to the text, and a small feed-forward layer, each residual."""

    def __init__(self, channels: int, context_dim: int, head_dim: int, self_attention: bool = True):
        super().__init__()
        self.norm1 = nn.GroupNorm(16, channels) if self_attention else None
        self.attn1 = Attention(channels, channels, head_dim) if self_attention else None
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = Attention(channels, context_dim, head_dim)
        self.norm3 = nn.LayerNorm(channels)
        self.feed_forward = nn.Sequential(
            nn.Linear(channels, 2 * channels), nn.GELU(), zero_initialised(nn.Linear(2 * channels, channels))
        )

    def forward(self, x: Float[Tensor, "B C H W"], text: Float[Tensor, "B N D"]) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        if self.attn1 is not None and self.norm1 is not None:
            h = self.norm1(x).flatten(2).transpose(1, 2)
            tokens = tokens + self.attn1(h, h)
        tokens = tokens + self.attn2(self.norm2(tokens), text)
        tokens = tokens + self.feed_forward(self.norm3(tokens))
        return tokens.transpose(1, 2).reshape(x.shape)


class Attention(nn.Module):
    """Multi-head attention; projections are named as diffusers names them.

    Written out, since for these few tokens torch's fused attention spends three times as long on a CPU's backward.
    """

    def __init__(self, channels: int, context_dim: int, head_dim: int):
        super().__init__()
        self.heads = max(channels // head_dim, 1)
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(context_dim, channels, bias=False)
        self.to_v = nn.Linear(context_dim, channels, bias=False)
        self.to_out = nn.ModuleList([zero_initialised(nn.Linear(channels, channels))])

    def forward(self, x: Float[Tensor, "B N C"], context: Float[Tensor, "B M D"]) -> Tensor:
        split = lambda h: h.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # noqa: E731
        q, k, v = split(self.to_q(x)), split(self.to_k(context)), split(self.to_v(context))
        weights = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1)
        return self.to_out[0]((weights.to(v.dtype) @ v).transpose(1, 2).flatten(2))


class AttentionPool(nn.Module):
    """The words of a prompt as one vector: each head's learned query picks the tokens that it listens to."""

    def __init__(self, channels: int, out_channels: int, heads: int = 8):
        super().__init__()
        self.score = nn.Linear(channels, heads)
        self.value = nn.Linear(channels, channels)
        self.out = zero_initialised(nn.Linear(channels, out_channels))
        self.heads = heads

    def forward(self, tokens: Float[Tensor, "B N C"]) -> Float[Tensor, "B D"]:
        weights = torch.softmax(self.score(tokens), dim=1)  # B N heads
        values = self.value(tokens).unflatten(-1, (self.heads, -1))
        return self.out(torch.einsum("bnh,bnhc->bhc", weights.to(values.dtype), values).flatten(1))


class Head(nn.Module):
    """Norm, activation, and a convolution that starts at zero."""

    def __init__(self, channels: int, out_channels: int):
        super().__init__()
        self.norm = nn.GroupNorm(16, channels)
        self.conv = zero_initialised(nn.Conv2d(channels, out_channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.silu(self.norm(x)))


def sinusoidal(t: Tensor, channels: int, longest_period: float = 10000.0) -> Float[Tensor, "B C"]:
    """The positional code of Transformers (arXiv 1706.03762): cosines, then sines."""
    half = channels // 2
    frequency = torch.exp(-math.log(longest_period) * torch.arange(half, device=t.device) / half)
    angle = t.float()[:, None] * frequency[None]
    return torch.cat([angle.cos(), angle.sin()], dim=-1)
