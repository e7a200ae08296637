"""``python -m ranking DATA_DIR``."""

import sys

from ranking.cli import main

if __name__ == "__main__":
    sys.exit(main())
