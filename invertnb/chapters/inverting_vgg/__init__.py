"""Chapter 10: one step on the activations of VGG-16, and images from it (section 4.5)."""

from __future__ import annotations

from dataclasses import dataclass

from invertnb import notebook
from invertnb.chapters.inverting_vgg import inputs
from invertnb.notebook import parameter


@dataclass(frozen=True)
class Parameters(notebook.NetworkParameters):
    """The network, the photographs and how much is drawn."""

    photographs: int = parameter(10, minimum=1, help="images, the first so many")
    banks: int = parameter(3, minimum=2, help="draws of random filters for each layer")


def gather(p: Parameters) -> inputs.Inputs:
    """The network that the parameters name on its images."""
    return inputs.gather(p.network(), p.pictures(p.photographs), p.banks, p.generator)
