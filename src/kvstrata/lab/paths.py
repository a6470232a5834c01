"""Where the lab keeps things below the cache folder."""

from pathlib import Path

from kvstrata.paths import cache_dir


def labs_dir() -> Path:
    """Return the folder holding one folder per lab and what they share."""
    return cache_dir().absolute() / "lab"


def lab_dir(lab: str) -> Path:
    """Return the folder of one lab: key, known_hosts, state.json, drive images."""
    return labs_dir() / lab


def images_dir() -> Path:
    """Return the folder of the node root file systems."""
    return cache_dir().absolute() / "images"


def releases_dir() -> Path:
    """Return the folder of the releases that nodes share, one folder per Debian release."""
    return labs_dir() / "releases"


def models_dir() -> Path:
    """Return the folder that every node sees read-only as /srv/models."""
    return cache_dir().absolute() / "models"
