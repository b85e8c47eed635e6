"""``python -m pyflannel`` is ``flanneld``."""

import sys

from pyflannel.cli.flanneld import main

sys.exit(main())
