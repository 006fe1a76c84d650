"""What is recorded: a network's layers on more images than a page has time for, and speed."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from invertnb import FilterBank, notebook, random_activations, reconstruct, relative_error
from invertnb.chapters import inverting_vgg as chapter
from invertnb.chapters.inverting_vgg import activation
from invertnb.chapters.inverting_vgg.activation import (
    ACTIVATIONS, FITTING, LEARNED, RANDOM, READINGS, STATED, Step,
)  # fmt: skip
from invertnb.chapters.inverting_vgg.inputs import ACTIVATIONS as DRAWN
from invertnb.chapters.inverting_vgg.inputs import BANKS
from invertnb.chapters.rip_2d.ratios import significant
from invertnb.networks import VGG16, Network
from invertnb.networks.architecture import parse_layer
from invertnb.notebook.real_networks import inputs, slug, words

DIGITS, BATCH = 4, 5
#: Names of what a `Step` has, as they are recorded: mean and standard deviation over images.
PARTS = ("error", "best", "cosine", "kept", "ratio")
TRANSPOSE = "unpooled"


def network(p: chapter.Parameters) -> notebook.Recording:
    """Table 3 in activation space, every reading, for the poolings that a network has.

    The filters of conv(i+1,1) may be missing after the last of them: random ones of its shape then
    stand alone.
    """
    net, pictures = p.network(), p.pictures(p.photographs)
    pools = [f"pool({i})" for i in range(1, 5) if f"pool({i})" in net.layers]
    banks = {pool: _banks(p, net, pool) for pool in pools}
    steps: dict[str, dict[str, dict[str, list[Step]]]] = {
        pool: defaultdict(lambda: defaultdict(list)) for pool in pools
    }
    errors: dict[str, dict[str, list[Tensor]]] = {pool: defaultdict(list) for pool in pools}
    for _, batch in pictures.batches(BATCH, progress=True):
        with torch.no_grad():
            outputs = net.activations(batch.to(p.device), pools)
        for i, pool in enumerate(pools):
            f = outputs[pool]
            for name, bank in banks[pool].items():
                few = name not in (LEARNED, RANDOM)
                found = activation.steps(f, bank, pool, (FITTING, STATED) if few else READINGS)
                for reading, each in found.items():
                    steps[pool][name][str(reading)].append(each)
                if not few:
                    whole = reconstruct(f, bank, method="transpose").signal
                    errors[pool][f"{TRANSPOSE}, {name}"].append(relative_error(f, whole).double())
            generator = p.generator(DRAWN + i + 10 * len(errors[pool][ACTIVATIONS]))
            drawn = random_activations(f, generator)
            errors[pool][ACTIVATIONS].append(relative_error(f, drawn).double())
    results = {
        "network": words(net),
        "real": net.source.real,
        "images": len(pictures),
        "layers": {
            pool: {
                name: {reading: _step(each) for reading, each in by_reading.items()}
                for name, by_reading in steps[pool].items()
            }
            for pool in pools
        },
        "errors": {
            pool: {name: _spread(torch.cat(each)) for name, each in by_name.items()}
            for pool, by_name in errors.items()
        },
    }
    return notebook.Recording(f"{slug(net)}-{len(pictures)}", inputs(net, pictures), results)


def speed(p: chapter.Parameters) -> notebook.Recording:
    """Seconds for all layers of the photographs by method, the best of three runs."""
    given = chapter.gather(p)
    results: dict[str, Any] = {
        "images": len(given.pixels), "threads": torch.get_num_threads(), "seconds": {},
    }  # fmt: skip
    for name in (LEARNED, RANDOM, ACTIVATIONS):
        taken = [_timed(p, given, name) for _ in range(4)][1:]
        results["seconds"][name] = significant(min(taken), 3)
    total = sum(results["seconds"].values())
    results["images per second, all layers and methods"] = significant(results["images"] / total, 3)
    made = {"weights": given.network.source.label, "images": given.pictures.label}
    return notebook.Recording(f"speed-{p.device}", made, results)


def _banks(p: chapter.Parameters, net: Network, pool: str) -> dict[str, FilterBank]:
    """Learned filters, where there are any, and draws of random ones of their shape."""
    block = int(pool[5])
    last = f"conv({block},{len(VGG16.blocks[block - 1])})"
    M = len(net.filters(last)[0])
    K = VGG16.blocks[block][0] * M // VGG16.blocks[block - 1][-1]
    shape = FilterBank(torch.ones(K, M, 3, 3, device=p.device), padding=1)
    found = {LEARNED: net.bank(activation.following(pool))} if block < _blocks(net) else {}
    for draw in range(p.banks):
        generator = p.generator(BANKS + 10 * draw + block)
        found[f"{RANDOM} {draw}" if draw else RANDOM] = activation.random_bank(shape, generator)
    return found


def _blocks(net: Network) -> int:
    return max(parse_layer(layer)[0] for layer in net.convolutions)


def _step(found: list[Step]) -> dict[str, list[float]]:
    whole = Step(*(torch.cat(each) for each in zip(*found, strict=True)))
    return {part: _spread(getattr(whole, part)) for part in PARTS}


def _spread(values: Tensor) -> list[float]:
    sd = float(values.std()) if len(values) > 1 else 0.0
    return [significant(float(values.mean()), DIGITS), significant(sd, 2)]


def _timed(p: chapter.Parameters, given: Any, name: str) -> float:
    generator = p.generator(DRAWN)
    _wait(p.device)
    start = time.perf_counter()
    for pool, f in given.f.items():
        if name == ACTIVATIONS:
            random_activations(f, generator)
        else:
            bank: Mapping = {LEARNED: given.learned[pool], RANDOM: given.random[pool][0]}
            activation.step(f, bank[name], FITTING, pool)
    _wait(p.device)
    return time.perf_counter() - start


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
