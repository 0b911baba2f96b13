"""A small training as a process of its own: python small_training.py FOLDER [--name value ...]."""

import argparse

import jax
import numpy as np

parser = argparse.ArgumentParser()
parser.add_argument("folder")
parser.add_argument("--steps", type=int, default=300)
parser.add_argument("--process", type=int, default=-1)
parser.add_argument("--port", type=int, default=0)
parser.add_argument("--learning-rate", type=float, default=1e-3)
args = parser.parse_args()

if args.process >= 0:
    import os

    os.environ |= {
        "JAX_COORDINATOR_ADDRESS": f"localhost:{args.port}",
        "JAX_NUM_PROCESSES": "2",
        "JAX_PROCESS_ID": str(args.process),
    }
    jax.config.update("jax_num_cpu_devices", 2)
    from jgen.training import initialize_distributed

    initialize_distributed()

from jgen.generative_model import Batch
from jgen.models import flow_matching
from jgen.nets import velocity_mlp
from jgen.training import OptimizerConfig, TrainConfig, fit

x = np.random.default_rng(0).normal(size=(640, 2)).astype(np.float32)
config = TrainConfig(
    steps=args.steps,
    batch_size=32,
    ensemble=2,
    optimizer=OptimizerConfig(learning_rate=args.learning_rate, warmup=0.1, clip_norm=1.0),
    ema_decay=0.99,
    keep="best",
    validate_every=40,
    log_every=1,
    save_every=50,
)
fitted = fit(
    flow_matching(velocity_mlp(2, hidden=(16, 16)), (2,)),
    Batch(x[:512], weight=np.linspace(0.5, 1.5, 512)),
    jax.random.key(0),
    config,
    validation=Batch(x[512:], weight=np.ones(128)),
    folder=args.folder,
    progress=False,
)
if jax.process_index() == 0:
    leaves = jax.tree.leaves((fitted.params, fitted.state))
    np.savez(f"{args.folder}/final.npz", *leaves)
