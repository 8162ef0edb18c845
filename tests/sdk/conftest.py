"""Lends these tests the bench of real workers that the node's tests stand on."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "node"))
