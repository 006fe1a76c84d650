"""What a chapter needs beside the core: parameters, figures, explorers and the ledger."""

from .explorer import Choice, Explorer, Slider, View
from .figures import PALETTE, figure
from .ledger import Record, Records, record
from .parameters import Parameters, parameter
from .real_networks import NetworkParameters
from .recorded import Recorded, Recording, load_recorded

__all__ = [
    "PALETTE",
    "Choice",
    "Explorer",
    "NetworkParameters",
    "Parameters",
    "Record",
    "Recorded",
    "Recording",
    "Records",
    "Slider",
    "View",
    "figure",
    "load_recorded",
    "parameter",
    "record",
]
