"""The emulator of Google Cloud Storage, without needless notes if it keeps all in memory.

    python tests/gcs_emulator.py start --in-memory …

At each object that is written it writes down what it knows of all of them, in case that it is
started again: 4,000 objects take it seven minutes of a core, and each one more a fifth of a second.
"""

import sys

from gcp_storage_emulator.__main__ import main
from gcp_storage_emulator.storage import Storage

Storage._write_config_to_file = lambda self: None

if __name__ == "__main__":
    main(sys.argv[1:])
