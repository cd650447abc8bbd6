"""Where the tests of stores find the servers that they start, and what they share."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
