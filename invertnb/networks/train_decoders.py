"""How the embedded decoders were made: VGG-16 at half width turned around, for pool(1) to pool(4).

    python -m invertnb.networks.train_decoders CIFAR IMAGES OUT [--switches known|fixed|averaged]

CIFAR is CIFAR-10, torchvision's folder or a tree of PNG files; IMAGES is a folder of photographs.
OUT receives `<switches>.pt` every hundred steps, from which a later call goes on, and at the end
the decoders (float16 safetensors) and their card.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import textwrap
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from invertnb.networks.architecture import PREPROCESSING, VGG16, Network
from invertnb.networks.download import sha256
from invertnb.networks.train import images as cifar
from invertnb.networks.train import normalize, resume, save
from invertnb.networks.weights import load

DEPTH = 4
SWITCHES = ("known", "fixed", "averaged")
HELD_OUT = 10  # every tenth photograph, in order of its name, is never trained on


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All that decides the result, besides the data and the encoder."""

    switches: str = "known"
    steps: int = 3600
    small: int = 64
    crops: int = 16
    side: int = 64
    rate: float = 2e-3
    warmup: float = 0.03
    seed: int = 0


class Stages(nn.Module):
    """Blocks 4 to 1 of the encoder in reverse: unpooling, then as many 3 x 3 convolutions.

    A decoder of pool(i) is the last i stages: each stage gives what the pooling before its block
    gave, and the last one an image without its mean. ReLU stands between convolutions, none at the
    end (Zhang et al. 2016).
    """

    def __init__(self, encoder: Network, switches: str) -> None:
        super().__init__()
        self.switches = switches
        for block in range(1, DEPTH + 1):
            for j in range(1, len(VGG16.blocks[block - 1]) + 1):
                weight, _ = encoder.filters(f"conv({block},{j})")
                many, few = weight.shape[:2]
                conv = nn.Conv2d(many, few, 3, padding=1)
                nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
                nn.init.zeros_(conv.bias)
                self.add_module(f"deconv{block}_{j}", conv)

    def forward(self, x: Tensor, layer: int, masks: list[Tensor]) -> Tensor:
        for block in range(layer, 0, -1):
            x = F.interpolate(x, scale_factor=2, mode="nearest") * masks[block - 1]
            for j in range(len(VGG16.blocks[block - 1]), 0, -1):
                x = getattr(self, f"deconv{block}_{j}")(x)
                if (block, j) != (1, 1):
                    x = F.relu(x)
        return x


def photographs(folder: Path) -> tuple[list[Tensor], list[Tensor]]:
    """Photographs (3, H, W) as uint8, those to learn from and those held out."""
    paths = sorted(each for each in folder.iterdir() if each.suffix.lower() in (".jpeg", ".jpg", ".png"))
    if len(paths) < HELD_OUT:
        raise ValueError(f"{folder}: expected at least {HELD_OUT} photographs, found {len(paths)}")
    found: tuple[list[Tensor], list[Tensor]] = [], []
    for place, path in enumerate(paths):
        with Image.open(path) as image:
            pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
        found[place % HELD_OUT == HELD_OUT - 1].append(pixels)
    return found


def crop(photograph: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """A square of a photograph, mirrored or not."""
    top, left = (
        int(torch.randint(length - side + 1, (), generator=generator)) for length in photograph.shape[1:]
    )
    square = photograph[:, top : top + side, left : left + side]
    return square.flip(2) if torch.randint(2, (), generator=generator) else square


def middle(photograph: Tensor, most: int = 224) -> Tensor:
    """The middle of a photograph, with sides that all poolings halve without a rest."""
    sides = [min(most, length // 2**DEPTH * 2**DEPTH) for length in photograph.shape[1:]]
    top, left = (
        (length - side) // 2 for length, side in zip(photograph.shape[1:], sides, strict=True)
    )
    return photograph[:, top : top + sides[0], left : left + sides[1]]


def encode(encoder: Network, pixels: Tensor, switches: str) -> tuple[list[Tensor], list[Tensor]]:
    """Activations of pool(1) to pool(4), and what unpooling multiplies with: where, and how much."""
    x, pooled, masks = normalize(pixels), [], []
    with torch.no_grad(), torch.autocast(pixels.device.type, torch.bfloat16):
        for name in encoder.truncated(f"pool({DEPTH})").layers:
            if name.startswith("conv"):
                weight, bias = encoder.filters(name)
                x = F.relu(F.conv2d(x, weight.to(x.device), bias.to(x.device), padding=1))
                continue
            small, place = F.max_pool2d(x, 2, return_indices=True)
            masks.append(mask(x, small, place, switches))
            pooled.append(small)
            x = small
    return pooled, masks


def mask(x: Tensor, small: Tensor, place: Tensor, switches: str) -> Tensor:
    """1 where a pooled value goes, or 1/4 everywhere."""
    if switches == "known":
        return F.max_unpool2d(torch.ones_like(small), place, 2, output_size=x.shape)
    if switches == "fixed":
        # The last place of the window: offset kernel / 2 in both directions, as Zhang et al. do.
        window = torch.tensor([[0.0, 0.0], [0.0, 1.0]], dtype=x.dtype, device=x.device)
        return window.repeat(x.shape[2] // 2, x.shape[3] // 2)[None, None]
    return x.new_full((1, 1, 1, 1), 0.25)


def target(pixels: Tensor) -> Tensor:
    """Images in [0, 1] without their mean."""
    mean = pixels.new_tensor(PREPROCESSING["cifar10"].mean, dtype=torch.float32).view(3, 1, 1)
    return pixels.float() / 255 - mean


def losses(net: Stages, encoder: Network, pixels: Tensor) -> list[Tensor]:
    """For each layer, the mean square of the decoded image's error."""
    pooled, masks = encode(encoder, pixels, net.switches)
    truth = target(pixels)
    found = []
    for layer, small in enumerate(pooled, start=1):
        with torch.autocast(pixels.device.type, torch.bfloat16):
            decoded = net(small, layer, masks)
        found.append((decoded.float() - truth).square().mean())
    return found


def held_out_errors(net: Stages, encoder: Network, groups: list[Tensor]) -> dict[str, dict[str, float]]:
    """Relative errors, image by image and then averaged, in bfloat16 as trained."""
    errors: dict[str, list[Tensor]] = {}
    with torch.no_grad():
        for pixels in groups:
            pooled, masks = encode(encoder, pixels, net.switches)
            truth = target(pixels).flatten(1)
            mean = (pixels.float() / 255).flatten(1)
            for layer, small in enumerate(pooled, start=1):
                with torch.autocast(pixels.device.type, torch.bfloat16):
                    decoded = net(small, layer, masks).float().flatten(1)
                error = (decoded - truth).norm(dim=1)
                each = torch.stack([error / truth.norm(dim=1), error / mean.norm(dim=1)])
                errors.setdefault(f"pool({layer})", []).append(each)
    return {
        name: dict(
            zip(("mean subtracted", "mean added back"), torch.cat(parts, 1).mean(1).tolist(), strict=True)
        )
        for name, parts in errors.items()
    }


def train(
    small: Tensor, large: list[Tensor], encoder: Network, out: Path, recipe: Recipe, device: str
) -> tuple[Stages, list[dict]]:
    """The trained decoders and a record for every hundred steps; goes on from its state in OUT."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{recipe.switches}.pt"
    torch.manual_seed(recipe.seed)
    net = Stages(encoder, recipe.switches).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.0)
    history = resume(path, recipe, device, net, optimizer)
    for hundred in range(len(history), recipe.steps // 100):
        begin, total = time.monotonic(), torch.zeros(DEPTH)
        # A generator for each hundred: what follows a resumption is what would have followed anyway.
        generator = torch.Generator().manual_seed(recipe.seed * 10**6 + hundred)
        for step in range(100 * hundred, 100 * hundred + 100):
            rise = recipe.warmup * recipe.steps
            rate = recipe.rate * min((step + 1) / rise, (recipe.steps - step) / (recipe.steps - rise))
            optimizer.param_groups[0]["lr"] = rate
            which = torch.randint(len(small), (recipe.small,), generator=generator)
            chosen = torch.randint(len(large), (recipe.crops,), generator=generator).tolist()
            crops = torch.stack([crop(large[i], recipe.side, generator) for i in chosen])
            optimizer.zero_grad(set_to_none=True)
            for pixels in (small[which].to(device), crops.to(device)):
                each = losses(net, encoder, pixels)
                # log: every layer's squared error counts by what it falls in proportion.
                (sum(loss.log() for loss in each) / 2).backward()
            total += torch.stack([loss.detach().cpu() for loss in each])
            optimizer.step()
        record = {"mean square, crops": (total / 100).tolist(), "seconds": time.monotonic() - begin}
        history.append(record)
        state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "history": history}
        save(state | {"recipe": dataclasses.asdict(recipe)}, path)
        print(recipe.switches, 100 * (hundred + 1), record, flush=True)
    return net, history


def publish(
    net: Stages, history: list[dict], encoder: Network, groups: dict[str, list[Tensor]],
    out: Path, recipe: Recipe, data: str,
) -> None:
    """The decoders as float16 and their card."""
    tensors = {
        name.replace("deconv", "deconv(").replace("_", ",").replace(".", ")."): each.detach().cpu()
        for name, each in net.state_dict().items()
    }
    path = out / f"vgg16_half_decoders_{recipe.switches}.safetensors"
    save_file({name: each.half().contiguous() for name, each in tensors.items()}, path)
    path.chmod(0o644)
    card = {
        "model": f"decoders of pool(1) to pool(4), {recipe.switches} switches; float16",
        "encoder": {"label": encoder.source.label, "sha256": encoder.source.sha256},
        "data": data,
        "recipe": dataclasses.asdict(recipe),
        "held-out relative error": {
            name: held_out_errors(net, encoder, each) for name, each in groups.items()
        },
        "curve": [[float(f"{value:.3g}") for value in record["mean square, crops"]] for record in history],
        "parameters": sum(each.numel() for each in tensors.values()),
        "bytes": path.stat().st_size,
        "device": f"{next(net.parameters()).device.type}, {torch.get_num_threads()} threads",
        "minutes": round(sum(record["seconds"] for record in history) / 60, 1),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "sha256": sha256(path),
    }
    path.with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n")
    path.with_suffix(".md").write_text(model_card(card))
    print(json.dumps(card["held-out relative error"]), flush=True)


def model_card(card: dict) -> str:
    """The card for people."""
    recipe, versions = Recipe(**card["recipe"]), card["versions"]
    kind = {
        "known": "puts each value where the encoder's pooling took it from",
        "fixed": "puts each value at the last place of its window",
        "averaged": "spreads each value evenly over its window",
    }[recipe.switches]
    rows = "\n".join(
        f"| {data} | {layer} | {each['mean subtracted']:.3f} | {each['mean added back']:.3f} |"
        for data, layers in card["held-out relative error"].items()
        for layer, each in layers.items()
    )
    curve = "\n".join(
        f"| {100 * hundred} | " + " | ".join(f"{value:.3g}" for value in values) + " |"
        for hundred, values in enumerate(card["curve"], 1)
        if hundred % 4 == 0 or hundred == len(card["curve"])
    )
    points = {
        "What for": f"Images from activations of the embedded network, true or reconstructed, as in "
        f"Table 3 and Figures 4 and 5. The network turned around: unpooling, which {kind}, then as "
        "many 3 x 3 convolutions, ReLU between and none at the end, no batch norm (Zhang et al. "
        "2016). One chain serves all layers: the decoder of pool(i) is its last i blocks.",
        "Encoder": f"{card['encoder']['label']}, SHA-256 `{card['encoder']['sha256']}`.",
        "Data": f"{card['data']}. Targets are images in [0, 1] less the mean of CIFAR-10 by channel.",
        "Recipe": f"Adam, {recipe.steps} steps of {recipe.small} small images and {recipe.crops} "
        f"crops of {recipe.side} x {recipe.side}, mirrored or not; learning rate up to {recipe.rate} "
        f"in a straight line over {100 * recipe.warmup:.0f} % of the steps and down to 0. The loss "
        "is the Euclidean one of each of the four decoders, in logarithm, so that each counts by its "
        f"proportion. bfloat16. Seed {recipe.seed}. "
        "`python -m invertnb.networks.train_decoders CIFAR IMAGES OUT`.",
        "Made with": f"{card['device']}, Python {versions['python']}, torch {versions['torch']}, in "
        f"{card['minutes']} minutes.",
    }
    listed = "\n".join(
        textwrap.fill(f"- **{name}.** {text}", 100, subsequent_indent="  ")
        for name, text in points.items()
    )
    return f"""# vgg16_half_decoders_{recipe.switches}.safetensors

{card["model"]}; {card["parameters"]:,} numbers, {card["bytes"]:,} bytes, SHA-256
`{card["sha256"]}`.

{listed}

Relative error `||x - x_hat|| / ||x||` of images decoded from true activations, averaged over images
that the decoders have not seen; with the mean subtracted from x, as trained, and added back:

| images | layer | mean subtracted | mean added back |
|---|---|---|---|
{rows}

Mean square of the error on the crops, over the hundred steps before:

| step | pool(1) | pool(2) | pool(3) | pool(4) |
|---|---|---|---|---|
{curve}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("cifar", type=Path, help="CIFAR-10, torchvision's or PNG files in folders")
    parser.add_argument("images", type=Path, help="folder of photographs, shorter side at least 64")
    parser.add_argument("out", type=Path, help="folder for the states and the decoders")
    parser.add_argument("--switches", choices=SWITCHES, help="one kind only")
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sets, (large, held) = cifar(arguments.cifar), photographs(arguments.images)
    encoder = load("vgg16", "embedded").to(device)
    squares = [middle(photograph)[None].to(device) for photograph in held]
    groups = {
        "CIFAR-10, 1,000 test images": list(sets["test"][:: len(sets["test"]) // 1000].to(device).split(100)),
        f"{len(held)} photographs, 224 x 224 at most": squares,
    }
    data = f"CIFAR-10, {len(sets['train']):,} training images, and crops of {len(large)} photographs"
    for switches in (arguments.switches,) if arguments.switches else SWITCHES:
        recipe = Recipe(switches=switches, steps=arguments.steps)
        net, history = train(sets["train"], large, encoder, arguments.out, recipe, device)
        publish(net, history, encoder, groups, arguments.out, recipe, data)


if __name__ == "__main__":
    main()
