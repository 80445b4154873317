"""``python -m getok_drive``: the same as the command ``getok-drive``."""

import sys

from getok_drive.cli import main

sys.exit(main())
