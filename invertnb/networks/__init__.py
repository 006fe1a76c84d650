"""Real networks for sections 4.3 to 4.5: VGG-16 and AlexNet by layer, weights, decoders, images.

Every `Network` carries a `Source` that says which weights it has, and every `Images` says what it
shows: a chapter writes both beside its numbers. Nothing is replaced by something else in silence.
"""

from invertnb.networks.architecture import ALEXNET, VGG16, Network, Preprocessing, Source
from invertnb.networks.decoder import Decoder, decoder_card, load_decoder
from invertnb.networks.images import Images, open_images
from invertnb.networks.labelled import Labelled, open_labelled
from invertnb.networks.weights import card, gaussian, load

__all__ = [
    "ALEXNET",
    "VGG16",
    "Decoder",
    "Images",
    "Labelled",
    "Network",
    "Preprocessing",
    "Source",
    "card",
    "decoder_card",
    "gaussian",
    "load",
    "load_decoder",
    "open_images",
    "open_labelled",
]
