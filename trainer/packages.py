"""What this machine has: the packages of the trainer and their versions, and devices of torch."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util

from vpt_data.errors import UsageError


def check_packages() -> None:
    """UsageError unless torch and its companions can be imported."""
    for package in ("torch", "transformers", "tokenizers", "safetensors"):
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as error:
            sentence = f"The trainer needs {package}, which is not installed; pip install 'vpt-data[train]'."
            raise UsageError(sentence) from error
    if importlib.util.find_spec("torchvision") is not None:
        try:
            # transformers imports it by itself; a build for another torch breaks every model there.
            importlib.import_module("torchvision")
        except (RuntimeError, ImportError, OSError, AttributeError) as error:
            raise UsageError(
                f"torchvision is installed and does not fit torch ({error}); pip uninstall torchvision, for the "
                "trainer does not use it."
            ) from error


def versions(*packages: str) -> dict[str, str]:
    """The installed version of each package; none of them is imported."""
    return {package: importlib.metadata.version(package) for package in packages}


def check_device(device: str) -> None:
    """UsageError unless torch has it, before anything is loaded."""
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise UsageError(
            f"--device {device}: torch cannot use it here ({reason}); leave it out for the CPU."
        ) from error
