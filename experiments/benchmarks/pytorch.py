"""CaloDREAM's networks in plain PyTorch, to compare speeds with.

Written from the paper (2405.09629) for a batch of showers, as one writes them in eager PyTorch:
the same layers and parameter counts as `jgen.nets.vit` and `jgen.nets.transfusion`, random
weights. Energies are sampled as the published code does it: for every layer the whole transformer
runs again on the sequence so far, and the velocity network embeds its time at every call.
"""

from collections.abc import Callable
from math import prod

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jgen.nets.transformers.transfusion import TransfusionConfig
from jgen.nets.transformers.vit import ViTConfig
from jgen.solvers import RungeKutta

TIME_FEATURES = 256


def num_parameters(module: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


class _Block(nn.Module):
    def __init__(self, config: ViTConfig):
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(width, 6 * width)
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.mlp_in = nn.Linear(width, config.mlp_width)
        self.mlp_out = nn.Linear(config.mlp_width, width)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Tokens x [batch, n, width] under the condition c [batch, width]."""
        modulation = self.modulation(c)[:, None].chunk(6, dim=-1)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulation
        h = self.norm(x) * (1 + scale_a) + shift_a
        q, k, v = self.qkv(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + gate_a * self.attention_out(attended)
        h = self.norm(x) * (1 + scale_m) + shift_m
        return x + gate_m * self.mlp_out(F.gelu(self.mlp_in(h), approximate="tanh"))


class ViT(nn.Module):
    """The shape network (Sec. 3.2): velocity of voxels at a time, under a condition."""

    def __init__(self, shape: tuple[int, int, int], num_cond: int, config: ViTConfig):
        super().__init__()
        width, self.patch = config.width, config.patch
        self.counts = [n // p for n, p in zip(shape, config.patch, strict=True)]
        mlp = lambda n: nn.Sequential(nn.Linear(n, width), nn.SiLU(), nn.Linear(width, width))
        self.patch_in = nn.Linear(prod(config.patch), width)
        self.time, self.condition = mlp(TIME_FEATURES), mlp(num_cond)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.patch_out = nn.Linear(width, prod(config.patch))
        sizes = np.diff([width // 2 * i // 3 for i in range(4)])
        self.frequencies = nn.ParameterList(torch.randn(int(n)) for n in sizes[::-1])
        grid = torch.meshgrid(*[torch.arange(n) / n for n in self.counts], indexing="ij")
        for name, index in zip(("layer", "angle", "radius"), grid, strict=True):
            self.register_buffer(name, 2 * np.pi * index.reshape(-1, 1))
        half = TIME_FEATURES // 2
        self.register_buffer("time_frequencies", 1e4 ** (-torch.arange(half) / half))

    def forward(self, t: Tensor, x: Tensor, cond: Tensor) -> Tensor:
        """Velocity [batch, layers, angles, radii] at times t [batch], cond [batch, num_cond]."""
        phases = t[:, None] * self.time_frequencies
        time = self.time(torch.cat([phases.cos(), phases.sin()], dim=-1))
        c = F.silu(time + self.condition(cond))
        tokens = self.patch_in(self._patchify(x)) + self._positions()
        for block in self.blocks:
            tokens = block(tokens, c)
        shift, scale = self.modulation(c)[:, None].chunk(2, dim=-1)
        return self._unpatchify(self.patch_out(self.norm(tokens) * (1 + scale) + shift))

    def _positions(self) -> Tensor:
        codes = []
        for index, w in zip((self.radius, self.angle, self.layer), self.frequencies, strict=True):
            codes += [(index * w).sin(), (index * w).cos()]
        return torch.cat(codes, dim=-1)

    def _patchify(self, x: Tensor) -> Tensor:
        (z, a, r), (pz, pa, pr) = self.counts, self.patch
        x = x.reshape(-1, z, pz, a, pa, r, pr).permute(0, 1, 3, 5, 2, 4, 6)
        return x.reshape(len(x), z * a * r, -1)

    def _unpatchify(self, tokens: Tensor) -> Tensor:
        (z, a, r), (pz, pa, pr) = self.counts, self.patch
        x = tokens.reshape(-1, z, a, r, pz, pa, pr).permute(0, 1, 4, 2, 5, 3, 6)
        return x.reshape(len(x), z * pz, a * pa, r * pr)


class EnergyNetwork(nn.Module):
    """The energy network (Sec. 3.1): a transformer of contexts and a velocity network."""

    def __init__(self, num: int, config: TransfusionConfig):
        super().__init__()
        self.num, self.width = num, config.width
        self.transformer = nn.Transformer(
            config.width,
            config.heads,
            num_encoder_layers=config.layers,
            num_decoder_layers=config.layers,
            dim_feedforward=config.feed_forward,
            dropout=0.0,
            batch_first=True,
        )
        self.time = nn.Linear(config.width, config.width)
        width = config.head_width
        layers = [nn.Linear(1 + 2 * config.width, width), nn.SiLU()]
        for _ in range(config.head_layers - 2):
            layers += [nn.Linear(width, width), nn.LayerNorm(width), nn.SiLU()]
        self.head = nn.Sequential(*layers, nn.Linear(width, 1))
        self.register_buffer("frequencies", 30 * torch.randn(config.width // 2))

    def contexts(self, previous: Tensor, energy: Tensor) -> Tensor:
        """Contexts [batch, n, width] of the first n layers, given the n - 1 `previous` ratios."""
        batch, n = len(previous), previous.shape[1] + 1
        source = previous.new_zeros(batch, 1, self.width)
        source[:, 0, 0], source[:, 0, 1] = energy, 1.0
        target = previous.new_zeros(batch, n, self.width)
        target[:, 1:, 0] = previous
        target[:, :, 1 : 1 + n] = torch.eye(n)
        mask = nn.Transformer.generate_square_subsequent_mask(n)
        return self.transformer(source, target, tgt_mask=mask, tgt_is_causal=True)

    def velocity(self, t: Tensor, x: Tensor, context: Tensor) -> Tensor:
        """Velocity [..., 1] of the ratios x [..., 1] at times t [..., 1]."""
        phases = 2 * np.pi * t * self.frequencies
        time = self.time(torch.cat([phases.sin(), phases.cos()], dim=-1))
        return self.head(torch.cat([x, time, context], dim=-1))

    def sample(self, energy: Tensor, solver: RungeKutta) -> Tensor:
        """Ratios [batch, num], one layer after another."""
        ratios = energy.new_zeros(len(energy), 0)
        for _ in range(self.num):
            context = self.contexts(ratios, energy)[:, -1]
            x = torch.randn(len(energy), 1)
            ratios = torch.cat([ratios, self._solve(solver, x, context)], dim=1)
        return ratios

    def _solve(self, solver: RungeKutta, x: Tensor, context: Tensor) -> Tensor:
        h, tableau = 1 / solver.steps, solver.tableau
        for times in solver.times.tolist():
            slopes = []
            for t, row in zip(times, tableau.a, strict=True):
                stage = x + sum(h * w * s for w, s in zip(row, slopes, strict=True) if w)
                slopes.append(self.velocity(torch.full_like(stage, t), stage, context))
            x = x + sum(h * w * s for w, s in zip(tableau.b, slopes, strict=True) if w)
        return x


def vit_programs(
    shape: tuple[int, int, int], num_cond: int, config: ViTConfig, batch: int, parameters: int
) -> dict[str, Callable[[], None]]:
    """Calls without arguments: "forward", and "gradient" of a squared error by the parameters.

    Raises:
      ValueError: if the network has another number of parameters than jgen's.
    """
    network = _checked(ViT(shape, num_cond, config), parameters)
    t, x, cond = torch.rand(batch), torch.randn(batch, *shape), torch.randn(batch, num_cond)
    target = torch.randn(batch, *shape)

    def gradient() -> None:
        network.zero_grad(set_to_none=True)
        F.mse_loss(network(t, x, cond), target).backward()

    return {"forward": _without_gradient(lambda: network(t, x, cond)), "gradient": gradient}


def energy_programs(
    num: int, config: TransfusionConfig, solver: RungeKutta, batch: int, parameters: int
) -> dict[str, Callable[[], None]]:
    """Calls without arguments: "contexts" of given ratios, "forward" as in training, "sample".

    Raises:
      ValueError: if the network has another number of parameters than jgen's.
    """
    network = _checked(EnergyNetwork(num, config), parameters)
    ratios, energy = torch.randn(batch, num), torch.rand(batch)
    t, x = torch.rand(batch, num, 1), torch.randn(batch, num, 1)

    def forward() -> Tensor:
        return network.velocity(t, x, network.contexts(ratios[:, :-1], energy))

    return {
        "contexts": _without_gradient(lambda: network.contexts(ratios[:, :-1], energy)),
        "forward": _without_gradient(forward),
        "sample": _without_gradient(lambda: network.sample(energy, solver)),
    }


def _checked(network: nn.Module, parameters: int) -> nn.Module:
    if num_parameters(network) != parameters:
        raise ValueError(
            f"{type(network).__name__} has {num_parameters(network)} parameters in PyTorch and "
            f"{parameters} in jgen: their speeds cannot be compared"
        )
    return network.eval()


def _without_gradient(call: Callable[[], Tensor]) -> Callable[[], None]:
    def run() -> None:
        with torch.inference_mode():
            call()

    return run
