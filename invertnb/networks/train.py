"""How the embedded checkpoint was made: VGG-16 (configuration D) at half width on CIFAR-10.

    python -m invertnb.networks.train DATA OUT

DATA is torchvision's folder with `cifar-10-batches-py`, or a tree `train/<class>/*.png`,
`test/<class>/*.png`. OUT receives `state.pt` after every epoch, from which a later call goes on,
and at the end the checkpoint (float16 safetensors, batch norm folded in) and its card, which then
take their place in this package's folder `static`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from invertnb.networks.architecture import PREPROCESSING, VGG16, Network, Source
from invertnb.networks.download import sha256
from invertnb.networks.labelled import open_labelled
from invertnb.networks.weights import EMBEDDED


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All that decides the result, besides the data."""

    width: float = 0.5
    epochs: int = 40
    batch: int = 128
    rate: float = 0.1
    warmup: float = 0.15
    momentum: float = 0.9
    decay: float = 5e-4
    pad: int = 4
    cutout: int = 8
    seed: int = 0


def images(data: Path) -> dict[str, Tensor]:
    """Training and test images (N, 3, 32, 32) as uint8, with their labels; see `open_labelled`."""
    read = open_labelled(data)
    found = {"train": read.train, "train labels": read.train_labels}
    return found | {"test": read.test, "test labels": read.test_labels}


def network(width: float) -> nn.Sequential:
    """The thirteen convolutions with batch norm and ReLU, five poolings and one linear layer."""
    layers: list[nn.Module] = []
    channels = 3
    for block in VGG16.blocks:
        for full in block:
            out = round(full * width)
            layers += [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out)]
            layers += [nn.ReLU(inplace=True)]
            channels = out
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels, 10))


def normalize(pixels: Tensor) -> Tensor:
    """Bytes (or their values as floats) as the network takes them."""
    images = PREPROCESSING["cifar10"](pixels.float() / 255)
    return images.contiguous(memory_format=torch.channels_last)


def augment(pixels: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Normalized images shifted by up to `pad`, mirrored or not, with one square of the mean."""
    size, side = pixels.shape[0], pixels.shape[2]
    padded = F.pad(pixels.float(), (recipe.pad,) * 4, mode="reflect")

    def integers(high: int) -> Tensor:
        return torch.randint(high, (size, 1), generator=generator)

    along = torch.arange(side)
    rows = integers(2 * recipe.pad + 1) + along
    columns = integers(2 * recipe.pad + 1) + along
    columns = torch.where(integers(2) == 1, columns.flip(1), columns)
    which = torch.arange(size)[:, None, None]
    moved = padded[which, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    half = recipe.cutout // 2
    down, right = (along - integers(side) for _ in range(2))
    cut = (down.abs() <= half)[:, None, :, None] & (right.abs() <= half)[:, None, None, :]
    return normalize(moved).masked_fill_(cut, 0.0)


def accuracy(net: nn.Module, pixels: Tensor, labels: Tensor, dtype: torch.dtype) -> float:
    net.eval()
    with torch.inference_mode(), torch.autocast(pixels.device.type, dtype):
        right = sum(
            int((net(normalize(some)).argmax(1) == truth).sum())
            for some, truth in zip(pixels.split(500), labels.split(500), strict=True)
        )
    return right / len(labels)


def schedule(step: int, steps: int, recipe: Recipe) -> float:
    """The learning rate: up in a straight line for the warm-up, and down to zero."""
    rise = recipe.warmup * steps
    return recipe.rate * min((step + 1) / rise, (steps - step) / (steps - rise))


def save(state: object, path: Path) -> None:
    """Written beside and renamed, so that a kill leaves the state of the last epoch."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def resume(
    path: Path, recipe: Any, device: str, net: nn.Module, optimizer: torch.optim.Optimizer
) -> list[dict]:
    """The records of a training so far, net and optimizer as they were then; none at the start.

    Raises:
        ValueError: the state of another recipe.
    """
    if not path.exists():
        return []
    state = torch.load(path, weights_only=True, map_location=device)
    if state["recipe"] != dataclasses.asdict(recipe):
        raise ValueError(f"{path}: expected the state of {recipe}")
    net.load_state_dict(state["net"])
    optimizer.load_state_dict(state["optimizer"])
    return state["history"]


def train(data: Path, out: Path, recipe: Recipe, device: str) -> tuple[nn.Sequential, list[dict]]:
    """The trained network and a record for each epoch; goes on from OUT/state.pt."""
    out.mkdir(parents=True, exist_ok=True)
    sets = {name: tensor.to(device) for name, tensor in images(data).items()}
    torch.manual_seed(recipe.seed)
    net = network(recipe.width).to(device, memory_format=torch.channels_last)
    weights = [p for p in net.parameters() if p.dim() > 1]
    others = [p for p in net.parameters() if p.dim() == 1]
    groups = [{"params": weights, "weight_decay": recipe.decay}, {"params": others}]
    optimizer = torch.optim.SGD(groups, lr=0.0, momentum=recipe.momentum, nesterov=True)
    history = resume(out / "state.pt", recipe, device, net, optimizer)
    steps = len(sets["train"]) // recipe.batch
    for epoch in range(len(history), recipe.epochs):
        begin = time.monotonic()
        # A generator for each epoch: what follows a resumption is what would have followed anyway.
        generator = torch.Generator().manual_seed(recipe.seed * 10**6 + epoch)
        order = torch.randperm(len(sets["train"]), generator=generator)
        net.train()
        lost = right = 0.0
        for step in range(steps):
            rate = schedule(epoch * steps + step, recipe.epochs * steps, recipe)
            for group in optimizer.param_groups:
                group["lr"] = rate
            some = order[step * recipe.batch : (step + 1) * recipe.batch].to(device)
            truth = sets["train labels"][some]
            with torch.autocast(device, torch.bfloat16):
                scores = net(augment(sets["train"][some], recipe, generator))
                loss = F.cross_entropy(scores.float(), truth)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            lost += float(loss.detach())
            right += float((scores.argmax(1) == truth).float().mean())
        tested = accuracy(net, sets["test"], sets["test labels"], torch.bfloat16)
        record = {"loss": lost / steps, "train": right / steps, "test": tested}
        spent = {"seconds": time.monotonic() - begin, "threads": torch.get_num_threads()}
        history.append(record | spent)
        state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "history": history}
        save(state | {"recipe": dataclasses.asdict(recipe)}, out / "state.pt")
        print(f"epoch {epoch + 1}", {name: round(value, 4) for name, value in history[-1].items()})
    return net, history


def fold(net: nn.Sequential) -> dict[str, Tensor]:
    """Weights and biases by layer's name, batch norm folded into the convolution before it."""
    tensors, modules, names = {}, list(net), iter(VGG16.convolutions)
    for conv, norm in zip(modules, modules[1:], strict=False):
        if isinstance(norm, nn.BatchNorm2d):
            name = next(names)
            scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
            tensors[f"{name}.weight"] = conv.weight.double() * scale.view(-1, 1, 1, 1)
            tensors[f"{name}.bias"] = norm.bias.double() - norm.running_mean.double() * scale
    tensors["classifier.weight"], tensors["classifier.bias"] = modules[-1].weight, modules[-1].bias
    return {name: each.detach().cpu().contiguous() for name, each in tensors.items()}


def folded_accuracy(tensors: dict[str, Tensor], pixels: Tensor, labels: Tensor) -> float:
    """Share of images that a folded network gets right, computed in float32."""
    source = Source("file", "as trained")
    chain = Network(VGG16, tensors, PREPROCESSING["cifar10"], source)
    weight, bias = (tensors[f"classifier.{part}"].float() for part in ("weight", "bias"))
    right = 0
    for some, truth in zip(pixels.cpu().split(500), labels.cpu().split(500), strict=True):
        top = chain.activations(some.float() / 255, ["pool(5)"])["pool(5)"].flatten(1)
        right += int(((top @ weight.T + bias).argmax(1) == truth).sum())
    return right / len(labels)


def publish(
    net: nn.Sequential, history: list[dict], data: Path, out: Path, recipe: Recipe, note: str = ""
) -> None:
    """The checkpoint and its card; `note` says what is special about this copy of the data."""
    tensors = {name: each.half() for name, each in fold(net).items()}
    sets = images(data)
    path = out / EMBEDDED.name
    save_file(tensors, path)
    path.chmod(0o644)
    card = {
        "model": "VGG-16, configuration D, at half width; batch norm folded in; float16",
        "data": "CIFAR-10 (Krizhevsky 2009), 50,000 training images, 10,000 test images"
        + (f"; {note}" if note else ""),
        "recipe": dataclasses.asdict(recipe),
        "accuracy": {
            "trained, bfloat16": history[-1]["test"],
            "folded, float16 weights": folded_accuracy(tensors, sets["test"], sets["test labels"]),
        },
        "curves": {
            key: [round(record[key], 4) for record in history] for key in ("loss", "train", "test")
        },
        "parameters": sum(each.numel() for each in tensors.values()),
        "bytes": path.stat().st_size,
        "device": f"{next(net.parameters()).device.type}, {history[-1]['threads']} threads",
        "minutes": round(sum(record["seconds"] for record in history) / 60, 1),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "sha256": sha256(path),
    }
    path.with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n")
    path.with_suffix(".md").write_text(model_card(card))
    print(json.dumps(card["accuracy"]))


def model_card(card: dict) -> str:
    """The card for people."""
    recipe = Recipe(**card["recipe"])
    trained, shipped = (100 * share for share in card["accuracy"].values())
    versions = card["versions"]
    curves = "\n".join(
        f"| {epoch} | {loss:.3f} | {100 * train:.1f} | {100 * test:.1f} |"
        for epoch, (loss, train, test) in enumerate(zip(*card["curves"].values(), strict=True), 1)
    )
    return f"""# {EMBEDDED.name}

{card["model"]}; {card["parameters"]:,} numbers, {card["bytes"]:,} bytes, SHA-256
`{card["sha256"]}`.

- **What for.** A stand-in for VGG-16 trained on ImageNet, whose weights are too large to ship: the
  book's defaults run on it without a download, and say so. It has half the filters and has seen
  images of 32 x 32 pixels of ten classes, so its numbers are not those of the paper's network.
- **Data.** {card["data"]}.
  Channels are centered and scaled by the training set's means and standard deviations.
- **Recipe.** Stochastic gradient descent with Nesterov's momentum {recipe.momentum}, batches of
  {recipe.batch}, {recipe.epochs} epochs; learning rate up to {recipe.rate} in a straight line over
  {100 * recipe.warmup:.0f} % of the steps and down to 0; weight decay {recipe.decay} on weights,
  none on biases and batch norm. Each image is shifted by up to {recipe.pad} pixels (reflected),
  mirrored with probability one half, and loses a square of about {recipe.cutout} pixels. bfloat16.
  Seed {recipe.seed}. `python -m invertnb.networks.train DATA OUT`.
- **Accuracy** on the test set: {trained:.2f} % as trained, {shipped:.2f} % for this file. The test
  set chose nothing.
- **Made with** {card["device"]}, Python {versions["python"]}, torch {versions["torch"]},
  in {card["minutes"]} minutes.

| epoch | loss | training accuracy, % | test accuracy, % |
|---|---|---|---|
{curves}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="CIFAR-10, torchvision's or PNG files in folders")
    parser.add_argument("out", type=Path, help="folder for the state and the checkpoint")
    parser.add_argument("--note", default="", help="for the card: what is special about this copy")
    arguments = parser.parse_args()
    recipe = Recipe()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net, history = train(arguments.data, arguments.out, recipe, device)
    publish(net, history, arguments.data, arguments.out, recipe, arguments.note)


if __name__ == "__main__":
    main()
