"""`python -m ssl_audio.convert …`, the same as `ssl-audio convert …`."""

import sys

from ssl_audio.__main__ import main

if __name__ == "__main__":
    sys.argv[1:1] = ["convert"]
    main()
