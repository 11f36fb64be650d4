"""`python -m ssl_audio.bench …`, the same as `ssl-audio bench …`."""

import sys

from ssl_audio.__main__ import main

if __name__ == "__main__":
    sys.argv[1:1] = ["bench"]
    main()
