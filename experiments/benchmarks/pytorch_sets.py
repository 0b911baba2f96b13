"""Networks on sets in plain PyTorch, to compare speeds with.

Written from the papers for a padded batch of events with a mask, as one writes them in eager
PyTorch: the same layers and parameter counts as `jgen.nets.epic` and `jgen.nets.set_transformer`,
random weights.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from experiments.benchmarks.pytorch import TIME_FEATURES
from jgen.nets import EpicConfig, SetTransformerConfig

_HARMONICS = 8


def _context(t: Tensor, n: Tensor, cond: Tensor) -> tuple[Tensor, Tensor]:
    phase = np.pi * torch.arange(1, _HARMONICS + 1) * t[:, None]
    numbers = torch.cat([torch.log1p(n.float())[:, None], cond], dim=-1)
    return torch.cat([phase.sin(), phase.cos()], dim=-1), numbers


def _linear(inputs: int, outputs: int) -> nn.Module:
    return weight_norm(nn.Linear(inputs, outputs))


def _pooled(x: Tensor, mask: Tensor, scale: float) -> Tensor:
    total = (x * mask[..., None]).sum(dim=1)
    return torch.cat([total / mask.sum(dim=1).clamp(min=1)[:, None], scale * total], dim=-1)


def _beside(x: Tensor, *shared: Tensor) -> Tensor:
    return torch.cat([x, *(s[:, None].expand(-1, x.shape[1], -1) for s in shared)], dim=-1)


class Epic(nn.Module):
    """EPiC network (2301.08128, 2310.00049)."""

    def __init__(self, num_features: int, num_cond: int, config: EpicConfig):
        super().__init__()
        h, g, c = config.hidden, config.latent, 2 * _HARMONICS + 1 + num_cond
        self.scale = config.sum_scale
        self.points = nn.ModuleList([_linear(num_features + c, h), _linear(h + c, h)])
        self.whole = nn.ModuleList([_linear(2 * h + c, h), _linear(h + c, g)])
        shapes = [(2 * h + g + c, h), (h + c, g), (h + g + c, h), (h + c, h)]
        self.layers = nn.ModuleList(
            nn.ModuleList(_linear(*shape) for shape in shapes) for _ in range(config.layers)
        )
        self.out = _linear(h + c, num_features)

    def forward(self, t: Tensor, x: Tensor, n: Tensor, cond: Tensor) -> Tensor:
        """Output [batch, rows, features]."""
        mask = torch.arange(x.shape[1]) < n[:, None]
        c, act = torch.cat(_context(t, n, cond), dim=-1), F.leaky_relu
        hidden = act(self.points[0](_beside(x * mask[..., None], c)))
        hidden = act(hidden + self.points[1](_beside(hidden, c)))
        whole = act(self.whole[0](torch.cat([_pooled(hidden, mask, self.scale), c], dim=-1)))
        whole = act(self.whole[1](torch.cat([whole, c], dim=-1)))
        for first, second, inner, outer in self.layers:
            own = torch.cat([_pooled(hidden, mask, self.scale), whole, c], dim=-1)
            whole = act(whole + second(torch.cat([act(first(own)), c], dim=-1)))
            hidden = act(hidden + outer(_beside(act(inner(_beside(hidden, whole, c))), c)))
        return self.out(_beside(hidden, c)) * mask[..., None]


class SetTransformer(nn.Module):
    """Blocks of DiT (2212.09748) without positions, with attention on points alone."""

    def __init__(self, num_features: int, num_cond: int, config: SetTransformerConfig):
        super().__init__()
        width, self.config = config.width, config
        self.tokens = nn.Linear(num_features, width)
        mlp = lambda n: nn.Sequential(nn.Linear(n, width), nn.SiLU(), nn.Linear(width, width))
        self.time, self.condition = mlp(TIME_FEATURES), mlp(1 + num_cond)
        self.modulation = nn.Linear(width, (6 * config.blocks + 2) * width)
        shapes = [(width, 3 * width), (width, width)]
        shapes += [(width, config.mlp_width), (config.mlp_width, width)]
        self.blocks = nn.ModuleList(
            nn.ModuleList(nn.Linear(*shape) for shape in shapes) for _ in range(config.blocks)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.out = nn.Linear(width, num_features)
        half = TIME_FEATURES // 2
        self.register_buffer("frequencies", 1000 * 1e4 ** (-torch.arange(half) / half))

    def forward(self, t: Tensor, x: Tensor, n: Tensor, cond: Tensor) -> Tensor:
        """Output [batch, rows, features]."""
        mask = torch.arange(x.shape[1]) < n[:, None]
        phases = t[:, None] * self.frequencies
        time = self.time(torch.cat([phases.cos(), phases.sin()], dim=-1))
        c = F.silu(time + self.condition(_context(t, n, cond)[1]))
        modulation = self.modulation(c)[:, None].chunk(6 * self.config.blocks + 2, dim=-1)
        tokens = self.tokens(x * mask[..., None])
        for i, (qkv, attention_out, mlp_in, mlp_out) in enumerate(self.blocks):
            shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulation[6 * i : 6 * i + 6]
            h = qkv(self.norm(tokens) * (1 + scale_a) + shift_a)
            q, k, v = h.unflatten(-1, (3, self.config.heads, -1)).permute(2, 0, 3, 1, 4)
            seen = mask[:, None, None, :]
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
            tokens = tokens + gate_a * attention_out(attended.transpose(1, 2).flatten(2))
            h = mlp_in(self.norm(tokens) * (1 + scale_m) + shift_m)
            tokens = tokens + gate_m * mlp_out(F.gelu(h, approximate="tanh"))
        tokens = self.norm(tokens) * (1 + modulation[-1]) + modulation[-2]
        return self.out(tokens) * mask[..., None]


def set_programs(network: nn.Module, t, x, n, cond, target) -> dict:
    """Programs "forward" and "gradient" of a network on numpy arrays."""
    inputs = [torch.from_numpy(np.array(a)) for a in (t, x, n, cond)]
    target = torch.from_numpy(np.array(target))

    def forward():
        with torch.inference_mode():
            return network(*inputs).numpy()

    def gradient():
        network.zero_grad()
        F.mse_loss(network(*inputs), target).backward()

    return {"forward": forward, "gradient": gradient}
