"""`python -m pipelines` is `shardmill`."""

import sys

from pipelines.cli.commands import main

if __name__ == "__main__":
    sys.exit(main())
