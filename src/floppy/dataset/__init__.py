"""The product: synthetic examples with their card, and the file that holds both. NumPy and safetensors suffice."""

from floppy.dataset.card import Card
from floppy.dataset.file import DistilledDataset, load, save
from floppy.dataset.folder import save_folder

__all__ = ["Card", "DistilledDataset", "load", "save", "save_folder"]
