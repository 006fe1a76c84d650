"""A trained ResNet-18 to measure, where torchvision's weights are not at hand: on CIFAR-10.

    python -m invertnb.networks.train_resnet DATA OUT

Its weights (45 MB) do not ship; what was measured with them is recorded. DATA is as for
`invertnb.networks.train`, and so are OUT, `state.pt` in it, and what a second call does.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from torchvision.models import resnet18

from invertnb.networks.download import sha256
from invertnb.networks.train import (
    Recipe, accuracy, augment, images, resume, save, schedule,
)  # fmt: skip

RECIPE = Recipe(width=1.0, epochs=16, rate=0.05)


def train(data: Path, out: Path, recipe: Recipe, device: str) -> tuple[nn.Module, list[dict]]:
    """The trained network and a record for each epoch; goes on from OUT/state.pt."""
    out.mkdir(parents=True, exist_ok=True)
    sets = {name: tensor.to(device) for name, tensor in images(data).items()}
    torch.manual_seed(recipe.seed)
    net = resnet18(num_classes=10).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        net.parameters(), lr=0.0, momentum=recipe.momentum, nesterov=True, weight_decay=recipe.decay
    )
    history = resume(out / "state.pt", recipe, device, net, optimizer)
    steps = len(sets["train"]) // recipe.batch
    for epoch in range(len(history), recipe.epochs):
        begin, lost = time.monotonic(), 0.0
        generator = torch.Generator().manual_seed(recipe.seed * 10**6 + epoch)
        order = torch.randperm(len(sets["train"]), generator=generator)
        net.train()
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = schedule(epoch * steps + step, recipe.epochs * steps, recipe)
            some = order[step * recipe.batch : (step + 1) * recipe.batch].to(device)
            with torch.autocast(device, torch.bfloat16):
                scores = net(augment(sets["train"][some], recipe, generator))
                loss = F.cross_entropy(scores.float(), sets["train labels"][some])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            lost += float(loss.detach())
        tested = accuracy(net, sets["test"], sets["test labels"], torch.bfloat16)
        history.append({"loss": lost / steps, "test": tested, "seconds": time.monotonic() - begin})
        state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "history": history}
        save(state | {"recipe": dataclasses.asdict(recipe)}, out / "state.pt")
        print(f"epoch {epoch + 1}", {name: round(value, 4) for name, value in history[-1].items()}, flush=True)
    return net, history


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="CIFAR-10, torchvision's or PNG files in folders")
    parser.add_argument("out", type=Path, help="folder for the state and the weights")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net, history = train(arguments.data, arguments.out, RECIPE, device)
    path = arguments.out / "resnet18_cifar10.safetensors"
    save_file({name: each.detach().cpu().contiguous() for name, each in net.state_dict().items()}, path)
    about = {
        "recipe": dataclasses.asdict(RECIPE), "history": history, "sha256": sha256(path),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    path.with_suffix(".json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
