"""Networks on events in PyTorch, to compare speeds with.

They are those of the packages lgatr and lloca, and a plain transformer of the same layers and
parameter counts as that of `jgen.nets.lloca`. Settings are those of 2509.08048: ratios of L-GATr as
in its version 1.3, no affine norms, frames of LLoCa in double precision and its transformer in
single precision.
"""

import warnings

import torch
from lgatr import LGATr
from lloca.backbone.transformer import Transformer
from lloca.equivectors.mlp import MLPVectors
from lloca.framesnet.equi_frames import LearnedPDFrames
from torch import Tensor, nn
from torch.nn import functional as F

from jgen.nets import LGATrConfig, LLoCaConfig


class _Block(nn.Module):
    def __init__(self, config: LLoCaConfig):
        super().__init__()
        width, self.heads = config.width, config.heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp_in = nn.Linear(width, config.mlp_ratio * width)
        self.mlp_out = nn.Linear(config.mlp_ratio * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [batch, n, width]."""
        size, n, width = x.shape
        norm = lambda x: F.layer_norm(x, (width,))
        qkv = self.qkv(norm(x)).view(size, n, 3, self.heads, -1)
        attended = F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4))
        x = x + self.out(attended.transpose(1, 2).reshape(size, n, width))
        return x + self.mlp_out(F.gelu(self.mlp_in(norm(x))))


class Plain(nn.Module):
    """The transformer without frames."""

    def __init__(self, num_scalars: int, config: LLoCaConfig):
        super().__init__()
        self.first = nn.Linear(4 + num_scalars, config.width)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.blocks))
        self.last = nn.Linear(config.width, 6)

    def forward(self, momenta: Tensor, scalars: Tensor) -> Tensor:
        """A vector and two scalars of each particle, [batch, n, 6]."""
        x = self.first(torch.cat([momenta, scalars], dim=-1))
        for block in self.blocks:
            x = block(x)
        return self.last(x)


class Lloca(nn.Module):
    """LLoCa of its package, with spurions in the network of frames."""

    def __init__(self, num_scalars: int, config: LLoCaConfig, spurions: Tensor, momenta: Tensor):
        super().__init__()
        make = lambda n_vectors: MLPVectors(
            n_vectors=n_vectors, num_scalars=num_scalars, hidden_channels=config.frames[0],
            num_layers_mlp=len(config.frames),
        )  # fmt: skip
        self.frames = LearnedPDFrames(make).double()
        self.frames.equivectors.init_standardization(momenta.double())
        self.transformer = Transformer(
            in_channels=4 + num_scalars, attn_reps=f"{config.scalars}x0n+{config.vectors}x1n",
            out_channels=6, num_blocks=config.blocks, num_heads=config.heads,
            mlp_factor=config.mlp_ratio, preserve_variance=False,
        )  # fmt: skip
        self.spurions = spurions.double()

    def forward(self, momenta: Tensor, scalars: Tensor) -> Tensor:
        """A vector in the laboratory and two scalars of each particle, [batch, n, 6]."""
        size, n, _ = momenta.shape
        momenta, extra = momenta.double(), self.spurions.expand(size, -1, -1)
        every = torch.cat([momenta, extra], dim=1)
        padded = F.pad(scalars, (0, 0, 0, extra.shape[1])).double()
        found = self.frames(every, scalars=padded)
        parts = {"matrices": found.matrices, "det": found.det, "inv": found.inv}
        frames = type(found)(**{name: a[:, :n].float() for name, a in parts.items()})
        local = torch.einsum("...ab,...b->...a", found.matrices[:, :n], momenta).float()
        out = self.transformer(torch.cat([local, scalars], dim=-1), frames)
        vector = torch.einsum("...ab,...b->...a", frames.inv, out[..., :4])
        return torch.cat([vector, out[..., 4:]], dim=-1)


class Lgatr(nn.Module):
    """L-GATr of its package, on multivectors [batch, n, channels, 16]."""

    def __init__(self, inputs: tuple[int, int], config: LGATrConfig):
        super().__init__()
        self.network = LGATr(
            num_blocks=config.blocks, in_mv_channels=inputs[0], out_mv_channels=1,
            hidden_mv_channels=config.multivectors, in_s_channels=inputs[1], out_s_channels=2,
            hidden_s_channels=config.scalars,
            attention={"num_heads": config.heads, "attn_ratio": config.attention_ratio},
            mlp={"mlp_ratio": config.mlp_ratio}, norm_elementwise_affine=False,
        )  # fmt: skip

    def forward(self, x: Tensor, scalars: Tensor) -> Tensor:
        """A vector and two scalars of each particle, [batch, n, 6]."""
        made, numbers = self.network(x, scalars)
        return torch.cat([made[..., 0, 1:5], numbers], dim=-1)


def event_programs(network: nn.Module, x: Tensor, scalars: Tensor) -> dict:
    """Forward and gradient of the mean square of the output."""

    def forward():
        with torch.no_grad():
            return network(x, scalars).numpy()

    def gradient():
        network.zero_grad(set_to_none=True)
        network(x, scalars).square().mean().backward()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        forward()
    return {"forward": forward, "gradient": gradient}
