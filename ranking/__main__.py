"""``python -m ranking DATA_DIR``."""

import sys

from ranking.threads import limit_threads

if __name__ == "__main__":
    limit_threads()
    from ranking.cli import main

    sys.exit(main())
