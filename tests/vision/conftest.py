import sys
from pathlib import Path

# The script that is killed and the tests record the same toys.
sys.path.insert(0, str(Path(__file__).parent))
