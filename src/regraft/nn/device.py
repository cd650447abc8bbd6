"""Which device to use where nobody says."""

import torch


def best_device() -> torch.device:
    """A GPU if there is one: CUDA's before Apple's; else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
