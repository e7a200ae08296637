"""``python -m ranking DATA_DIR``."""

import sys

from ranking.start import start_program

if __name__ == "__main__":
    sys.exit(start_program())
