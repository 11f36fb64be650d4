#!/usr/bin/env bash
# A picture of the page of an index: page.sh INDEX PICTURE.png. CHROMIUM: the browser; default: chromium.
set -euo pipefail
index=$1 picture=$2
log=$(mktemp)
"${PYTHON:-python}" -m ssl_audio explore "$index" --no-browser --map pca > "$log" 2>&1 &
server=$!
trap 'kill -INT $server; wait $server || true' EXIT
for _ in $(seq 60); do
  address=$(grep -o 'http://127[^ ]*' "$log" | head -n 1) && [ -n "$address" ] && break
  sleep 1
done
"${CHROMIUM:-chromium}" --headless --no-sandbox --disable-gpu --window-size=1400,900 \
  --virtual-time-budget=15000 --screenshot="$picture" "$address" 2> /dev/null
echo "$picture"
