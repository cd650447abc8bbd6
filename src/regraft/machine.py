"""What this machine calls itself; a measured number goes with the name of its device."""

import platform
from pathlib import Path


def processor_name() -> str:
    """The processor's model, which Linux tells only in a file; `platform` knows it elsewhere."""
    models = [
        line.partition(":")[2].strip() for line in _cpuinfo().splitlines() if line.startswith("model name")
    ]
    return models[0] if models else platform.processor() or platform.machine()


def processor_flags() -> frozenset[str]:
    """Instruction sets of the processor, as Linux names them; empty elsewhere."""
    return frozenset(_cpuinfo().split())


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""
