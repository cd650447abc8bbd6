import sys
from pathlib import Path

# The scripts that are killed and the tests that kill them upgrade the same toys.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "store")]
