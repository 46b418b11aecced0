#!/usr/bin/env bash
# The browser tests drive Chromium. Installs Debian's only if no browser is found and apt may be used here;
# otherwise it says what to do, and the browser tests themselves fail with the same words.
set -euo pipefail

for name in "${CHROMIUM:-}" chromium chromium-browser google-chrome; do
    [ -n "$name" ] && command -v "$name" >/dev/null 2>&1 && exit 0
done

as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo -n)
if command -v apt-get >/dev/null 2>&1 && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }; then
    echo "No browser found: installing Debian's chromium for the browser tests." >&2
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null
else
    echo "No browser found, and apt-get cannot be used here. Install Chromium or Chrome, or set CHROMIUM=/path/to/it." >&2
fi
