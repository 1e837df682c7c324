"""What VSD trains where a prior has no network to adapt: a small U-Net whose answer is added to the prior's."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor, nn

from distill3d.types import Prediction, PromptEmbedding

CHANNELS_PER_RANK = 8
HEAD_CHANNELS = 8
NORM_GROUPS = 8


class VelocityAdapter(nn.Module):
    """``v' = v + net(z, t, tokens)``, hence ``eps' = eps + alpha net`` and ``x0' = x0 - sigma net``.

    Both hold for a variance-preserving diffusion and for a flow. The net starts at zero, so the adapted prior starts as
    the prior, as with a LoRA; ProlificDreamer (arXiv 2305.16213) trains a LoRA or a small U-Net. Raises ValueError
    unless ``rank`` is positive; the net is `CHANNELS_PER_RANK` times as wide.
    """

    def __init__(self, channels: int, token_dim: int, rank: int) -> None:
        super().__init__()
        if rank < 1:
            raise ValueError(f"rank={rank} of an adapter must be at least 1")
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        width = CHANNELS_PER_RANK * rank
        self.net = UNet2DConditionModel(
            in_channels=channels,
            out_channels=channels,
            block_out_channels=(width, 2 * width, 2 * width),
            down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=token_dim,
            attention_head_dim=HEAD_CHANNELS,
            norm_num_groups=NORM_GROUPS,
        )
        for parameter in self.net.conv_out.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self,
        prediction: Prediction,
        z: Float[Tensor, "B C h w"],
        t: Int[Tensor, "B"],
        text: PromptEmbedding,
        alpha: Float[Tensor, "B 1 1 1"],
        sigma: Float[Tensor, "B 1 1 1"],
    ) -> Prediction:
        """The prior's prediction for z, changed by what the adapter has learned."""
        change = self.net(z, t, text.tokens.to(z), return_dict=False)[0]
        return Prediction(prediction.noise + alpha * change, prediction.x0 - sigma * change)
