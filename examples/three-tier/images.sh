#!/bin/bash
# Sees to it that hoist has the images of this example: pulls them where a
# registry answers, otherwise makes them from Debian's packages.
exec "$(dirname "$0")/../images/provide" postgres python nginx
