"""``python -m napari_histomil`` is ``histomil``."""

import sys

from napari_histomil.cli import main

if __name__ == "__main__":
    sys.exit(main())
