"""`python -m ssl_audio.train …`, the same as `ssl-audio train …`."""

import sys

from ssl_audio.__main__ import main

if __name__ == "__main__":
    sys.argv[1:1] = ["train"]
    main()
