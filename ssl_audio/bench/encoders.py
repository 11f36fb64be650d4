"""Whole encoders: training steps on clips (`step`), inference over ever longer sequences."""

import argparse
import importlib.util
import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ssl_audio import config
from ssl_audio.bench import formulations
from ssl_audio.bench.measure import Row, compiled, matmul_flops
from ssl_audio.objectives.base import Objective
from ssl_audio.presets import patch_encoders, runs
from ssl_audio.structs import Tokens
from ssl_audio.train.optim import Optim
from ssl_audio.train.step import init_state, make_train_step

log = logging.getLogger(__name__)
ROWS = 8  # of patches in a column: 128 mel bins by 16


def step_rows(args: argparse.Namespace) -> list[Row]:
    """Return the rows of `step`: the forward pass and the joint pretraining step of each encoder."""
    found = []
    for size in args.size.split(","):
        for name in args.encoder.split(","):
            found += _pretraining(name, size, args)
            if args.torch:
                built = config_of(name, size, args.frames // 16, args.depth)
                built |= dict(dtype=args.dtype, remat=args.remat)
                found += fitted(name, size, built, args)
    return found


def _pretraining(name: str, size: str, args: argparse.Namespace) -> list[Row]:
    options = runs.masked_spectrogram(
        encoder=name, size=size, patch=(16, 16), masked=0.75, frames=args.frames, depth=args.depth
    )
    options["encoder"] |= dict(dtype=args.dtype, remat=args.remat)
    objective: Objective = config.build(options, "objectives")
    samples = 400 + 160 * (args.frames - 1)
    key = jax.random.key(0)
    clips = {
        "audio": 0.1 * jax.random.normal(key, (args.batch, samples)),
        "length": jnp.full(args.batch, samples, jnp.int32),
    }
    txs = Optim(lr=1e-4).make(objective.phases, 1000)
    state = jax.jit(lambda key, clips: init_state(objective, txs, key, clips))(key, clips)
    encode = objective.predictors()["encode"]

    def forward(params, clips):
        return encode(params, {}, clips).tokens.x

    step = make_train_step(objective, txs)
    run, fields = compiled(forward, state.params, clips)
    update, update_fields = compiled(step, state, clips, donate_argnums=0)
    flops = matmul_flops(forward, state.params, clips), matmul_flops(step, state, clips)
    box = [state]

    def train():
        box[0], metrics = update(box[0], clips)
        jax.block_until_ready(metrics)

    def encoded():
        jax.block_until_ready(run(box[0].params, clips))

    def row(what, call, flops, fields):
        labels = {"encoder": name, "size": size, "pass": what}
        return Row(labels, call, (size, what), flops=flops, items=args.batch, **fields)

    return [row("forward", encoded, flops[0], fields), row("train", train, flops[1], update_fields)]


def config_of(name: str, size: str, columns: int, depth: int | None) -> dict[str, Any]:
    """Return the config of an encoder; "name:option=value" changes an option of its mixer."""
    name, *changes = name.split(":")
    built = patch_encoders.encoder(name, size, (ROWS, columns), depth)
    for change in changes:
        option, _, value = change.partition("=")
        built["block"]["mixer"][option] = value
    return built


def fitted(name: str, size: str, built: dict, args: argparse.Namespace) -> list[Row]:
    """Return a step of the encoder alone on the mean squared error, here and in PyTorch."""
    g, batch, tokens = np.random.default_rng(0), args.batch, args.frames // 16 * ROWS
    x, target = (
        g.standard_normal((batch, tokens, built["width"])).astype(np.float32) for _ in range(2)
    )
    stack, wrap = config.build(built, "backbones"), _tokens(tokens)
    tx = optax.adamw(1e-4)
    params = jax.jit(lambda x: stack.init(jax.random.key(0), wrap(x))["params"])(x)

    def step(state, x, target):
        params, moments = state

        def loss(params):
            y = stack.apply({"params": params}, wrap(x)).tokens.x
            return jnp.mean((y - target) ** 2)

        value, gradients = jax.value_and_grad(loss)(params)
        updates, moments = tx.update(gradients, moments, params)
        return (optax.apply_updates(params, updates), moments), value

    box: list[Any] = [(params, jax.jit(tx.init)(params))]
    program, fields = compiled(step, box[0], x, target, donate_argnums=0)
    flops = matmul_flops(step, box[0], x, target)

    def ours():
        box[0], value = program(box[0], x, target)
        jax.block_until_ready(value)

    def row(what, call, **more):
        labels = {"encoder": name, "size": size, "pass": what}
        return Row(labels, call, (name, size, "fit"), items=batch, **more)

    found = [row("fit", ours, flops=flops, **fields)]
    model = _torch_model(built)
    if model is not None:
        import torch

        tensors = torch.from_numpy(x), torch.from_numpy(target)
        models = {"fit, torch": model}
        if args.compile:
            models["fit, torch compiled"] = torch.compile(_torch_model(built))
        for what, made in models.items():
            call = formulations.torch_training_step(made, *tensors, dtype=args.dtype)
            found.append(row(what, call))
    return found


def inference_rows(args: argparse.Namespace) -> list[Row]:
    """Return the rows of `inference`: encoders within token counts."""
    found = []
    for tokens in map(int, args.tokens.split(",")):
        if tokens % ROWS:
            raise ValueError(f"--tokens: got {tokens}, wanted a multiple of {ROWS}.")
        for name in args.encoder.split(","):
            built = config_of(name, args.size, tokens // ROWS, args.depth) | dict(dtype=args.dtype)
            stack, wrap = config.build(built, "backbones"), _tokens(tokens)
            x = np.random.default_rng(0).standard_normal((args.batch, tokens, built["width"]))
            x = x.astype(np.float32)
            params = jax.jit(lambda x, s=stack, w=wrap: s.init(jax.random.key(0), w(x)))(x)

            def forward(params, x, stack=stack, wrap=wrap):
                return stack.apply(params, wrap(x)).tokens.x

            program, fields = compiled(forward, params, x)
            labels = {"encoder": name, "size": args.size, "tokens": tokens}
            more: dict[str, Any] = dict(group=(tokens,), items=args.batch)
            need = max(fields["temp"] or 0, _scores(built, args.batch, tokens))
            if need > args.memory * 1e9:
                log.warning("%s at %d tokens needs %.1f GB: not run", name, tokens, need / 1e9)
            else:
                flops = matmul_flops(forward, params, x)
                call = _call(program, params, x)
                found.append(Row(labels, call, flops=flops, **more, **fields))
            model = _torch_model(built) if args.torch else None
            if model is not None:
                labels = labels | {"encoder": f"{name.partition(':')[0]}, torch"}
                found.append(Row(labels, _torch_call(model, x), **more))
    return found


def _scores(built: dict[str, Any], batch: int, tokens: int) -> int:
    """Return the bytes that plain attention fills, before and after the softmax; 0 for other mixers."""
    mixer = built["block"]["mixer"]
    if mixer.get("implementation") != "plain":
        return 0
    return 2 * 4 * batch * mixer["heads"] * tokens**2


def _tokens(count: int) -> Callable:
    columns = count // ROWS

    def wrap(x):
        index = jnp.broadcast_to(jnp.arange(count)[None], x.shape[:2])
        return Tokens(x=x, index=index, grid=(ROWS, columns))

    return wrap


def _call(program: Callable, *arguments: Any) -> Callable:
    arguments = jax.device_put(arguments)
    return lambda: jax.block_until_ready(program(*arguments))


def _torch_model(built: dict[str, Any]) -> Any:
    if not importlib.util.find_spec("torch"):
        log.warning("torch is not installed: no PyTorch rows")
        return None
    block = built["block"]
    mlp = block.get("mlp", 0.0)
    return formulations.torch_encoder(built["width"], built["depth"], block["mixer"], mlp)


def _torch_call(model: Any, x: np.ndarray) -> Callable:
    import torch

    tensor = torch.from_numpy(x)
    model.eval()

    def call():
        with torch.inference_mode():
            model(tensor)

    return call
