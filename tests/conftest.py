"""How the tests share the machine."""

import os

import torch

# With `pytest -n 2` each worker is a process: one thread each, or they would stand in each other's way.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
