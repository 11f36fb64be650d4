"""Codes a second of MusicgenForCausalLM of transformers and of the same random weights here, one thread.

taskset -c 0 python experiments/audiogen/speed.py [--width 512 --depth 8 --batch 1 --steps 100]
Takes torch and transformers. Both draw the likeliest code, which must be the same; processor time, in turn.
"""

import argparse
import os
import statistics
import time

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import numpy as np
import torch
import transformers

from ssl_audio import config
from ssl_audio.convert import from_state_dict
from ssl_audio.inference.generator import Generator
from ssl_audio.inference.sampling import Sampling

BOOKS, CODES, WORDS = 4, 2048, 16


def main():
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--times", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    options = dict(
        vocab_size=CODES, hidden_size=args.width, num_hidden_layers=args.depth, ffn_dim=4 * args.width,
        num_attention_heads=args.width // 64, num_codebooks=BOOKS, pad_token_id=CODES, bos_token_id=CODES,
    )  # fmt: skip
    theirs = transformers.MusicgenForCausalLM(transformers.MusicgenDecoderConfig(**options)).eval()
    for name in ("decoder_start_token_id", "bos_token_id", "pad_token_id"):
        setattr(theirs.generation_config, name, CODES)
    with torch.no_grad():
        for head in theirs.lm_heads:
            head.weight.mul_(30)  # else rounding decides which code is the likeliest
    state = {name: value.numpy() for name, value in theirs.state_dict().items()}
    converted = from_state_dict("musicgen", state, num_attention_heads=args.width // 64)
    ours = Generator(
        config.build(converted.config["objective"], "objectives"),
        converted.params,
        converted.config,
    )
    given = np.random.default_rng(0).normal(size=(args.batch, WORDS, args.width))
    given = given.astype(np.float32)

    def reference():
        # What `generate` makes by itself, a DynamicCache, mixes the memories of both attentions, and the mask
        # that it infers hides the first column: codes would differ from those of whole passes.
        both = (transformers.DynamicCache(config=theirs.config) for _ in range(2))
        with torch.no_grad():
            found = theirs.generate(
                torch.full((args.batch * BOOKS, 1), CODES),
                encoder_hidden_states=torch.from_numpy(given),
                encoder_attention_mask=torch.ones(args.batch, WORDS),
                attention_mask=torch.ones(args.batch, 1),
                cache=transformers.EncoderDecoderCache(*both),
                do_sample=False,
                guidance_scale=1.0,
                num_return_sequences=1,
                max_new_tokens=args.steps + BOOKS - 1,
            )
        # Without the pattern's padding it is [books, steps] for each sound.
        return np.moveaxis(found.numpy().reshape(args.batch, BOOKS, -1), 1, 2)[:, : args.steps]

    def here():
        greedy = Sampling(guidance=1.0, temperature=0.0)
        return np.stack(ours.say(list(given), args.steps, sampling=greedy))

    spent: dict[str, list[float]] = {"transformers": [], "here": []}
    both = {"transformers": reference, "here": here}
    first = {name: run() for name, run in both.items()}
    same = np.mean(first["transformers"] == first["here"])
    for _ in range(args.times):
        for name, run in both.items():
            begin = time.process_time()
            run()
            spent[name].append(time.process_time() - begin)
    codes = args.batch * args.steps * BOOKS
    rates = {name: codes / statistics.median(times) for name, times in spent.items()}
    print(f"{args}\ncodes that are the same: {same:.4f}")
    for name, rate in rates.items():
        print(f"{name}: {rate:.0f} codes a second of processor time")
    print(f"ratio {rates['here'] / rates['transformers']:.2f}")


if __name__ == "__main__":
    main()
