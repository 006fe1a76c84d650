"""Chapter 10: one step on the activations of VGG-16, and images from it (section 4.5)."""

from __future__ import annotations

from dataclasses import dataclass

from invertnb import notebook
from invertnb.chapters.inverting_vgg import inputs
from invertnb.notebook import Recording, parameter

PAPER = {"photographs": 500}


@dataclass(frozen=True)
class Parameters(notebook.NetworkParameters):
    """The networks, the photographs and how much is drawn."""

    photographs: int = parameter(10, minimum=1, help="images, the first so many")
    banks: int = parameter(3, minimum=2, help="draws of random filters for each layer")
    resnet: str = parameter(
        "random", path=True,
        help="weights of ResNet-18: random, torchvision or the path of a safetensors file",
    )  # fmt: skip
    study: str = parameter(
        "network", choices=("network", "speed", "resnet"), help="what --record computes"
    )


def gather(p: Parameters) -> inputs.Inputs:
    """The network that the parameters name on its images."""
    return inputs.gather(p.network(), p.pictures(p.photographs), p.banks, p.generator)


def recording(parameters: Parameters) -> Recording:
    """What `study` names."""
    if parameters.study == "resnet":
        from invertnb.chapters.inverting_vgg import residual

        return residual.recording(parameters)
    from invertnb.chapters.inverting_vgg import recordings

    return getattr(recordings, parameters.study)(parameters)
